package keyring

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
)

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
