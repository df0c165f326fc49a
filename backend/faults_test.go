package backend

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// lifeFault is a change of the key "myapi" that is run with each of its storage calls failing.
type lifeFault struct {
	prepare func(m *mount, p *provider)
	act     func(m *mount) error
	// writes is how many writes the change performs. A read may fail too.
	writes int
	// before and after are the versions' states on either side of the change.
	before, after map[string]string
	// harmless reports whether the action succeeds despite a fault.
	harmless bool
}

// sent returns a request as an action, which returns its first error.
func sent(operation logical.Operation, path string, data map[string]any) func(*mount) error {
	return func(m *mount) error {
		resp, err := m.send(operation, path, data)
		if err == nil && resp.IsError() {
			err = resp.Error()
		}
		return err
	}
}

func periodically(m *mount) error {
	_, err := m.HandleRequest(context.Background(), &logical.Request{Operation: logical.RollbackOperation, Storage: m.storage})
	return err
}

func lifeFaults() map[string]lifeFault {
	staged := func(m *mount, _ *provider) {
		m.read("creds/myapi")
		m.write("keys/myapi/rotate", nil)
	}
	retired := func(m *mount, p *provider) {
		staged(m, p)
		p.registerVersion(m, 2)
		m.read("creds/myapi")
	}
	forced := map[string]any{"force": true}
	return map[string]lifeFault{
		"rotate": {
			prepare: func(m *mount, _ *provider) { m.read("creds/myapi") }, act: sent(logical.UpdateOperation, "keys/myapi/rotate", nil), writes: 2,
			before: map[string]string{"1": "active"}, after: map[string]string{"1": "active", "2": "staged"},
		},
		"activate": {
			prepare: staged, act: sent(logical.UpdateOperation, "keys/myapi/activate", forced), writes: 1,
			before: map[string]string{"1": "active", "2": "staged"}, after: map[string]string{"1": "retired", "2": "active"},
		},
		"activate after a test": {
			prepare: func(m *mount, p *provider) { staged(m, p); p.registerVersion(m, 2) },
			act:     sent(logical.UpdateOperation, "keys/myapi/activate", nil), writes: 1,
			before: map[string]string{"1": "active", "2": "staged"}, after: map[string]string{"1": "retired", "2": "active"},
		},
		"destroy a staged one": {
			prepare: staged, act: sent(logical.UpdateOperation, "keys/myapi/destroy", map[string]any{"version": 2}), writes: 2,
			before: map[string]string{"1": "active", "2": "staged"}, after: map[string]string{"1": "active"},
		},
		"destroy a retired one": {
			prepare: retired, act: sent(logical.UpdateOperation, "keys/myapi/destroy", map[string]any{"version": 1}), writes: 2,
			before: map[string]string{"1": "retired", "2": "active"}, after: map[string]string{"2": "active"},
		},
		"a read's switch": {
			prepare: func(m *mount, p *provider) { staged(m, p); m.read("creds/myapi"); p.registerVersion(m, 2) },
			act:     sent(logical.ReadOperation, "creds/myapi", nil), writes: 1, harmless: true,
			before: map[string]string{"1": "active", "2": "staged"}, after: map[string]string{"1": "retired", "2": "active"},
		},
		"automatic rotation": {
			prepare: func(m *mount, p *provider) {
				m.write("keys/myapi", map[string]any{"registration": "jwks", "auto_rotate_period": 3600})
				m.read("creds/myapi")
				m.runPeriodic()
				pass(m, p, 2*time.Hour)
			},
			act: periodically, writes: 2, harmless: true,
			before: map[string]string{"1": "active"}, after: map[string]string{"1": "active", "2": "staged"},
		},
		"expiry": {
			prepare: func(m *mount, p *provider) {
				m.write("keys/myapi", map[string]any{"overlap_period": 120})
				retired(m, p)
				m.runPeriodic()
				pass(m, p, 2*time.Minute)
			},
			act: periodically, writes: 2, harmless: true,
			before: map[string]string{"1": "retired", "2": "active"}, after: map[string]string{"2": "active"},
		},
	}
}

