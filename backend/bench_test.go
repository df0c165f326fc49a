package backend

import (
	"crypto/x509"
	"encoding/pem"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

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
		func() error { return program.Token(b.Context()) })
}

// newProgram makes a program that is a client of the provider.
func newProgram(b *testing.B, p *provider) *bench.Program {
	b.Helper()
	spki, err := x509.MarshalPKIXPublicKey(providerKey().Public())
	require.NoError(b, err)
	publicKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	require.NoError(b, p.idp.PutClient("apigw", keycloak.PortalClient("program", string(publicKey))))
	program, err := bench.NewProgram(providerKey(), "program", p.issuer(), p.issuer()+tokenPath)
	require.NoError(b, err)
	b.Cleanup(program.Close)
	return program
}
