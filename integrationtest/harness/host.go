package harness

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// envHost selects the host that runs the plugin, as scripts/host.sh names it.
const envHost = "HOST"

// Host is the program that runs the plugin. What differs between the hosts is in this file; all of
// them are used by the name vault and with its variables, which OpenBao reads too.
type Host string

// OpenBao is the host that differs; the others are versions of Vault.
const OpenBao Host = "openbao"

// selectedHost returns the host that the environment selects.
func selectedHost() Host { return Host(cmp.Or(os.Getenv(envHost), "vault")) }

// binary returns the path of the program, which a script builds or downloads at its first use.
func (h Host) binary(ctx context.Context) (string, error) {
	script := exec.CommandContext(ctx, InRepository("scripts/host.sh"), string(h))
	script.Stderr = os.Stderr // it says if that takes minutes
	output, err := script.Output()
	if err != nil {
		return "", fmt.Errorf("scripts/host.sh %s: %w", h, err)
	}
	return strings.TrimSpace(string(output)), nil
}

// devFlags returns the flags of a dev server without secrets engines; OpenBao's always has one.
func (h Host) devFlags() []string {
	if h == OpenBao {
		return []string{"-dev", "-dev-no-store-token"}
	}
	return []string{"-dev", "-dev-no-store-token", "-dev-no-kv"}
}

// auditConfig returns what enables an audit log in the server's configuration, which is OpenBao's
// only way.
func (h Host) auditConfig(file string) string {
	if h != OpenBao {
		return ""
	}
	return fmt.Sprintf("audit \"file\" \"file\" {\n  options { file_path = %q }\n}\n", file)
}

// enableAudit enables an audit log by the API, which is Vault's only way.
func (h Host) enableAudit(ctx context.Context, client *api.Client, file string) error {
	if h == OpenBao {
		return nil
	}
	return client.Sys().EnableAuditWithOptionsWithContext(ctx, "file", &api.EnableAuditOptions{
		Type: "file", Options: map[string]string{"file_path": file},
	})
}

// RequireNamespaces skips a test on Vault, where namespaces need Enterprise.
func RequireNamespaces(t *testing.T) {
	t.Helper()
	if Vault().Host != OpenBao {
		t.Skip("namespaces need OpenBao or Vault Enterprise")
	}
}

// NewNamespaceMount creates a namespace and mounts a plugin of the catalog in it, until the test
// ends.
func NewNamespaceMount(t *testing.T, plugin string, config map[string]any) *Mount {
	t.Helper()
	root := Vault().NewClient(t)
	name := "team-" + strings.ToLower(rand.Text())
	_, err := root.Logical().WriteWithContext(t.Context(), "sys/namespaces/"+name, nil)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if _, err := root.Logical().DeleteWithContext(ctx, "sys/namespaces/"+name); err != nil {
			t.Error(err)
		}
	})
	m := &Mount{Path: "bcgov-jwt", Client: root.WithNamespace(name)}
	m.MustRun(t, "secrets", "enable", "-path={mount}", plugin)
	m.UnmountAfterTest(t)
	m.Write(t, "config", config)
	return m
}

// namespaceStorage returns where the storage of a client's namespace begins.
func namespaceStorage(t *testing.T, client *api.Client) string {
	t.Helper()
	name := client.Namespace()
	if name == "" {
		return ""
	}
	namespace := ReadSecret(t, client.WithNamespace(""), "sys/namespaces/"+name)
	uuid, ok := namespace.Data["uuid"].(string)
	require.True(t, ok)
	return "namespaces/" + uuid + "/"
}
