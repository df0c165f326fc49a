package release

import (
	"encoding/json"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/program"
)

// requireImage pushes the image to a registry, and requires that it has the digest of the notes,
// starts the binary, and holds nothing else but the license.
func requireImage(t *testing.T, folder, version string, binary []byte) {
	t.Helper()
	layout := t.TempDir()
	runIn(t, layout, nil, "tar", "-xf", filepath.Join(folder, pluginName+"_"+version+"_image.tar"))
	tools := runIn(t, harness.InRepository("."), nil, "scripts/release-tools.sh")
	crane := filepath.Join(strings.TrimSpace(tools), "crane")
	reference := startRegistry(t, crane) + "/bcgov/" + pluginName + ":v" + version
	run := func(command ...string) string {
		return runIn(t, layout, nil, append([]string{crane}, command...)...)
	}
	pushed := run("push", layout, reference)
	_, digest, _ := strings.Cut(strings.TrimSpace(pushed), "@")
	require.Contains(t, string(readFile(t, folder, "release-notes.md")),
		"\nImage: ghcr.io/bcgov/"+pluginName+":v"+version+"@"+digest+"\n")
	run("validate", "--remote", reference)

	var config struct {
		OS, Architecture string
		Created          time.Time
		Config           struct{ Entrypoint []string }
	}
	require.NoError(t, json.Unmarshal([]byte(run("config", "--platform", platform, reference)), &config))
	require.Equal(t, platform, config.OS+"/"+config.Architecture)
	require.Equal(t, []string{"/" + pluginName}, config.Config.Entrypoint)
	require.Equal(t, "2026-01-02T03:04:05Z", config.Created.Format(time.RFC3339))

	content := untar(t, strings.NewReader(run("export", "--platform", platform, reference, "-")))
	require.Len(t, content, 2)
	require.Contains(t, content, "LICENSE -rw-r--r--")
	requireSameBytes(t, binary, content[pluginName+" -rwxr-xr-x"], "the binary in the image")
}

// startRegistry starts an empty registry that ends with the test, and returns its address.
func startRegistry(t *testing.T, crane string) (address string) {
	t.Helper()
	port, err := program.FreePort()
	require.NoError(t, err)
	address = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	cmd := newCommand(t, t.TempDir(), nil, crane, "registry", "serve", "--address", address)
	cmd.SysProcAttr = program.DieWithParent()
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed, so its exit status means nothing
	})
	require.Eventually(t, func() bool {
		connection, err := net.Dial("tcp", address)
		return err == nil && connection.Close() == nil
	}, 30*time.Second, 50*time.Millisecond)
	return address
}
