package backend

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/clientauth"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/bench"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// BenchmarkCredsAgainstAProgram compares a warm read of creds with a program that signs and posts by itself, at the same
// embedded provider. What Vault and the way to a plugin cost is in neither.
func BenchmarkCredsAgainstAProgram(b *testing.B) {
	m, p := newReadyMount(b)
	m.write("keys/bench", map[string]any{"client_id": "bench", "issuer": p.issuer()})
	m.write("roles/bench", nil)
	p.register(m, "bench", "bench")
	program := newProgram(b, p)
	bench.Compare(b,
		func() error {
			resp, err := m.HandleRequest(b.Context(), &logical.Request{
				Operation: logical.ReadOperation, Path: "creds/bench", MountPoint: mountPoint, Storage: m.storage,
			})
			if err == nil && resp.IsError() {
				err = resp.Error()
			}
			return err
		},
		program.token)
}

// program is what users have without Vault.
type program struct {
	signer   jose.Signer
	endpoint string
	issuer   string
}

func newProgram(b *testing.B, p *provider) *program {
	b.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: providerKey()}, nil)
	require.NoError(b, err)
	spki, err := x509.MarshalPKIXPublicKey(providerKey().Public())
	require.NoError(b, err)
	publicKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	require.NoError(b, p.idp.PutClient("apigw", keycloak.PortalClient("program", string(publicKey))))
	return &program{signer: signer, endpoint: p.issuer() + tokenPath, issuer: p.issuer()}
}

func (p *program) token() error {
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"iss": "program", "sub": "program", "aud": p.issuer, "jti": fmt.Sprint(now.UnixNano()), "iat": now.Unix(), "exp": now.Unix() + 45,
	})
	if err != nil {
		return err
	}
	signed, err := p.signer.Sign(claims)
	if err != nil {
		return err
	}
	assertion, err := signed.CompactSerialize()
	if err != nil {
		return err
	}
	resp, err := http.PostForm(p.endpoint, url.Values{
		"grant_type": {"client_credentials"}, "client_id": {"program"},
		"client_assertion_type": {clientauth.AssertionType}, "client_assertion": {assertion},
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	if answer.AccessToken == "" {
		return fmt.Errorf("HTTP %d without a token", resp.StatusCode)
	}
	return nil
}
