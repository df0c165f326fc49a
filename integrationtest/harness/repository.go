package harness

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// What the tests run of the repository's scripts, and the modules that pin what they build.
const (
	OpenTofuScript          = "scripts/opentofu.sh"
	TerraformProviderScript = "scripts/terraform-provider-vault.sh"
	ExampleLibrariesScript  = "scripts/example-libraries.sh"
	PrometheusScript        = "scripts/prometheus.sh"
	VaultModule             = "scripts/modules/vault"
	ManifestsModule         = "scripts/modules/manifests"
	EphemeralProviderModule = "scripts/modules/terraform-provider-ephemeral"
)

// InRepository returns the absolute path of a file of the repository, given relative to its root.
// It panics outside a checkout; a test runs in its package's directory.
func InRepository(path string) string {
	dir, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return filepath.Join(dir, filepath.FromSlash(path))
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			panic("no go.mod above the working directory")
		}
		dir = parent
	}
}

// RepositoryFile returns the content of a file of the repository, given relative to its root.
func RepositoryFile(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(InRepository(path))
	require.NoError(t, err)
	return string(content)
}
