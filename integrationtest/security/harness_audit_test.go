package security

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// auditedRead is the part of a line of the audit log that leads from a token to its reader.
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

// auditedReads returns the lines of the audit log that contain a token's id.
func auditedReads(t *testing.T, jti string) []auditedRead {
	t.Helper()
	log, err := os.ReadFile(harness.Vault().AuditFile())
	require.NoError(t, err)
	var reads []auditedRead
	for line := range bytes.Lines(log) {
		if !bytes.Contains(line, []byte(jti)) {
			continue
		}
		var read auditedRead
		// The last line may be half written.
		if json.Unmarshal(line, &read) == nil && read.Response.Data["token_jti"] == jti {
			reads = append(reads, read)
		}
	}
	return reads
}
