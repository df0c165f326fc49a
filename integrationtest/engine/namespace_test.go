package engine

import (
	"net/http"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestNamespace_MountsAreSeparate: one plugin process serves the mounts of two namespaces, which
// have the same path and the same names, and neither reaches what the other has.
func TestNamespace_MountsAreSeparate(t *testing.T) {
	t.Parallel()
	harness.RequireNamespaces(t)
	const name, version = "jwt-namespaces", "v1.3.0-test" // no other test starts it
	vault := harness.Vault()
	require.NoError(t, vault.BuildPlugin(t.Context(), name, version))
	require.NoError(t,
		vault.RegisterPlugin(t.Context(), vault.NewClient(t), name, name, version))
	p := harness.AnyProvider(t)
	mounts := []*harness.Mount{
		harness.NewNamespaceMount(t, name, p.Config), harness.NewNamespaceMount(t, name, p.Config),
	}
	var readers []*harness.Mount
	for _, m := range mounts {
		clientID := m.NewClient(t, p, "myapi", nil)
		m.WritePolicy(t, "reader", `path "bcgov-jwt/creds/myapi" { capabilities = ["read"] }`)
		reader := m.AsNewToken(t, api.TokenCreateRequest{Policies: []string{"reader"}})
		creds := reader.Read(t, "creds/myapi")
		require.Equal(t, m.Read(t, "keys/myapi").Text(t, "key_id"), creds.Text(t, "key_id"))
		claims := p.Introspect(t, creds.Text(t, "access_token"))
		require.Equal(t, clientID, claims["client_id"])
		require.Len(t, m.Leases(t, "myapi"), 1)
		readers = append(readers, reader)
	}
	require.NotEqual(t, mounts[0].Read(t, "keys/myapi").Text(t, "public_key"),
		mounts[1].Read(t, "keys/myapi").Text(t, "public_key"))
	vault.PluginProcess(t, name) // there is one

	stranger := mounts[1].As(t, readers[0].Client.Token())
	stranger.RequireForbidden(t, http.MethodGet, "creds/myapi", nil)
	mounts[0].RecordPrivateKeys(t)
	mounts[0].MustRun(t, "secrets", "disable", "{mount}")
	require.NotEmpty(t, readers[1].Read(t, "creds/myapi").Text(t, "access_token"))
}

// TestNamespace_CommandsWorkWithinIt, as they are printed, and URLs without a namespace.
func TestNamespace_CommandsWorkWithinIt(t *testing.T) {
	t.Parallel()
	harness.RequireNamespaces(t)
	p := harness.EmbeddedProvider(t)
	m := harness.NewNamespaceMount(t, harness.PluginName, p.Config)
	create := "write -f " + m.Path + "/keys/myapi"
	m.MustFailWith(t, "with: vault "+create, "write", "-f", "{mount}/roles/myapi")
	m.MustRun(t, strings.Fields(create)...)
	m.NewJWKSClient(t, p, "published", harness.Vault().URL(), nil)
	m.MustRun(t, "read", "{mount}/creds/published")
	require.Contains(t, m.Read(t, "keys/published").Text(t, "jwks_path"),
		"/v1/"+m.Client.Namespace()+"/"+m.Path+"/jwks/")
}
