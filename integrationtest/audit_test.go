package integrationtest

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// auditedRead is a line of the audit log, as far as it leads from a token to its reader.
type auditedRead struct {
	Auth struct {
		DisplayName string `json:"display_name"`
	}
	Request  struct{ Path string }
	Response struct {
		Data   map[string]any
		Secret struct {
			LeaseID string `json:"lease_id"`
		}
	}
}

// TestTokenLeadsBackToItsReader by its jti, once the mount is tuned as the documentation says.
func TestTokenLeadsBackToItsReader(t *testing.T) {
	t.Parallel()
	p := embeddedProvider(t)
	m := newMount(t, p.config)
	m.newClient(t, p, "myapi", nil)
	printed, err := shared.Vault.run(t.Context(), "secrets", "tune", "-audit-non-hmac-response-keys=token_jti", "-audit-non-hmac-response-keys=key_id", m.path)
	require.NoError(t, err)
	require.Zero(t, printed.code, printed.stderr)
	for _, delivery := range []string{"leased", "unleased", "shared"} {
		m.write(t, "roles/"+delivery, map[string]any{"key": "myapi", "delivery": delivery})
		readers := []string{"alice-" + delivery, "bob-" + delivery}
		var jtis []string
		for _, reader := range readers {
			jtis = append(jtis, m.as(t, reader).read(t, "creds/"+delivery).text(t, "token_jti"))
		}
		for i, reader := range readers {
			reads := auditedReads(t, jtis[i])
			if delivery == "shared" {
				require.Len(t, reads, 2, "both had it")
			} else {
				require.Len(t, reads, 1)
				require.Equal(t, "token-"+reader, reads[0].Auth.DisplayName)
			}
			for _, read := range reads {
				require.Equal(t, m.path+"/creds/"+delivery, read.Request.Path)
				require.Equal(t, delivery == "leased", read.Response.Secret.LeaseID != "")
				require.Equal(t, m.read(t, "keys/myapi").text(t, "key_id"), read.Response.Data["key_id"])
				require.True(t, strings.HasPrefix(read.Response.Data["access_token"].(string), "hmac-sha256:"))
			}
		}
	}
}

// as is the mount for another reader.
func (m *mount) as(t *testing.T, name string) *mount {
	t.Helper()
	created, err := m.client.Auth().Token().CreateWithContext(t.Context(), &api.TokenCreateRequest{DisplayName: name, TTL: "5m"})
	require.NoError(t, err)
	client, err := m.client.Clone()
	require.NoError(t, err)
	client.SetToken(created.Auth.ClientToken)
	other := *m
	other.client = client
	return &other
}

// auditedReads are the lines that show this token's id.
func auditedReads(t *testing.T, jti string) []auditedRead {
	t.Helper()
	log, err := os.ReadFile(shared.Vault.auditFile())
	require.NoError(t, err)
	var reads []auditedRead
	for line := range bytes.Lines(log) {
		if !bytes.Contains(line, []byte(jti)) {
			continue
		}
		var read auditedRead
		if json.Unmarshal(line, &read) == nil && read.Response.Data["token_jti"] == jti { // the last line may be half written
			reads = append(reads, read)
		}
	}
	return reads
}
