package engine

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// requireImported registers the public key that openssl reads from the file, and obtains a token.
func requireImported(
	t *testing.T, m *harness.Mount, kc *harness.Provider, file, keyType string,
) {
	t.Helper()
	key := m.Read(t, "keys/myapi")
	require.Equal(t, harness.OpenSSL(t, "pkey", "-in", file, "-pubout"), key.Text(t, "public_key"))
	require.Equal(t, keyType, key.Text(t, "type"))
	require.Equal(t, "imported", m.Versions(t, "myapi").Version(t, 1, "origin"))
	api, clientID := kc.NewAPI(t), harness.NewClientID()
	kc.Register(t, clientID, key.Text(t, "public_key"))
	m.Write(t, "keys/myapi", map[string]any{"client_id": clientID, "issuer": kc.Issuer})
	m.Write(t, "roles/myapi", nil)
	requireWorkingToken(t, m, kc, api, "myapi")

	rotated := m.Write(t, "keys/myapi/rotate", nil)
	require.Equal(t, keyType, rotated.Text(t, "type"))
	require.Equal(t, "generated", m.Versions(t, "myapi").Version(t, 2, "origin"))
	kc.Register(t, clientID, rotated.Text(t, "public_key"))
	requireWorkingToken(t, m, kc, api, "myapi")
}

// seedScript is the script with which the documentation of the API Services Portal creates a key
// pair.
const seedScript = `
const fs = require('fs');
const jose = require('node-jose');

const keyStore = jose.JWK.createKeyStore()
keyStore.generate('RSA', 2048, {alg: 'RS256', use: 'sig' })
.then(result => {
  const [key] = keyStore.all({ use: 'sig' })
  fs.writeFileSync(
    'client.key',
    key.toPEM(true)
  )
  fs.writeFileSync(
    'client.crt',
    key.toPEM(false)
  )
  console.log('Saved to: client.key and client.crt')
})
`

// installNodeJOSE returns what is missing if it cannot install node-jose.
func installNodeJOSE(t *testing.T, dir string) (missing string) {
	t.Helper()
	for _, command := range []string{"node", "npm"} {
		if _, err := exec.LookPath(command); err != nil {
			return command + " is not on the PATH (https://nodejs.org)"
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	npm := exec.CommandContext(ctx, "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts",
		"--prefix", dir, "node-jose", "ms")
	npm.Dir = dir
	npm.WaitDelay = time.Second
	if err := npm.Run(); err != nil {
		return "npm could not install it: " + err.Error()
	}
	return ""
}

// allStored returns all that is stored of the mount's keys, by path.
func allStored(t *testing.T, m *harness.Mount) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, folder := range []string{"key", "key-id", "spki"} {
		for _, name := range m.StoredNames(t, folder) {
			path := folder + "/" + name
			all[path] = m.Stored(t, path)
		}
	}
	return all
}
