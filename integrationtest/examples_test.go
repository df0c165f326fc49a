package integrationtest

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const exampleScripts = "../docs/examples/rotation"

// TestRotationExamples runs each script of the documentation as it stands.
func TestRotationExamples(t *testing.T) {
	t.Parallel()
	tested := map[string]func(*testing.T){
		"rotate-manual.sh": func(t *testing.T) {
			p := embeddedProvider(t)
			m := newMount(t, p.config)
			clientID := m.newClient(t, p, "myapi", nil)
			reads := m.startLoad(t, "myapi")
			m.eventuallyAccepted(t, "myapi", 1, 10*time.Second)
			printed := m.runExample(t, "rotate-manual.sh", func(publicKey string) { p.register(t, clientID, publicKey) }, "myapi", "myapi")
			require.Equal(t, 2, m.read(t, "keys/myapi").number(t, "active_version"), printed)
			reads.end(t)
		},
		"rotate-jwks.sh": func(t *testing.T) {
			p := embeddedProvider(t)
			m := newMount(t, p.config)
			m.newPublisher(t, p, "myapi", m.client.Address(), map[string]any{"activation_delay": 0})
			reads := m.startLoad(t, "myapi")
			m.eventuallyAccepted(t, "myapi", 1, 10*time.Second)
			printed := m.runExample(t, "rotate-jwks.sh", nil, "myapi", "myapi")
			require.NotEmpty(t, m.read(t, "keys/myapi").version(t, 2, "accepted_time"), printed)
			reads.end(t)
		},
		"break-glass.sh": func(t *testing.T) {
			p := embeddedProvider(t)
			m := newMount(t, p.config)
			clientID := m.newClient(t, p, "manual", nil)
			m.newPublisher(t, p, "published", m.client.Address(), map[string]any{"activation_delay": 0})
			for _, name := range []string{"manual", "published"} {
				m.eventuallyReads(t, name)
				m.showKeysNow(t)
				compromised := m.read(t, "keys/"+name)
				printed := m.runExample(t, "break-glass.sh", func(publicKey string) { p.register(t, clientID, publicKey) }, name, name)
				key := m.read(t, "keys/"+name)
				require.NotContains(t, key.data["versions"], "1", printed)
				require.NotContains(t, key.text(t, "jwks"), compromised.text(t, "key_id"))
				m.read(t, "creds/"+name)
			}
		},
		"import-key-file.sh": func(t *testing.T) {
			p := embeddedProvider(t)
			m := newMount(t, p.config)
			for _, way := range []string{"plain", "wrapped"} {
				file := filepath.Join(t.TempDir(), "client.key")
				openssl(t, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", file)
				knownPKCS8(t, file)
				m.runExample(t, "import-key-file.sh", nil, way, file, way)
				clientID := newClientID()
				p.register(t, clientID, openssl(t, "pkey", "-in", file, "-pubout"))
				m.write(t, "keys/"+way, map[string]any{"client_id": clientID, "issuer": p.issuer})
				m.write(t, "roles/"+way, nil)
				m.read(t, "creds/"+way)
			}
		},
	}
	scripts, err := filepath.Glob(exampleScripts + "/*.sh")
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

// eventuallyReads waits for the first token: a provider that fetches the key may just have done so.
func (m *mount) eventuallyReads(t *testing.T, role string) {
	t.Helper()
	m.read(t, "creds/"+role)
	m.eventuallyAccepted(t, role, 1, 10*time.Second)
}

// runExample runs a script on the mount. Where it prints a public key, paste does what the script asks its user to do.
func (m *mount) runExample(t *testing.T, script string, paste func(publicKey string), args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(exampleScripts, script), append([]string{m.path}, args...)...)
	cmd.Env = append(shared.Vault.environment(), "VAULT_ADDR="+m.client.Address(), "VAULT_TOKEN="+m.client.Token(), "POLL_SECONDS=1")
	cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(shared.Vault.Command)+string(os.PathListSeparator)+os.Getenv("PATH"))
	cmd.SysProcAttr = dieWithParent()
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	printed := follow(t, stdout, paste)
	err = cmd.Wait()
	shared.witness.saw("what "+script+" printed", printed+stderr.String())
	require.NoError(t, err, "%s\n%s", printed, stderr.String())
	return printed
}

// follow reads what a script prints until it ends, and pastes each public key.
func follow(t *testing.T, stdout io.Reader, paste func(publicKey string)) string {
	t.Helper()
	var printed, publicKey strings.Builder
	lines := bufio.NewScanner(stdout)
	inKey := false
	for lines.Scan() {
		line := lines.Text()
		printed.WriteString(line + "\n")
		inKey = inKey || strings.HasPrefix(line, "-----BEGIN PUBLIC KEY")
		if inKey {
			publicKey.WriteString(line + "\n")
		}
		if strings.HasPrefix(line, "-----END PUBLIC KEY") {
			paste(publicKey.String())
			publicKey.Reset()
			inKey = false
		}
	}
	require.NoError(t, lines.Err())
	return printed.String()
}
