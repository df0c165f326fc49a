package keyring

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Origin is where a version's private key was created.
type Origin string

// Generated keys were created inside Vault, imported ones outside: someone else may know them.
const (
	Generated Origin = "generated"
	Imported  Origin = "imported"
)

// Activator is what made a version the active one.
type Activator string

// A key's first version is active from its creation; a later one from its scheduled time, from when
// an operator activates it, or from when the provider accepts it in place of the active one.
const (
	ByCreation Activator = "creation"
	BySchedule Activator = "schedule"
	ByOperator Activator = "operator"
	ByProvider Activator = "provider"
)

// Version is one key pair of a key.
type Version struct {
	redacted

	record  versionRecord
	spki    []byte // DER of the SubjectPublicKeyInfo (RFC 5280 §4.1.2.7)
	keyID   string
	private crypto.Signer
	signer  *Signer
}

// versionRecord is what is known of a version besides its key pair, in the form it is stored in.
type versionRecord struct {
	Number         int       `json:"number"`
	Origin         Origin    `json:"origin"`
	CreationTime   time.Time `json:"creation_time"`
	ActivationTime time.Time `json:"activation_time"` // zero: not scheduled
	ActivatedBy    Activator `json:"activated_by"`
	AcceptedTime   time.Time `json:"accepted_time"` // zero: not since last staged or rejected
	Certificate    []byte    `json:"certificate"`   // DER
}

func newVersion(
	number int, material *Material, commonName string, now time.Time,
) (*Version, error) {
	certificate, err := selfSign(material.private, commonName, now)
	if err != nil {
		return nil, fmt.Errorf("issue the certificate: %w", err)
	}
	v := &Version{record: versionRecord{
		Number:       number,
		Origin:       material.origin,
		CreationTime: storedTime(now),
		Certificate:  certificate,
	}}
	return v, v.setPrivateKey(material.private)
}

func (v *Version) setPrivateKey(private crypto.Signer) error {
	spki, err := spkiOf(private)
	v.private, v.spki, v.keyID = private, spki, keyIDOf(spki)
	return err
}

func spkiOf(private crypto.Signer) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, fmt.Errorf("encode the public key: %w", err)
	}
	return spki, nil
}

func keyIDOf(spki []byte) string {
	digest := sha256.Sum256(spki)
	return base64.RawURLEncoding.EncodeToString(digest[:])
}

// Number returns the version's number, from 1; a key never reuses one.
func (v *Version) Number() int { return v.record.Number }

// Origin returns where the private key was created.
func (v *Version) Origin() Origin { return v.record.Origin }

// CreationTime returns when the version was created.
func (v *Version) CreationTime() time.Time { return v.record.CreationTime }

// ActivationTime returns when the version becomes the active one; zero: not scheduled.
func (v *Version) ActivationTime() time.Time { return v.record.ActivationTime }

// ActivatedBy returns what set the activation time.
func (v *Version) ActivatedBy() Activator { return v.record.ActivatedBy }

// AcceptedTime returns when the provider first issued a token for this version; zero: it has not
// since the version was last staged or rejected.
func (v *Version) AcceptedTime() time.Time { return v.record.AcceptedTime }

func (v *Version) activatedAt(now time.Time) bool {
	return !v.record.ActivationTime.IsZero() && !v.record.ActivationTime.After(now)
}

// KeyID returns the base64url SHA-256 of the SubjectPublicKeyInfo: the kid that Keycloak derives
// from a pasted PEM (KeyUtils.createKeyId), so that one id works however the key is registered.
func (v *Version) KeyID() string { return v.keyID }

// PublicKeyPEM returns the public key as one PKIX block (RFC 7468 §13) with a final newline.
func (v *Version) PublicKeyPEM() string {
	return pemOf("PUBLIC KEY", v.spki)
}

func pemOf(blockType string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der}))
}

// Signer returns the signer of this version.
func (v *Version) Signer() *Signer { return v.signer }

// storedTime returns an instant as entries hold it. Rounded up, it would be after its own request.
func storedTime(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

// Certificates are for providers that require one instead of a bare public key. Their expiry does
// not retire a version.
const (
	certificateLife     = 10 * 365 * 24 * time.Hour
	certificateBackdate = 5 * time.Minute // for a provider whose clock is behind
)

func selfSign(private crypto.Signer, commonName string, now time.Time) ([]byte, error) {
	template := &x509.Certificate{ // x509 chooses the serial number (RFC 5280 §4.1.2.2)
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
	return pemOf("CERTIFICATE", v.record.Certificate)
}

// CertificateSHA256 returns the certificate's fingerprint in lower-case hex.
func (v *Version) CertificateSHA256() string {
	digest := sha256.Sum256(v.record.Certificate)
	return hex.EncodeToString(digest[:])
}

// JWK returns the public key of a version as a JSON Web Key (RFC 7517 §4).
func (k *Key) JWK(v *Version) (string, error) {
	return k.marshal(k.publicJWK(v))
}

// JWKS returns the JSON Web Key Set (RFC 7517 §5) of the live versions, newest first.
func (k *Key) JWKS(now time.Time) (string, error) {
	var set jose.JSONWebKeySet
	for _, v := range k.Live(now) {
		set.Keys = append(set.Keys, k.publicJWK(v))
	}
	return k.marshal(set)
}

func (k *Key) marshal(public any) (string, error) {
	document, err := json.Marshal(public)
	if err != nil {
		return "", fmt.Errorf("encode the public keys of %q: %w", k.name, err)
	}
	return string(document), nil
}

func (k *Key) publicJWK(v *Version) jose.JSONWebKey {
	jwk := jose.JSONWebKey{Key: v.private.Public(), KeyID: v.keyID, Use: "sig"}
	// An RSA key serves six algorithms, and Keycloak rejects all but the JWK's alg if it has one.
	if algorithms := k.keyType.Algorithms(); len(algorithms) == 1 {
		jwk.Algorithm = string(algorithms[0])
	}
	return jwk
}

// Signer signs JWTs with one version's private key and one algorithm, safe for concurrent use.
type Signer struct {
	redacted

	keyID string
	jws   jose.Signer
}

// newSigner keeps the parsed private key and its precomputed values in the signer, so that a
// signature costs no more than the arithmetic.
func newSigner(
	private crypto.Signer, algorithm jose.SignatureAlgorithm, keyID string, sendKeyID bool,
) (*Signer, error) {
	jwk := jose.JSONWebKey{Key: private}
	if sendKeyID {
		jwk.KeyID = keyID
	}
	options := new(jose.SignerOptions).WithType("JWT")
	jws, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jwk}, options)
	if err != nil {
		return nil, fmt.Errorf("algorithm %q: %w", algorithm, err)
	}
	return &Signer{keyID: keyID, jws: jws}, nil
}

// KeyID returns the id of the signing key, even if the kid header is not sent.
func (s *Signer) KeyID() string { return s.keyID }

// Sign returns the payload as a compact JWS (RFC 7515 §7.1) with the headers alg, typ and, if the
// key's settings include it, kid.
func (s *Signer) Sign(payload []byte) (string, error) {
	signed, err := s.jws.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return signed.CompactSerialize()
}

// redacted is embedded in what holds a private key, which then prints and marshals as [private]:
// fmt would otherwise reach the key through unexported fields.
type redacted struct{}

// Format prints [private], whatever the verb.
func (redacted) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "[private]") // a fmt.State keeps its own errors
}

// MarshalJSON returns "[private]".
func (redacted) MarshalJSON() ([]byte, error) { return []byte(`"[private]"`), nil }
