package keyring

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"time"
)

// Certificates are for providers that require one instead of a bare public key. Their expiry does
// not retire a version.
const (
	certificateLife     = 10 * 365 * 24 * time.Hour
	certificateBackdate = 5 * time.Minute // for a provider whose clock is behind
)

func selfSign(private crypto.Signer, commonName string, now time.Time) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 128))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial.Add(serial, big.NewInt(1)), // positive (RFC 5280 §4.1.2.2)
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             now.Add(-certificateBackdate),
		NotAfter:              now.Add(certificateLife),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
	}
	return x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
}

// CertificatePEM returns the version's self-signed certificate (RFC 7468 §5) with a final newline.
func (v *Version) CertificatePEM() string {
	return pemOf("CERTIFICATE", v.certificate)
}

// CertificateSHA256 returns the certificate's fingerprint in lower-case hex.
func (v *Version) CertificateSHA256() string {
	digest := sha256.Sum256(v.certificate)
	return hex.EncodeToString(digest[:])
}