func TestFaults_FailedStorageCallLeavesAWorkingKey(t *testing.T) {
	t.Parallel()
	for name, fault := range lifeFaults() {
		for kind, matches := range map[string]func(verb) bool{"writes": verb.writes, "reads": func(v verb) bool { return !v.writes() }} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				n := 1
				for fault.failsAt(t, n, matches) {
					n++
				}
				if kind == "writes" {
					require.Equal(t, fault.writes+1, n, "the test covers every write")
				}
			})
		}
	}
}

// failsAt fails the n-th matching call, and returns false if there are fewer.
func (f lifeFault) failsAt(t *testing.T, n int, matches func(verb) bool) bool {
	t.Helper()
	m, p := newReadyMount(t)
	f.prepare(m, p)
	require.Equal(t, f.before, m.states())
	known := m.keyIDs()
	failed := m.storage.failNth(n, matches)
	err := f.act(m)
	m.storage.intercept(nil)
	if !failed() {
		require.NoError(t, err)
		require.Equal(t, f.after, m.states())
		return false
	}
	if f.harmless {
		require.NoError(t, err)
	} else {
		require.ErrorContains(t, err, errStorage.Error())
	}

	restarted := mountOver(t, m.storage, m.clock)
	require.Equal(t, restarted.read("keys/myapi"), m.read("keys/myapi"), "memory matches storage, call %d", n)
	require.Contains(t, []map[string]string{f.before, f.after}, m.states(), "call %d", n)
	for _, node := range []*mount{m, restarted} {
		node.read("creds/myapi")
	}
	// A repeated action succeeds or reports that it was done, and no number stands for two keys.
	if err := f.act(m); err != nil {
		require.NotContains(t, err.Error(), errStorage.Error())
	}
	m.runPeriodic()
	rotated := m.write("keys/myapi/rotate", nil)
	for number, keyID := range m.keyIDs() {
		if was, there := known[number]; there {
			require.Equal(t, was, keyID, "version %s, call %d", number, n)
		}
	}
	newest := rotated.Data["staged_version"].(int)
	require.Equal(t, newest, rotated.Data["public_key_version"])
	p.registerVersion(m, newest)
	require.Equal(t, newest, m.signedBy())
	m.requireNothingIsLeft(t)
	return true
}

// keyIDs returns the key IDs of the versions of the key "myapi" by number.
func (m *mount) keyIDs() map[string]string {
	m.tb.Helper()
	found := map[string]string{}
	for number, version := range m.rows("keys/myapi/versions") {
		found[number] = version.(map[string]any)["key_id"].(string)
	}
	return found
}

// requireNothingIsLeft deletes everything: an index that a fault left behind may remain, but no key.
func (m *mount) requireNothingIsLeft(t *testing.T) {
	t.Helper()
	m.write("keys/myapi", map[string]any{"deletion_allowed": true})
	m.delete("roles/myapi")
	m.delete("keys/myapi")
	for path, value := range m.storage.entries(t) {
		require.True(t, path == "config" || strings.HasPrefix(path, "spki/"), path)
		require.NotContains(t, value, "private_key", path)
	}
}

func TestFaults_UnstoredAcceptanceFailsNoRead(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.storage.failNth(1, verb.writes)
	require.Equal(t, 1, m.signedBy())
	require.Contains(t, m.log.String(), "accepted version could not be stored; kept in memory")
	require.Empty(t, m.version(1)["accepted_time"])
	pass(m, p, time.Minute)
	require.Equal(t, 1, m.signedBy())
	require.NotEmpty(t, m.version(1)["accepted_time"], "stored with a later read")
}

