package examples

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// commandBlock matches the commands of a page, which may be part of a list.
var commandBlock = regexp.MustCompile("(?ms)^ *```\n(.*?)^ *```$")

// TestMigration_CommandsMoveTheScriptsClient runs the commands of docs/migration.md in their order,
// as the owner of what the guide's script left behind.
func TestMigration_CommandsMoveTheScriptsClient(t *testing.T) {
	t.Parallel()
	page := harness.RepositoryFile(t, "docs/migration.md")
	blocks := commandBlock.FindAllStringSubmatch(page, -1)
	require.Len(t, blocks, 5)
	compare := blocks[4][1]

	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	folder := newScriptFolder(t)
	publicKey, err := os.ReadFile(filepath.Join(folder, "client.crt"))
	require.NoError(t, err)
	clientID := harness.NewClientID()
	p.Register(t, clientID, string(publicKey))
	run := func(commands string) (printed string) {
		t.Helper()
		return runCommands(t, m, folder, commands,
			"CID="+clientID, "ISS="+p.Issuer, "TURL="+p.TokenEndpoint())
	}

	require.Contains(t, run(blocks[0][1]), "version 1    ok     active, and accepted")
	require.Empty(t, run(compare), "client.crt and the public key in Vault")
	token := strings.TrimSpace(run(blocks[1][1] + `printf %s "$TOK"`))
	require.NoError(t, checkUnexpired(token))

	p.Register(t, clientID, run(blocks[2][1]))
	m.RecordPrivateKeys(t)
	run(blocks[3][1])
	require.Equal(t, 2, m.Read(t, "keys/myapi").Number(t, "active_version"))
	m.Read(t, "creds/myapi")
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Empty(t, left)
}

// newScriptFolder creates what the guide's script does: client.key is PKCS#1, client.crt a public
// key, and both have the line ends of node-jose.
func newScriptFolder(t *testing.T) (folder string) {
	t.Helper()
	folder = t.TempDir()
	file := filepath.Join(folder, "client.key")
	write := func(name, content string) {
		content = strings.ReplaceAll(content, "\n", "\r\n")
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600))
	}
	harness.OpenSSL(t, "genrsa", "-traditional", "-out", file, "2048")
	harness.RecordKeyFile(t, file)
	write("client.crt", harness.OpenSSL(t, "pkey", "-in", file, "-pubout"))
	privateKey, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Contains(t, string(privateKey), "BEGIN RSA PRIVATE KEY")
	write("client.key", string(privateKey))
	return folder
}

// runCommands runs the commands of a page in a folder, on the mount instead of bcgov-jwt.
func runCommands(
	t *testing.T, m *harness.Mount, folder, commands string, environment ...string,
) (printed string) {
	t.Helper()
	commands = strings.ReplaceAll(commands, "bcgov-jwt/", m.Path+"/")
	cmd := harness.Vault().Command(t.Context(), "sh", "-eu", "-c", commands)
	cmd.Dir = folder
	cmd.Env = append(cmd.Env, harness.Vault().ClientEnvironment(m.Client.Token())...)
	cmd.Env = append(cmd.Env, environment...)
	result, err := harness.Run(cmd)
	require.NoError(t, err)
	record := harness.Detector().Record
	if strings.Contains(commands, "access_token") {
		record = harness.Detector().RecordToken
	}
	record("the output of docs/migration.md", result.Stdout+result.Stderr)
	require.Zero(t, result.Code, "%s\n%s", commands, result.Stderr)
	return result.Stdout
}
