package security

import (
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// TestAudit_TokenLeadsToItsReader: by its jti, once the mount is tuned as the documentation says.
func TestAudit_TokenLeadsToItsReader(t *testing.T) {
	t.Parallel()
	p := harness.EmbeddedProvider(t)
	m := harness.NewMount(t, p.Config)
	m.NewClient(t, p, "myapi", nil)
	m.MustRun(t, "secrets", "tune", "-audit-non-hmac-response-keys=token_jti",
		"-audit-non-hmac-response-keys=key_id", "{mount}")
	for _, delivery := range []string{"leased", "unleased", "shared"} {
		m.Write(t, "roles/"+delivery, map[string]any{"key": "myapi", "delivery": delivery})
		readers := []string{"alice-" + delivery, "bob-" + delivery}
		var jtis []string
		for _, reader := range readers {
			as := m.AsNewToken(t, api.TokenCreateRequest{DisplayName: reader, TTL: "5m"})
			jtis = append(jtis, as.Read(t, "creds/"+delivery).Text(t, "token_jti"))
		}
		for i, reader := range readers {
			reads := auditedReads(t, jtis[i])
			if delivery == "shared" {
				require.Len(t, reads, 2, "both received it")
			} else {
				require.Len(t, reads, 1)
				require.Equal(t, "token-"+reader, reads[0].Auth.DisplayName)
			}
			for _, read := range reads {
				require.Equal(t, m.Path+"/creds/"+delivery, read.Request.Path)
				require.Equal(t, delivery == "leased", read.Response.Secret.LeaseID != "")
				require.Equal(t, m.Read(t, "keys/myapi").Text(t, "key_id"),
					read.Response.Data["key_id"])
				token, _ := read.Response.Data["access_token"].(string)
				require.True(t, strings.HasPrefix(token, "hmac-sha256:"))
			}
		}
	}
}
