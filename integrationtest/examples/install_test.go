package examples

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestInstall_ScriptInstallsUpgradesAndRollsBack runs install.sh as README.md says, with releases
// that it downloads and one in a folder. Tokens are read all along.
func TestInstall_ScriptInstallsUpgradesAndRollsBack(t *testing.T) {
	t.Parallel()
	needTools(t, "curl")
	i, folder := newInstallation(t), t.TempDir()
	releases := httptest.NewServer(http.FileServer(http.Dir(folder)))
	t.Cleanup(releases.Close)
	from := []string{"RELEASES=" + releases.URL}
	first, next := harness.PluginVersion, nextVersion
	newRelease(t, folder, first)
	requireInstallReadme(t, "$ ./install.sh copy v0.1.0", "$ ./install.sh use v0.1.0")

	require.Contains(t, i.mustScript(t, from, "copy", first), "copied ")
	require.Contains(t, i.mustScript(t, nil, "use", first), "bcgov-jwt/ runs "+first)
	i.createKey(t)
	i.requireServing(t, first)

	require.Contains(t, i.mustScript(t, from, "copy", first), "is there already")
	repeated := i.mustScript(t, nil, "use", first)
	require.NotContains(t, repeated, "reload", "a mount that runs the version is not disturbed")
	i.requireServing(t, first)

	i.mustScript(t, nil, "copy", next, newRelease(t, t.TempDir(), next))
	i.requireServing(t, first)
	require.Contains(t, i.mustScript(t, nil, "use", next), "bcgov-jwt/ runs "+next)
	i.requireServing(t, next)

	releases.Close() // a rollback needs no download
	require.Contains(t, i.mustScript(t, nil, "use", first), "bcgov-jwt/ runs "+first)
	i.requireServing(t, first)
	require.Equal(t, []string{harness.PluginName + "-" + first, harness.PluginName + "-" + next},
		i.installed(t))
}

// TestInstall_ScriptCopiesOnlyWhatIsVerified requires that nothing of a bad release is left in the
// plugin directory.
func TestInstall_ScriptCopiesOnlyWhatIsVerified(t *testing.T) {
	t.Parallel()
	version := harness.PluginVersion
	for mistake, c := range map[string]struct{ file, content, want string }{
		"another binary":           {releaseFile(version), "another", "does not have the sum"},
		"sums of another platform": {"SHA256SUMS", "0 another\n", "has no " + releaseFile(version)},
		"no sums":                  {"SHA256SUMS", "", "SHA256SUMS has no"},
	} {
		t.Run(mistake, func(t *testing.T) {
			t.Parallel()
			folder, plugins := newRelease(t, t.TempDir(), version), t.TempDir()
			write(t, filepath.Join(folder, c.file), c.content)
			environment := []string{"PATH=" + os.Getenv("PATH"), "PLUGIN_DIRECTORY=" + plugins}
			result := runScript(t, environment, example("install/install.sh"), "copy", version, folder)
			require.NotZero(t, result.Code)
			require.Contains(t, result.Stderr, c.want)
			left, err := os.ReadDir(plugins)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

// TestInstall_ScriptKeepsMountThatCannotChange requires that the old version serves if the new one
// cannot, and that another engine is left alone.
func TestInstall_ScriptKeepsMountThatCannotChange(t *testing.T) {
	t.Parallel()
	i, folder := newInstallation(t), t.TempDir()
	first := harness.PluginVersion
	i.mustScript(t, nil, "copy", first, newRelease(t, folder, first))
	i.mustScript(t, nil, "use", first)
	i.createKey(t)

	missing := i.script(t, nil, "use", "v9.9.9")
	require.NotZero(t, missing.Code)
	i.mustScript(t, nil, "copy", nextVersion, newRelease(t, folder, nextVersion))
	wrong := "PLUGIN_SHA256=" + strings.Repeat("0", 64)
	local := i.script(t, []string{wrong}, "use", nextVersion)
	require.NotZero(t, local.Code, local.Stdout)
	require.Contains(t, local.Stderr, "does not have PLUGIN_SHA256")
	for _, version := range []string{nextVersion, first} {
		remote := i.script(t, []string{wrong, "PLUGIN_DIRECTORY=" + t.TempDir()}, "use", version)
		require.NotZero(t, remote.Code, remote.Stdout)
		require.Contains(t, remote.Stderr, "checksums did not match")
		i.server.MustRun(t, "plugin", "reload", "-plugin", harness.PluginName)
		i.requireServing(t, first)
	}

	other := i.script(t, nil, "use", first, "cubbyhole")
	require.NotZero(t, other.Code)
	require.Contains(t, other.Stderr, "cubbyhole/ is another engine")
	i.requireServing(t, first)

	i.mustScript(t, nil, "use", nextVersion)
	i.requireServing(t, nextVersion)
}

// TestInstall_ScriptChangesEveryNode runs install.sh for a cluster. OpenBao's standbys run the plugin
// themselves.
func TestInstall_ScriptChangesEveryNode(t *testing.T) {
	t.Parallel()
	if !harness.Slow() {
		t.Skip("a cluster takes longer: SLOW=true runs it")
	}
	nodes := harness.StartCluster(t, 3, harness.ClusterSettings{})
	i := newInstallationOn(t, nodes.Active(t))
	releases := map[string]string{}
	for _, version := range []string{harness.PluginVersion, nextVersion} {
		releases[version] = newRelease(t, t.TempDir(), version)
	}
	for n, version := range []string{harness.PluginVersion, nextVersion, harness.PluginVersion} {
		for _, node := range nodes {
			directory := []string{"PLUGIN_DIRECTORY=" + node.PluginDirectory()}
			i.mustScript(t, directory, "copy", version, releases[version])
		}
		i.mustScript(t, nil, "use", version)
		if n == 0 {
			i.createKey(t)
		}
		i.requireServing(t, version)
		for _, node := range nodes {
			m := i.m.On(t, node)
			require.Eventually(t, func() bool {
				return m.Do(t, "GET", "info", nil, nil).Data["version"] == version
			}, 10*time.Second, 100*time.Millisecond, "%s runs %s", node.Name, version)
			require.Equal(t, "Bearer", m.Read(t, "creds/myapi").Text(t, "token_type"))
		}
	}
}

// TestInstall_KubernetesCopiesAndRegisters runs the containers of the manifests to a token, an
// upgrade and a rollback.
func TestInstall_KubernetesCopiesAndRegisters(t *testing.T) {
	t.Parallel()
	h := newHelmCluster(t)
	first := harness.PluginVersion
	h.install(t, first)
	h.createKey(t)
	h.requireServing(t, first)
	h.install(t, first)

	wrong := strings.Repeat("0", 64)
	require.NotZero(t, h.copyPlugin(t, nextVersion, wrong).Code)
	require.Equal(t, []string{harness.PluginName + "-" + first}, h.installed(t))
	early := h.register(t, nextVersion, sumOf(pluginBinary(t, nextVersion)))
	require.NotZero(t, early.Code, "the Job is repeated until the binary is there")
	h.requireServing(t, first)

	h.install(t, nextVersion)
	h.requireServing(t, nextVersion)
	h.install(t, first)
	h.requireServing(t, first)
}

// TestInstall_OpenBaoFetchesImage runs OpenBao with openbao.hcl and images that were made as those
// of releases. It does not start with a binary of another sum. With a second block it upgrades.
func TestInstall_OpenBaoFetchesImage(t *testing.T) {
	t.Parallel()
	registry, image, versions := newReleaseRegistry(t), "", map[string]string{}
	for _, version := range []string{harness.PluginVersion, nextVersion} {
		image = registry.push(t, version)
		versions[version] = sumOf(pluginBinary(t, version))
	}

	wrong := map[string]string{harness.PluginVersion: strings.Repeat("1", 64)}
	refused := startBao(t, image, wrong)
	select {
	case <-refused.ended:
	case <-time.After(time.Minute):
		t.Fatal("it runs with another binary than its configuration names")
	}
	require.False(t, refused.cmd.ProcessState.Success())
	require.Contains(t, refused.String(), "plugin hash mismatch")

	b := startBao(t, image, versions)
	require.Eventually(t, func() bool {
		b.requireRunning(t)
		_, err := b.bao(t, "secrets", "list")
		return err == nil
	}, time.Minute, 50*time.Millisecond, "%s", b)
	b.mustBao(t, "secrets", "enable", "-path=bcgov-jwt",
		"-plugin-version="+harness.PluginVersion, harness.PluginName)
	version := func() string { return b.mustBao(t, "read", "-field=version", "bcgov-jwt/info") }
	require.Equal(t, harness.PluginVersion, version())
	b.mustBao(t, "secrets", "tune", "-plugin-version="+nextVersion, "bcgov-jwt/")
	b.mustBao(t, "plugin", "reload", "-plugin", harness.PluginName)
	require.Equal(t, nextVersion, version())
}
