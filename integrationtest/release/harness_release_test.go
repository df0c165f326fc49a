package release

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

const (
	pluginName = "vault-plugin-bcgov-jwt"
	platform   = "linux/amd64" // what the tests make, unless they are slow
	outputPath = "bin/release"
)

// newestVersion returns the newest version of CHANGELOG.md, such as 0.1.0.
func newestVersion(t *testing.T) string {
	t.Helper()
	changelog := harness.RepositoryFile(t, "CHANGELOG.md")
	heading := regexp.MustCompile(`(?m)^## \[(\d[^\]]*)\] - \d{4}-\d\d-\d\d$`)
	found := heading.FindStringSubmatch(changelog)
	require.NotNil(t, found, "CHANGELOG.md has no version with a date")
	return found[1]
}

// newClone clones the repository, with what is changed in its work tree as a commit, into a folder.
// All clones have the same commit.
func newClone(t *testing.T, folder string) (clone string) {
	t.Helper()
	root := harness.InRepository(".")
	clone = filepath.Join(folder, pluginName)
	git(t, root, "clone", "--quiet", "--no-tags", root, clone)
	git(t, clone, "rm", "-r", "--quiet", ".")
	files := git(t, root, "ls-files", "--cached", "--others", "--exclude-standard", "-z")
	for file := range strings.SplitSeq(strings.TrimSuffix(files, "\x00"), "\x00") {
		copyFile(t, filepath.Join(root, file), filepath.Join(clone, file))
	}
	commit(t, clone)
	return clone
}

// copyFile copies a file that exists, with its mode.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return // removed, and not committed yet
	}
	require.NoError(t, err)
	data, err := os.ReadFile(from)
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o755))
	require.NoError(t, os.WriteFile(to, data, info.Mode()))
}

// commit commits everything in a clone.
func commit(t *testing.T, clone string) {
	t.Helper()
	git(t, clone, "add", "--all")
	git(t, clone, "-c", "user.name=Test", "-c", "user.email=test@example.com",
		"-c", "commit.gpgsign=false", "commit", "--quiet", "--allow-empty", "--message=test")
}

func git(t *testing.T, folder string, args ...string) (printed string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(),
		"GIT_AUTHOR_DATE=2026-01-02T03:04:05Z", "GIT_COMMITTER_DATE=2026-01-02T03:04:05Z")
	return mustRun(t, cmd)
}

// runIn runs a command in a folder, with variables added to the environment.
func runIn(t *testing.T, folder string, environment []string, command ...string) (printed string) {
	t.Helper()
	return mustRun(t, newCommand(t, folder, environment, command...))
}

// newCommand returns a command that does not know of the make that runs the tests.
func newCommand(t *testing.T, folder string, environment []string, command ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Dir = folder
	inherited := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains([]string{"MAKEFLAGS", "MFLAGS", "MAKELEVEL", "VERSION"}, name)
	})
	cmd.Env = append(inherited, environment...)
	return cmd
}

func mustRun(t *testing.T, cmd *exec.Cmd) (printed string) {
	t.Helper()
	result, err := harness.Run(cmd)
	require.NoError(t, err)
	require.Zero(t, result.Code, "%s\n%s%s", cmd, result.Stdout, result.Stderr)
	return result.Stdout
}

// makeRelease makes a version's files in a clone, and returns their folder.
func makeRelease(t *testing.T, clone, version string, environment ...string) (folder string) {
	t.Helper()
	runIn(t, clone, environment, "make", "release", "VERSION=v"+version)
	return filepath.Join(clone, outputPath)
}

// readFile returns a file's content.
func readFile(t *testing.T, path ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	return data
}

// names returns what a folder holds.
func names(t *testing.T, folder string) (sorted []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	for _, entry := range entries {
		sorted = append(sorted, entry.Name())
	}
	return sorted
}

// requireSameBytes does not print what differs.
func requireSameBytes(t *testing.T, want, got []byte, what string) {
	t.Helper()
	require.True(t, bytes.Equal(want, got), "%s differs: %d and %d bytes", what, len(want), len(got))
}
