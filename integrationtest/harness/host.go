package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/hashicorp/vault/api"
)

// envHost selects the host that runs the plugin.
const envHost = "HOST"

// Host is the program that runs the plugin. What differs between the hosts is in this file; all of
// them are used by the name vault and with its variables, which OpenBao reads too.
type Host string

// The hosts; OldestVault is the oldest one that README claims.
const (
	CurrentVault Host = "vault"
	OldestVault  Host = "vault-oldest"
	OpenBao      Host = "openbao"
)

// selectedHost returns the host that the environment selects.
func selectedHost() Host {
	if name := os.Getenv(envHost); name != "" {
		return Host(name)
	}
	return CurrentVault
}

// binary returns the path of the program, which a script builds or downloads at its first use, and
// says so.
func (h Host) binary(ctx context.Context) (string, error) {
	script := map[Host][]string{
		CurrentVault: {"scripts/vault.sh"},
		OldestVault:  {"scripts/vault.sh", "oldest"},
		OpenBao:      {"scripts/openbao.sh"},
	}[h]
	if script == nil {
		return "", fmt.Errorf("%s is %q; it must be %s, %s or %s", envHost, h, CurrentVault,
			OldestVault, OpenBao)
	}
	cmd := exec.CommandContext(ctx, InRepository(script[0]), script[1:]...)
	cmd.Stderr = os.Stderr
	output, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(script, " "), err)
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
