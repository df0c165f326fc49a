package keyring

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"time"
)

// Origin says where a version's private key was made.
type Origin string

// Generated keys were made inside Vault, imported ones elsewhere: someone else may know them.
const (
	Generated Origin = "generated"
	Imported  Origin = "imported"
)

// Activator says what made a version the active one.
type Activator string

// A first version is active from its creation, a version of a scheduled rotation from its time, one that an operator
// activated from then, and one that the provider accepted in place of the active one from then.
const (
	ByCreation Activator = "creation"
	BySchedule Activator = "schedule"
	ByOperator Activator = "operator"
	ByProvider Activator = "provider"
)

// Version is one key pair of a key.
type Version struct {
	redacted

	number         int
	origin         Origin
	creationTime   time.Time
	activationTime time.Time // zero: not scheduled
	activatedBy    Activator
	acceptedTime   time.Time // zero: not accepted by the provider since it was last staged or refused
	certificate    []byte    // DER
	spki           []byte    // DER of the SubjectPublicKeyInfo (RFC 5280 §4.1.2.7)
	keyID          string
	private        crypto.Signer
	signer         *Signer
}

func newVersion(number int, private crypto.Signer, origin Origin, commonName string, now time.Time) (*Version, error) {
	certificate, err := selfSign(private, commonName, now)
	if err != nil {
		return nil, fmt.Errorf("issue the certificate: %w", err)
	}
	v := &Version{
		number:       number,
		origin:       origin,
		creationTime: stored(now),
		certificate:  certificate,
	}
	return v, v.setPrivateKey(private)
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

// Number counts the versions of a key from 1; a number is never given twice.
func (v *Version) Number() int { return v.number }

// Origin says where the private key was made.
func (v *Version) Origin() Origin { return v.origin }

// CreationTime is when the version was made.
func (v *Version) CreationTime() time.Time { return v.creationTime }

// ActivationTime is when the version becomes the one that signs; zero when that is not scheduled.
func (v *Version) ActivationTime() time.Time { return v.activationTime }

// ActivatedBy says what gave the version its activation time.
func (v *Version) ActivatedBy() Activator { return v.activatedBy }

// AcceptedTime is when the provider first gave a token for this version; zero when it has not, or has refused it since.
func (v *Version) AcceptedTime() time.Time { return v.acceptedTime }

func (v *Version) activatedAt(now time.Time) bool {
	return !v.activationTime.IsZero() && !v.activationTime.After(now)
}

// KeyID is the base64url SHA-256 of the SubjectPublicKeyInfo: the kid that Keycloak derives from a pasted PEM
// (KeyUtils.createKeyId), used everywhere so that one id works however the key was registered.
func (v *Version) KeyID() string { return v.keyID }

// PublicKeyPEM is the public key as one PKIX block (RFC 7468 §13), final newline included.
func (v *Version) PublicKeyPEM() string {
	return pemOf("PUBLIC KEY", v.spki)
}

func pemOf(blockType string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der}))
}

// Signer signs with this version.
func (v *Version) Signer() *Signer { return v.signer }

// stored is an instant as entries hold it. A rounded-up one would lie in the future of its own request.
func stored(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }
