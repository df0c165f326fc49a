package backend

import (
	"path"
	"strings"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// writeFault is an operation on a ready mount that is run with each of its storage writes failing.
type writeFault struct {
	prepare   func(*mount, *provider)
	operation logical.Operation
	path      string
	data      map[string]any
	writes    int // how many the operation makes
	// doneAfter numbers the first failing write that only concerns an index: the entry was written or deleted by then.
	doneAfter int
	// repeated is the error of a repeated operation that was done by then; empty if it succeeds.
	repeated string
	harmless bool // the operation succeeds despite a fault
}

func writeFaults(t *testing.T) map[string]writeFault {
	t.Helper()
	private, _ := newPEM(t)
	unused := map[string]any{"type": "ed25519", "registration": "jwks", "deletion_allowed": true}
	none := func(*mount, *provider) {}
	written := func(path string, data map[string]any) func(*mount, *provider) {
		return func(m *mount, _ *provider) { m.write(path, data) }
	}
	staged := func(m *mount, p *provider) {
		m.read("creds/myapi")
		m.write("keys/myapi/rotate", nil)
		p.registerVersion(m, 2)
	}
	retired := func(m *mount, p *provider) {
		staged(m, p)
		m.read("creds/myapi")
	}
	const update, patch, remove, read = logical.UpdateOperation, logical.PatchOperation, logical.DeleteOperation, logical.ReadOperation
	return map[string]writeFault{
		"create config": {
			prepare: func(m *mount, _ *provider) { m.delete("config") }, operation: update, path: "config",
			data: map[string]any{"max_retries": 3}, writes: 1,
		},
		"update config": {prepare: none, operation: update, path: "config", data: map[string]any{"max_retries": 3}, writes: 1},
		"patch config":  {prepare: none, operation: patch, path: "config", data: map[string]any{"max_retries": 3}, writes: 1},
		"delete config": {prepare: none, operation: remove, path: "config", writes: 1},

		"create key":       {prepare: none, operation: update, path: "keys/new", data: unused, writes: 3},
		"update key":       {prepare: none, operation: update, path: "keys/myapi", data: map[string]any{"assertion_ttl": 40}, writes: 1},
		"patch key":        {prepare: none, operation: patch, path: "keys/myapi", data: map[string]any{"assertion_ttl": 40}, writes: 1},
		"delete key":       {prepare: written("keys/new", unused), operation: remove, path: "keys/new", writes: 3, doneAfter: 2},
		"import key":       {prepare: none, operation: update, path: "keys/new/import", data: map[string]any{"private_key": private}, writes: 3},
		"rotate key":       {prepare: none, operation: update, path: "keys/myapi/rotate", writes: 2},
		"activate version": {prepare: staged, operation: update, path: "keys/myapi/activate", writes: 1},
		"destroy staged version": {
			prepare: staged, operation: update, path: "keys/myapi/destroy", data: map[string]any{"version": 2}, writes: 2,
			doneAfter: 2, repeated: `key "myapi" has no version 2`,
		},
		"destroy retired version": {
			prepare: retired, operation: update, path: "keys/myapi/destroy", data: map[string]any{"version": 1}, writes: 2,
			doneAfter: 2, repeated: `key "myapi" has no version 1`,
		},

		"create role": {prepare: none, operation: update, path: "roles/new", data: map[string]any{"key": "myapi"}, writes: 2},
		"update role": {prepare: none, operation: update, path: "roles/myapi", data: map[string]any{"refresh_margin": 20}, writes: 2},
		"patch role":  {prepare: none, operation: patch, path: "roles/myapi", data: map[string]any{"refresh_margin": 20}, writes: 2},
		"move role": {
			prepare: written("keys/new", unused), operation: update, path: "roles/myapi", data: map[string]any{"key": "new"}, writes: 3,
			doneAfter: 3,
		},
		"delete role": {prepare: none, operation: remove, path: "roles/myapi", writes: 2, doneAfter: 2},

		"create wrapping key": {
			prepare: func(m *mount, _ *provider) { m.generateQuickly() }, operation: read, path: "wrapping_key", writes: 1,
		},
		"record the first acceptance": {prepare: none, operation: read, path: "creds/myapi", writes: 1, harmless: true},
		"switch to another version":   {prepare: staged, operation: read, path: "creds/myapi", writes: 1, harmless: true},
	}
}

func TestFaults_FailedWriteOfAnyOperationLeavesTheOldState(t *testing.T) {
	t.Parallel()
	for name, fault := range writeFaults(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := 1; n <= fault.writes; n++ {
				fault.failAt(t, n)
			}
			m, p := newReadyMount(t)
			fault.prepare(m, p)
			writes := m.storage.writes()
			m.do(fault.operation, fault.path, fault.data)
			require.Equal(t, fault.writes, m.storage.writes()-writes, "the test covers every write")
		})
	}
}

