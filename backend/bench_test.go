package backend

import (
	"crypto/x509"
	"encoding/pem"
	"testing"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/bench"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// BenchmarkCreds_AgainstAProgram compares a warm read of creds with a program that signs and posts on its own, at the
// same embedded provider. The cost of Vault and of its way to the plugin is in neither.
func BenchmarkCreds_AgainstAProgram(b *testing.B) {
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

// newProgram returns a program that is a client of the provider.
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
