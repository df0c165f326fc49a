// Package release tests what make release makes, and docs/verify.md with it.
package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestRelease_ConsistsOfWhatItsUserVerifies makes one platform's files, and runs the commands of
// docs/verify.md on them, which make them again.
func TestRelease_ConsistsOfWhatItsUserVerifies(t *testing.T) {
	t.Parallel()
	version, environment := newestVersion(t), []string{"PLATFORMS=" + platform}
	clone := newClone(t, t.TempDir())
	folder := makeRelease(t, clone, version, environment...)
	base := filepath.Join(folder, pluginName+"_"+version+"_linux_amd64")
	binary := readFile(t, base)

	requireAllSums(t, folder)
	requireSameAsMakeBuild(t, clone, version, binary)
	requireArchive(t, base+".tar.gz", folder, binary)
	requireEveryModule(t, base)
	requireNotes(t, folder, binary)
	requireImage(t, folder, version, binary)

	newClone(t, folder) // instead of the page's git clone
	for _, commands := range commandsWithoutService(t) {
		runIn(t, folder, environment, "bash", "-euo", "pipefail", "-c", commands)
	}
}

// requireAllSums requires the right sum of every file but that of the sums.
func requireAllSums(t *testing.T, folder string) {
	t.Helper()
	files := slices.DeleteFunc(names(t, folder), func(name string) bool { return name == "SHA256SUMS" })
	require.Len(t, files, 5)
	var sums strings.Builder
	for _, file := range files {
		sums.WriteString(sum(readFile(t, folder, file)) + "  " + file + "\n")
	}
	require.Equal(t, sums.String(), string(readFile(t, folder, "SHA256SUMS")))
}

func sum(data []byte) string {
	hash := sha256.Sum256(data)
	return hex.EncodeToString(hash[:])
}

func requireSameAsMakeBuild(t *testing.T, clone, version string, binary []byte) {
	t.Helper()
	built := filepath.Join(t.TempDir(), "built")
	runIn(t, clone, []string{"GOOS=linux", "GOARCH=amd64"},
		"make", "build", "VERSION=v"+version, "BINARY="+built)
	requireSameBytes(t, readFile(t, built), binary, "what make build makes")
}

// requireArchive requires the binary, executable, with the license and the notes.
func requireArchive(t *testing.T, archive, folder string, binary []byte) {
	t.Helper()
	unzipped, err := gzip.NewReader(bytes.NewReader(readFile(t, archive)))
	require.NoError(t, err)
	content := untar(t, unzipped)
	require.Len(t, content, 3)
	requireSameBytes(t, binary, content[pluginName+" -rwxr-xr-x"], "the binary in the archive")
	requireSameBytes(t, readFile(t, harness.InRepository("LICENSE")), content["LICENSE -rw-r--r--"], "LICENSE")
	requireSameBytes(t, readFile(t, folder, "release-notes.md"), content["release-notes.md -rw-r--r--"], "the notes")
}

// untar returns files by name and mode.
func untar(t *testing.T, r io.Reader) (content map[string][]byte) {
	t.Helper()
	content = map[string][]byte{}
	for archive := tar.NewReader(r); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return content
		}
		require.NoError(t, err)
		data, err := io.ReadAll(archive)
		require.NoError(t, err)
		content[header.Name+" "+header.FileInfo().Mode().String()] = data
	}
}

// requireEveryModule compares the SBOM with what go version -m lists, and requires nothing in it
// that differs from one run to the next.
func requireEveryModule(t *testing.T, binary string) {
	t.Helper()
	type component struct{ Name, Version, PURL string }
	var sbom struct {
		BOMFormat, SerialNumber string
		Metadata                struct {
			Timestamp string
			Component component
		}
		Components []component
	}
	require.NoError(t, json.Unmarshal(readFile(t, binary+".cdx.json"), &sbom))
	require.Equal(t, "CycloneDX", sbom.BOMFormat)
	require.Empty(t, sbom.SerialNumber)
	require.Equal(t, "2026-01-02T03:04:05Z", sbom.Metadata.Timestamp)
	require.Equal(t, "v"+newestVersion(t), sbom.Metadata.Component.Version)

	listed := runIn(t, filepath.Dir(binary), nil, "go", "version", "-m", filepath.Base(binary))
	dependency := regexp.MustCompile(`\tdep\t(\S+)\t(\S+)`)
	goVersion := regexp.MustCompile(`: (go\S+)`).FindStringSubmatch(listed)[1]
	want := []string{"pkg:golang/std@" + goVersion}
	for _, match := range dependency.FindAllStringSubmatch(listed, -1) {
		want = append(want, "pkg:golang/"+match[1]+"@"+match[2])
	}
	require.Greater(t, len(want), 50)
	var got []string
	for _, component := range sbom.Components {
		url, _, _ := strings.Cut(component.PURL, "?")
		got = append(got, strings.ReplaceAll(url, "%2B", "+"))
	}
	assert.ElementsMatch(t, want, got)
}

