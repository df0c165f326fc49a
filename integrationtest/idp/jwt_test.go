package idp_test

import (
	"encoding/json"
	"net/http/httptest"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
)

// TestSignJWT_VerifiesWithPublishedKeys of the realm.
func TestSignJWT_VerifiesWithPublishedKeys(t *testing.T) {
	t.Parallel()
	server := idp.New(idp.Options{})
	t.Cleanup(server.Close)
	require.NoError(t, server.AddRealm("ci"))
	require.NoError(t, server.AddRealm("other"))
	host := httptest.NewServer(server)
	t.Cleanup(host.Close)

	claims := map[string]any{
		"sub": "repo:my-org/my-repo:ref:refs/heads/main", "event_name": "push", "exp": 1.0,
	}
	signed, err := server.SignJWT("ci", claims)
	require.NoError(t, err)
	token, err := jwt.ParseSigned(signed, []jose.SignatureAlgorithm{jose.RS256})
	require.NoError(t, err)
	var got map[string]any
	require.NoError(t, token.Claims(publishedKeys(t, host.URL, "ci"), &got))
	require.Equal(t, claims, got)
	otherKeys := publishedKeys(t, host.URL, "other")
	require.Error(t, token.Claims(otherKeys, &got), "the keys of another realm")

	_, err = server.SignJWT("missing", claims)
	require.EqualError(t, err, "no such realm")
}

func publishedKeys(t *testing.T, baseURL, realm string) *jose.JSONWebKeySet {
	t.Helper()
	var keys jose.JSONWebKeySet
	certs := get(t, baseURL+"/realms/"+realm+"/protocol/openid-connect/certs")
	require.NoError(t, json.Unmarshal([]byte(certs.body), &keys))
	require.Len(t, keys.Keys, 1)
	return &keys
}