func TestFaults_FailedReadIsReportedAndChangesNothing(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		operation logical.Operation
		path      string
		data      map[string]any
	}{
		{logical.ReadOperation, "keys/myapi", nil},
		{logical.UpdateOperation, "keys/myapi", map[string]any{"client_id": "other", "issuer": "https://idp.example/other"}},
		{logical.PatchOperation, "keys/myapi", map[string]any{"client_id": "other"}},
		{logical.UpdateOperation, "keys/new", map[string]any{"type": "ed25519"}},
		{logical.DeleteOperation, "keys/unused", nil},
		{logical.ListOperation, "keys/", nil},
		{logical.ReadOperation, "roles/myapi", nil},
		{logical.UpdateOperation, "roles/myapi", map[string]any{"key": "unused", "scopes": "a"}},
		{logical.UpdateOperation, "roles/new", map[string]any{"key": "myapi"}},
		{logical.DeleteOperation, "roles/myapi", nil},
		{logical.ListOperation, "roles/", nil},
		{logical.ReadOperation, "config", nil},
		{logical.UpdateOperation, "config", map[string]any{"max_retries": 1}},
		{logical.ReadOperation, "creds/myapi", nil},
		{logical.ReadOperation, "check/myapi", nil},
		{logical.ReadOperation, "info", nil},
	} {
		t.Run(string(test.operation)+" "+test.path, func(t *testing.T) {
			t.Parallel()
			source := newMount(t)
			source.write("keys/myapi", map[string]any{"type": "ed25519"})
			source.write("keys/unused", map[string]any{"type": "ed25519", "deletion_allowed": true})
			source.write("roles/myapi", nil)
			before := source.storage.entries(t)
			for n := 1; ; n++ {
				m := mountOver(t, source.storage, source.clock) // with nothing in memory
				failed := m.storage.failNth(n, func(v verb) bool { return !v.writes() })
				resp, err := m.handle(t.Context(), test.operation, test.path, test.data)
				m.storage.intercept(nil)
				if !failed() {
					require.Greater(t, n, 1, "it reads something")
					return
				}
				if n == 1 && test.operation == logical.UpdateOperation && test.path != "config" {
					require.NoError(t, err, "the existence check leaves it to the write to fail: %v", resp)
					before = m.storage.entries(t)
					continue
				}
				require.ErrorIs(t, err, errStorage, "read %d: %v", n, resp)
				// A response that cannot be built after a completed write is an error too: the entry may be new then.
				if test.operation == logical.ReadOperation || test.operation == logical.ListOperation || test.operation == logical.DeleteOperation {
					require.Equal(t, before, m.storage.entries(t), "read %d", n)
				}
			}
		})
	}
}

func TestStorage_EntryOfANewerFormatIsRejectedAndKept(t *testing.T) {
	t.Parallel()
	for path, storagePath := range map[string]string{"keys/myapi": "key/myapi", "roles/myapi": "role/myapi", "config": "config"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			ready, _ := newReadyMount(t)
			entry, err := logical.StorageEntryJSON(storagePath, map[string]any{"format": 2, "surprise": true})
			require.NoError(t, err)
			require.NoError(t, ready.storage.Put(t.Context(), entry))
			m := mountOver(t, ready.storage, ready.clock)
			before := m.storage.entries(t)
			operations := []logical.Operation{logical.ReadOperation, logical.UpdateOperation, logical.PatchOperation}
			if path != "config" {
				operations = append(operations, logical.DeleteOperation)
			}
			for _, operation := range operations {
				var data map[string]any
				if isWrite(operation) && path == "config" {
					data = map[string]any{"max_retries": 1}
				}
				text := m.failed(http.StatusInternalServerError, operation, path, data)
				require.Contains(t, text, "newer version of this plugin")
				require.Contains(t, text, "upgrade")
			}
			if path == "keys/myapi" {
				for action, data := range map[string]map[string]any{"rotate": nil, "activate": {"force": true}, "destroy": {"version": 1}} {
					require.Contains(t, m.failed(http.StatusInternalServerError, logical.UpdateOperation, path+"/"+action, data), "newer version", action)
				}
			}
			for _, reader := range []string{"creds/myapi", "check/myapi"} {
				require.Contains(t, m.failed(http.StatusInternalServerError, logical.ReadOperation, reader, nil), "newer version")
			}
			require.Equal(t, before, m.storage.entries(t))
		})
	}
}

func TestStorage_CorruptEntryIsAnErrorThatQuotesNothing(t *testing.T) {
	t.Parallel()
	for path, storagePath := range map[string]string{"keys/myapi": "key/myapi", "roles/myapi": "role/myapi", "config": "config"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: storagePath, Value: []byte(`{"format":"hunter2"`)}))
			require.NotContains(t, m.failed(http.StatusInternalServerError, logical.ReadOperation, path, nil), "hunter2")
		})
	}
}