// requireNotes requires what CHANGELOG.md says of this version alone, and the sum to register.
func requireNotes(t *testing.T, folder string, binary []byte) {
	t.Helper()
	changelog := string(readFile(t, harness.InRepository("CHANGELOG.md")))
	_, section, _ := strings.Cut(changelog, "## ["+newestVersion(t)+"]")
	_, section, _ = strings.Cut(section, "\n")
	end := regexp.MustCompile(`(?m)^(## |\[)`).FindStringIndex(section)
	notes := string(readFile(t, folder, "release-notes.md"))
	want := strings.TrimSpace(section[:end[0]]) + "\n\n### Files\n"
	require.Equal(t, want, notes[:min(len(want), len(notes))])
	require.Contains(t, notes, "| linux/amd64 | `"+sum(binary)+"` | All run on it |")
}

// commandBlock matches the commands of a page.
var commandBlock = regexp.MustCompile("(?ms)^```\n(.*?)^```$")

// commandsWithoutService returns the commands of docs/verify.md that are not marked.
func commandsWithoutService(t *testing.T) (commands []string) {
	t.Helper()
	page := string(readFile(t, harness.InRepository("docs/verify.md")))
	blocks := commandBlock.FindAllStringSubmatch(page, -1)
	for _, block := range blocks {
		if !strings.HasPrefix(block[1], "# needs ") {
			commands = append(commands, block[1])
		}
	}
	require.Len(t, commands, len(blocks)-4, "docs/verify.md marks what needs a service")
	return commands
}

// TestRelease_BadInputLeavesNothing tests what is refused before anything is built.
func TestRelease_BadInputLeavesNothing(t *testing.T) {
	t.Parallel()
	version := "VERSION=v" + newestVersion(t)
	clone := newClone(t, t.TempDir())
	refuse := func(want string, arguments ...string) {
		t.Helper()
		command := append([]string{"make", "release"}, arguments...)
		result, err := harness.Run(newCommand(t, clone, nil, command...))
		require.NoError(t, err)
		assert.NotZero(t, result.Code)
		assert.Empty(t, result.Stdout)
		assert.Contains(t, result.Stderr, "error: "+want)
		assert.NoDirExists(t, filepath.Join(clone, "bin"))
	}
	readme := filepath.Join(clone, "README.md")
	content := readFile(t, readme)

	refuse("a release needs a version.\n  make release VERSION=v0.1.0\n")
	for _, malformed := range []string{"0.1.0", "v0.1", "v01.0.0", "v0.1.0 ", "latest", "v0.1.0/../x"} {
		refuse("VERSION is '"+malformed+"', which is not a version like v0.1.0.\n", "VERSION="+malformed)
	}
	refuse("CHANGELOG.md has no changes of v99.0.0.\n  Add them below: ## [99.0.0] - YYYY-MM-DD\n", "VERSION=v99.0.0")
	refuse("CHANGELOG.md has no changes of v0.1.0-rc.1.\n", "VERSION=v0.1.0-rc.1")

	require.NoError(t, os.WriteFile(readme, append(content, "more"...), 0o644))
	refuse("the work tree has changes; commit or remove them:\n   M README.md\n", version)
	require.NoError(t, os.WriteFile(readme, content, 0o644))
	untracked := filepath.Join(clone, "backend", "more.go")
	require.NoError(t, os.WriteFile(untracked, []byte("package backend\n"), 0o644))
	refuse("the work tree has changes; commit or remove them:\n  ?? backend/more.go\n", version)
	require.NoError(t, os.Remove(untracked))

	git(t, clone, "tag", "v"+newestVersion(t))
	commit(t, clone)
	refuse("the tag v"+newestVersion(t)+" is of another commit.\n", version)
	require.Empty(t, git(t, clone, "status", "--porcelain", "--ignored"))
}

// TestRelease_FailureLeavesNothing tests a build that fails.
func TestRelease_FailureLeavesNothing(t *testing.T) {
	t.Parallel()
	clone := newClone(t, t.TempDir())
	command := newCommand(t, clone, []string{"PLATFORMS=linux/none"},
		"make", "release", "VERSION=v"+newestVersion(t))
	result, err := harness.Run(command)
	require.NoError(t, err)
	require.NotZero(t, result.Code)
	require.Contains(t, result.Stderr, "unsupported GOOS/GOARCH pair linux/none")
	require.NoDirExists(t, filepath.Join(clone, "bin"))
}

// TestRelease_IsReproducible makes all files in two folders, each time with nothing that was
// compiled before, and compares them.
func TestRelease_IsReproducible(t *testing.T) {
	t.Parallel()
	if !harness.Slow() {
		t.Skip("skipped: compiles everything twice; make reproduce runs it")
	}
	version := newestVersion(t)
	var folders []string
	for _, name := range []string{"a", "another-folder"} {
		folder := filepath.Join(t.TempDir(), name)
		folders = append(folders, makeRelease(t, newClone(t, folder), version,
			"GOCACHE="+filepath.Join(folder, "go"), "XDG_CACHE_HOME="+filepath.Join(folder, "tools")))
	}
	files := names(t, folders[0])
	require.Len(t, files, 5*3+3)
	require.Equal(t, files, names(t, folders[1]))
	for _, file := range files {
		requireSameBytes(t, readFile(t, folders[0], file), readFile(t, folders[1], file), file)
	}
}
