package keyring

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// JWKS returns the JSON Web Key Set (RFC 7517 §5) of the live versions, newest first.
func (k *Key) JWKS(now time.Time) (string, error) {
	var set jose.JSONWebKeySet
	for _, v := range k.Live(now) {
		set.Keys = append(set.Keys, k.publicJWK(v))
	}
	document, err := json.Marshal(set)
	if err != nil {
		return "", fmt.Errorf("encode the JWKS of key %q: %w", k.name, err)
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