func (f writeFault) failAt(t *testing.T, n int) {
	t.Helper()
	m, p := newReadyMount(t)
	f.prepare(m, p)
	before := m.observe() // fills what is cached
	failed := m.storage.failNth(n, verb.writes)
	err := sent(f.operation, f.path, f.data)(m)
	m.storage.intercept(nil)
	require.True(t, failed())
	if f.harmless {
		require.NoError(t, err)
	} else {
		require.ErrorContains(t, err, errStorage.Error())
	}

	after := m.observe()
	require.Equal(t, mountOver(t, m.storage, m.clock).observe(), after, "memory matches storage, write %d", n)
	if f.doneAfter > 0 && n >= f.doneAfter {
		require.NotEqual(t, before, after, "write %d", n)
		if f.operation == logical.DeleteOperation {
			require.NotContains(t, after, f.path, "write %d", n)
		}
	} else {
		require.Equal(t, before, after, "write %d", n)
	}

	pass(m, p, time.Minute) // what a node learned is stored at most so often
	err = sent(f.operation, f.path, f.data)(m)
	if f.repeated != "" && n >= f.doneAfter {
		require.ErrorContains(t, err, f.repeated)
	} else {
		require.NoError(t, err, "it can be repeated")
	}
	final := m.observe()
	require.NotEqual(t, before, final, "write %d", n)
	require.Equal(t, mountOver(t, m.storage, m.clock).observe(), final, "memory matches storage, write %d", n)
}

// observe returns what an operator reads, and what anyone does.
func (m *mount) observe() map[string]any {
	m.tb.Helper()
	seen := map[string]any{"config": m.read("config")}
	key, err := m.wrappingKey.get(m.tb.Context(), m.storage, keyring.WrappingKeyStoragePath)
	require.NoError(m.tb, err)
	if key != nil {
		seen["wrapping_key"] = m.read("wrapping_key")
	}
	for _, kind := range []string{"keys/", "roles/"} {
		for _, name := range m.list(kind) {
			read := m.read(kind + name)
			seen[kind+name] = read
			if kind == "keys/" {
				seen["versions of "+name] = m.rows(kind + name + "/versions")
			}
			if jwks, _ := read.Data["jwks_path"].(string); jwks != "" {
				seen["jwks of "+name] = m.jwks(logical.ReadOperation, path.Base(jwks))
			}
		}
	}
	return seen
}

// TestFaults_EveryWritingOperationIsTested keeps writeFaults complete.
func TestFaults_EveryWritingOperationIsTested(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	tested := map[string]bool{}
	for _, fault := range writeFaults(t) {
		tested[string(fault.operation)+" "+m.Route(fault.path).Pattern] = true
	}
	for _, served := range m.Paths {
		for operation := range served.Operations {
			if !isWrite(operation) && operation != logical.DeleteOperation {
				continue
			}
			name := strings.Replace(string(operation), string(logical.CreateOperation), string(logical.UpdateOperation), 1)
			require.True(t, tested[name+" "+served.Pattern], "%s %s", operation, served.Pattern)
		}
	}
}
