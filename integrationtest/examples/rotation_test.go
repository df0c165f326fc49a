package examples

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestRotationScripts_RotateKeys runs each script of the documentation as it stands.
func TestRotationScripts_RotateKeys(t *testing.T) {
	t.Parallel()
	tested := map[string]func(*testing.T){
		"rotate-manual.sh": func(t *testing.T) {
			p := harness.EmbeddedProvider(t)
			m := harness.NewMount(t, p.Config)
			clientID := m.NewClient(t, p, "myapi", nil)
			paste := func(publicKey string) { p.Register(t, clientID, publicKey) }
			reads := m.StartLoad(t, "myapi")
			m.EventuallyAccepted(t, "myapi", 1, 10*time.Second)
			printed := runExample(t, m, "rotation/rotate-manual.sh", paste, "myapi", "myapi")
			require.Equal(t, 2, m.Read(t, "keys/myapi").Number(t, "active_version"), printed)
			reads.End(t)
		},
		"rotate-jwks.sh": func(t *testing.T) {
			p := harness.EmbeddedProvider(t)
			m := harness.NewMount(t, p.Config)
			m.NewJWKSClient(t, p, "myapi", m.Client.Address(),
				map[string]any{"prepublish_period": 0})
			reads := m.StartLoad(t, "myapi")
			m.EventuallyAccepted(t, "myapi", 1, 10*time.Second)
			printed := runExample(t, m, "rotation/rotate-jwks.sh", nil, "myapi", "myapi")
			require.NotEmpty(t, m.Versions(t, "myapi").Version(t, 2, "accepted_time"), printed)
			reads.End(t)
		},
		"break-glass.sh": func(t *testing.T) {
			p := harness.EmbeddedProvider(t)
			m := harness.NewMount(t, p.Config)
			clientID := m.NewClient(t, p, "manual", nil)
			paste := func(publicKey string) { p.Register(t, clientID, publicKey) }
			m.NewJWKSClient(t, p, "published", m.Client.Address(),
				map[string]any{"prepublish_period": 0})
			for _, name := range []string{"manual", "published"} {
				m.Read(t, "creds/"+name)
				m.EventuallyAccepted(t, name, 1, 10*time.Second)
				m.RecordPrivateKeys(t)
				compromised := m.Read(t, "keys/"+name)
				printed := runExample(t, m, "rotation/break-glass.sh", paste, name, name)
				require.NotContains(t, m.Versions(t, name).Data["key_info"], "1", printed)
				require.NotContains(t, m.Read(t, "keys/"+name+"/jwks").Text(t, "jwks"),
					compromised.Text(t, "key_id"))
				m.Read(t, "creds/"+name)
			}
		},
		"import-key-file.sh": func(t *testing.T) {
			p := harness.EmbeddedProvider(t)
			m := harness.NewMount(t, p.Config)
			for _, way := range []string{"plain", "wrapped"} {
				file := filepath.Join(t.TempDir(), "client.key")
				harness.OpenSSL(t, "genpkey", "-algorithm", "RSA",
					"-pkeyopt", "rsa_keygen_bits:2048", "-out", file)
				harness.RecordKeyFile(t, file)
				runExample(t, m, "rotation/import-key-file.sh", nil, way, file, way)
				clientID := harness.NewClientID()
				p.Register(t, clientID, harness.OpenSSL(t, "pkey", "-in", file, "-pubout"))
				m.Write(t, "keys/"+way, map[string]any{"client_id": clientID, "issuer": p.Issuer})
				m.Write(t, "roles/"+way, nil)
				m.Read(t, "creds/"+way)
			}
		},
	}
	scripts, err := filepath.Glob(example("rotation/*.sh"))
	require.NoError(t, err)
	require.Len(t, scripts, len(tested), "scripts and their tests")
	for _, script := range scripts {
		run := tested[filepath.Base(script)]
		require.NotNil(t, run, "%s is not tested", script)
		t.Run(filepath.Base(script), func(t *testing.T) {
			t.Parallel()
			run(t)
		})
	}
}
