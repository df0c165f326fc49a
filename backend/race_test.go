package backend

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// TestReadsHoldUnderWrites reads creds a thousand times while everything round them changes. Every read of the role that
// stays must succeed; one of a role that comes and goes may be told so, and nothing else.
func TestReadsHoldUnderWrites(t *testing.T) {
	t.Parallel()
	const readers, readsEach = 20, 50
	m, p := newReadyMount(t)
	m.write("keys/passing", map[string]any{"type": "ed25519", "deletion_allowed": true})
	p.answerWith(tokenPath, http.StatusOK, jsonType, `{"access_token":"opaque","token_type":"Bearer","expires_in":300}`)

	var done atomic.Bool
	var writers sync.WaitGroup
	for name, change := range churn(m, p.issuer()) {
		writers.Go(func() {
			for n := 0; !done.Load(); n++ {
				time.Sleep(5 * time.Millisecond) // leaves the readers some of the machine
				for _, r := range change(n) {
					if resp, err := m.send(r.operation, r.path, r.data); err != nil {
						t.Errorf("%s: %s %s: %v %v", name, r.operation, r.path, resp, err)
						return
					}
				}
			}
		})
	}

	var reads sync.WaitGroup
	for range readers {
		reads.Go(func() {
			for range readsEach {
				resp, err := m.send(logical.ReadOperation, "creds/myapi", nil)
				if err != nil || resp.IsError() || resp.Data["access_token"] != "opaque" {
					t.Errorf("the role that stays: %v, %v", resp, err)
					return
				}
				resp, err = m.send(logical.ReadOperation, "creds/passing", nil)
				if err != nil || resp.IsError() && !toldSo(resp.Error().Error()) {
					t.Errorf("the role that comes and goes: %v, %v", resp, err)
					return
				}
			}
		})
	}
	reads.Wait()
	done.Store(true)
	writers.Wait()

	// What is in memory is what is stored.
	fresh := mountOver(t, m.storage, m.clock)
	for _, path := range []string{"config", "keys/myapi", "keys/passing", "roles/myapi", "roles/passing"} {
		require.Equal(t, fresh.read(path), m.read(path), path)
	}
}

// write is one request of a writer.
type write struct {
	operation logical.Operation
	path      string
	data      map[string]any
}

// churn are the writers, by what they change; n counts their rounds.
func churn(m *mount, issuer string) map[string]func(n int) []write {
	return map[string]func(int) []write{
		"config": func(n int) []write {
			return []write{{logical.UpdateOperation, "config", map[string]any{"max_retries": n % 3, "allow_insecure_endpoints": true}}}
		},
		"role": func(n int) []write {
			return []write{{logical.PatchOperation, "roles/myapi", map[string]any{"scopes": fmt.Sprintf("s%d", n%3)}}}
		},
		"key": func(n int) []write {
			return []write{{logical.PatchOperation, "keys/myapi", map[string]any{"assertion_ttl": 30 + n%30}}}
		},
		"role that comes and goes": func(int) []write {
			return []write{
				{logical.UpdateOperation, "roles/passing", nil}, // refused while its key is gone
				{logical.DeleteOperation, "roles/passing", nil},
			}
		},
		"key that comes and goes": func(int) []write {
			return []write{
				{logical.DeleteOperation, "keys/passing", nil}, // refused while its role is there
				{logical.UpdateOperation, "keys/passing", map[string]any{"type": "ed25519", "deletion_allowed": true, "client_id": "c", "issuer": issuer}},
			}
		},
		"other nodes' news": func(int) []write {
			for _, path := range []string{"config", "key/myapi", "role/myapi", "key/passing", "role/passing"} {
				m.InvalidateKey(context.Background(), path)
			}
			return []write{{logical.ReadOperation, "keys/myapi", nil}, {logical.ReadOperation, "info", nil}, {logical.ListOperation, "roles/", nil}}
		},
	}
}

func toldSo(text string) bool {
	for _, known := range []string{`unknown role "passing"`, "does not exist", "earlier key", "no client_id and issuer yet"} {
		if strings.Contains(text, known) {
			return true
		}
	}
	return false
}
