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

// TestRace_ReadsSucceedDuringWrites runs hundreds of concurrent readers while everything around them changes. Every
// read of a role that stays must succeed, whatever its delivery; one of a role that comes and goes may fail because of that alone.
func TestRace_ReadsSucceedDuringWrites(t *testing.T) {
	t.Parallel()
	const readers, readsEach = 500, 2
	m, p := newReadyMount(t)
	m.write("config", map[string]any{"request_timeout": 45}) // hundreds of concurrent requests are slow
	m.write("keys/passing", map[string]any{"type": "ed25519", "deletion_allowed": true})
	m.write("roles/myapi", map[string]any{"allow_assertion": true})
	for _, delivery := range []delivery{unleasedDelivery, sharedDelivery} {
		m.write("roles/"+string(delivery), map[string]any{"key": "myapi", "delivery": delivery})
	}
	staying := []string{"creds/unleased", "creds/shared", "assertion/myapi"}
	p.answerWith(tokenPath, http.StatusOK, jsonType, `{"access_token":"opaque","token_type":"Bearer","expires_in":300}`)

	var done atomic.Bool
	var ended atomic.Int64 // reads of roles that stay
	var writers sync.WaitGroup
	for name, change := range churn(m, p.issuer()) {
		writers.Go(func() {
			for n := 0; !done.Load(); n++ {
				// Wait for some reads, so that on a slow machine the writers leave the readers their share.
				for goal := ended.Load() + readers*readsEach/100; ended.Load() < goal && !done.Load(); {
					time.Sleep(time.Millisecond)
				}
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
	for i := range readers {
		reads.Go(func() {
			for n := range readsEach {
				for _, path := range []string{"creds/myapi", staying[(i+n)%len(staying)]} {
					resp, err := m.send(logical.ReadOperation, path, nil)
					if err != nil || resp.IsError() || resp.Data["access_token"] != "opaque" && resp.Data["client_assertion"] == nil {
						t.Errorf("%s: %v, %v", path, errorOf(resp), err)
						return
					}
					ended.Add(1)
				}
				resp, err := m.send(logical.ReadOperation, "creds/passing", nil)
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

	require.NotContains(t, m.log.String(), "panic")
	for line := range strings.Lines(m.log.String()) {
		slow := strings.Contains(line, context.DeadlineExceeded.Error()) || strings.Contains(line, "while it waited for another write")
		require.False(t, strings.Contains(line, "could not be stored") && !slow, line)
	}
	// Memory matches storage.
	fresh := mountOver(t, m.storage, m.clock)
	for _, path := range []string{"config", "keys/myapi", "keys/passing", "roles/myapi", "roles/passing", "roles/unleased", "roles/shared"} {
		require.Equal(t, fresh.read(path), m.read(path), path)
	}
}

// errorOf returns what a failure may print of a response, which may hold a secret.
func errorOf(resp *logical.Response) error {
	if resp.IsError() {
		return resp.Error()
	}
	return nil
}

// write is one request of a writer.
type write struct {
	operation logical.Operation
	path      string
	data      map[string]any
}

// churn returns the writers by what they change; n counts their iterations.
func churn(m *mount, issuer string) map[string]func(n int) []write {
	return map[string]func(int) []write{
		"config": func(n int) []write {
			return []write{{logical.UpdateOperation, "config", map[string]any{"max_retries": n % 3, "allow_insecure_endpoints": true}}}
		},
		"role": func(n int) []write {
			return []write{{logical.PatchOperation, "roles/myapi", map[string]any{"scopes": fmt.Sprintf("s%d", n%3)}}}
		},
		"key": func(n int) []write {
			return []write{{logical.PatchOperation, "keys/myapi", map[string]any{"assertion_ttl": 30 + n%30, "overlap_period": 120}}}
		},
		"role that comes and goes": func(int) []write {
			return []write{
				{logical.UpdateOperation, "roles/passing", nil}, // rejected while its key is gone
				{logical.DeleteOperation, "roles/passing", nil},
			}
		},
		"versions that come and go": func(n int) []write {
			rotated, err := m.send(logical.UpdateOperation, "keys/myapi/rotate", nil)
			if err != nil || rotated.IsError() {
				m.tb.Errorf("rotate: %v, %v", rotated, err)
				return nil
			}
			doomed := rotated.Data["staged_version"]
			if n%2 == 0 {
				return []write{{logical.UpdateOperation, "keys/myapi/destroy", map[string]any{"version": doomed}}}
			}
			doomed = rotated.Data["active_version"]
			return []write{
				{logical.UpdateOperation, "keys/myapi/activate", map[string]any{"force": n%4 == 1}},
				{logical.UpdateOperation, "keys/myapi/destroy", map[string]any{"version": doomed}},
			}
		},
		"background work": func(int) []write {
			m.clock.advance(20 * time.Second) // so that versions end
			m.runPeriodic()
			return []write{{logical.ReadOperation, "jwks/" + strings.Repeat("A", 26), nil}}
		},
		"key that comes and goes": func(int) []write {
			return []write{
				{logical.DeleteOperation, "keys/passing", nil}, // rejected while its role exists
				{logical.UpdateOperation, "keys/passing", map[string]any{"type": "ed25519", "deletion_allowed": true, "client_id": "c", "issuer": issuer}},
			}
		},
		"other nodes' news": func(int) []write {
			for _, path := range []string{"config", "key/myapi", "role/myapi", "role/shared", "key/passing", "role/passing"} {
				m.InvalidateKey(context.Background(), path)
			}
			return []write{{logical.ReadOperation, "keys/myapi", nil}, {logical.ReadOperation, "info", nil}, {logical.ListOperation, "roles/", nil}}
		},
	}
}

func toldSo(text string) bool {
	for _, known := range []string{`unknown role "passing"`, "does not exist", "earlier key", "no client_id and no issuer yet"} {
		if strings.Contains(text, known) {
			return true
		}
	}
	return false
}

// TestRace_ReadsSucceedWhileKeysAreReplaced keeps reading while the key is rotated and, at some moment, replaced at the
// provider, several times.
func TestRace_ReadsSucceedWhileKeysAreReplaced(t *testing.T) {
	t.Parallel()
	const readers, rotations = 8, 4
	m, p := newReadyMount(t)
	var done atomic.Bool
	var ended [readers]atomic.Int64
	var reads sync.WaitGroup
	for i := range readers {
		reads.Go(func() {
			for ; !done.Load(); ended[i].Add(1) {
				if resp, err := m.send(logical.ReadOperation, "creds/myapi", nil); err != nil || resp.IsError() {
					t.Errorf("a read failed: %v, %v", resp, err)
					return
				}
			}
		})
	}
	for range rotations {
		staged := m.write("keys/myapi/rotate", nil).Data["staged_version"].(int)
		// A read that started before the rotation knows one version less: let it finish, as a person at the portal does.
		for i := range readers {
			goal := ended[i].Load() + 1
			require.Eventually(t, func() bool { return ended[i].Load() >= goal || t.Failed() }, eventually, poll)
		}
		p.registerVersion(m, staged)
		require.Eventually(t, func() bool { return m.read("keys/myapi").Data["active_version"] == staged || t.Failed() }, eventually, poll)
	}
	done.Store(true)
	reads.Wait()
	require.Equal(t, rotations, strings.Count(m.log.String(), "active version changed by provider acceptance"), "one stored switch each")
}
