package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/testlog"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

const mountPoint = "bcgov-jwt/"

// clock is a test's own clock.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// mount is one mount of the engine, as Vault sees it.
type mount struct {
	*backend
	tb      testing.TB
	storage *countingStorage
	system  *countingSystem
	clock   *clock
	log     testlog.Buffer
}

func newMount(tb testing.TB) *mount {
	tb.Helper()
	return mountOver(tb, newStorage(), &clock{})
}

// mountOver returns a mount over storage that may have entries: another node, or the same one after a restart.
func mountOver(tb testing.TB, storage *countingStorage, clock *clock) *mount {
	tb.Helper()
	return nodeOver(tb, storage, clock, consts.ReplicationUnknown)
}

// nodeOver is mountOver for a node with this replication state.
func nodeOver(tb testing.TB, storage *countingStorage, clock *clock, state consts.ReplicationState) *mount {
	tb.Helper()
	m := &mount{tb: tb, storage: storage, system: &countingSystem{state: state}, clock: clock}
	var err error
	m.backend, err = newBackend(context.Background(), &logical.BackendConfig{
		StorageView: storage,
		System:      m.system,
		Logger:      hclog.New(&hclog.LoggerOptions{Output: &m.log, Level: hclog.Trace}),
		BackendUUID: "uuid",
	}, Build{Version: "v1.2.3", Commit: "abc"}, clock.now)
	require.NoError(tb, err)
	tb.Cleanup(func() { m.Cleanup(context.Background()) })
	return m
}

// handle sends a request the way Vault does: data as JSON makes it, and an existence check before a write.
func (m *mount) handle(ctx context.Context, operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	m.tb.Helper()
	req := &logical.Request{
		ID: "request-1", Operation: operation, Path: path, MountPoint: mountPoint, Storage: m.storage, Data: overJSON(m.tb, data),
	}
	if operation == logical.UpdateOperation {
		checked, exists, err := m.HandleExistenceCheck(ctx, req)
		if err != nil {
			return nil, err
		}
		if checked && !exists {
			req.Operation = logical.CreateOperation
		}
	}
	resp, err := m.HandleRequest(ctx, req)
	if err == nil && !resp.IsError() {
		m.validate(req, resp)
	}
	return resp, err
}

// validate checks a response against what the path declares.
func (m *mount) validate(req *logical.Request, resp *logical.Response) {
	m.tb.Helper()
	t, isTest := m.tb.(*testing.T)
	if route := m.Route(req.Path); isTest && resp != nil {
		schema.ValidateResponse(t, schema.GetResponseSchema(t, route, req.Operation), resp, true)
	}
}

// overJSON converts values as their way through Vault does: numbers become float64.
func overJSON(tb testing.TB, data map[string]any) map[string]any {
	tb.Helper()
	encoded, err := json.Marshal(data)
	require.NoError(tb, err)
	var decoded map[string]any
	require.NoError(tb, json.Unmarshal(encoded, &decoded))
	return decoded
}

// patience ends a request that would hang: far above every limit under test.
const patience = 5 * time.Minute

// send is handle for a client that stays connected.
func (m *mount) send(operation logical.Operation, path string, data map[string]any) (*logical.Response, error) {
	m.tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return m.handle(ctx, operation, path, data)
}

// do sends a request that succeeds.
func (m *mount) do(operation logical.Operation, path string, data map[string]any) *logical.Response {
	m.tb.Helper()
	resp, err := m.send(operation, path, data)
	require.NoError(m.tb, err, "%s %s", operation, path)
	require.False(m.tb, resp.IsError(), "%s %s: %v", operation, path, resp)
	return resp
}

func (m *mount) write(path string, data map[string]any) *logical.Response {
	m.tb.Helper()
	return m.do(logical.UpdateOperation, path, data)
}

func (m *mount) patch(path string, data map[string]any) *logical.Response {
	m.tb.Helper()
	return m.do(logical.PatchOperation, path, data)
}

func (m *mount) read(path string) *logical.Response {
	m.tb.Helper()
	return m.do(logical.ReadOperation, path, nil)
}

func (m *mount) delete(path string) {
	m.tb.Helper()
	require.Nil(m.tb, m.do(logical.DeleteOperation, path, nil))
}

func (m *mount) list(path string) []string {
	m.tb.Helper()
	names, _ := m.do(logical.ListOperation, path, nil).Data["keys"].([]string)
	return names
}

// refused sends a request that must return a 400 and change nothing, and returns its text.
func (m *mount) refused(operation logical.Operation, path string, data map[string]any) string {
	m.tb.Helper()
	before := m.storage.entries(m.tb)
	resp, err := m.send(operation, path, data)
	require.NoError(m.tb, err, "%s %s %v", operation, path, data)
	require.True(m.tb, resp.IsError(), "%s %s %v does not fail", operation, path, data)
	require.Len(m.tb, resp.Data, 1, "with any other key Vault would answer 200")
	require.Equal(m.tb, before, m.storage.entries(m.tb), "nothing may change")
	return resp.Error().Error()
}

// failed sends a request that must return this status, and returns its text.
func (m *mount) failed(status int, operation logical.Operation, path string, data map[string]any) string {
	m.tb.Helper()
	resp, err := m.send(operation, path, data)
	if resp.IsError() {
		require.NoError(m.tb, err)
		require.Equal(m.tb, http.StatusBadRequest, status, "%v", resp.Error())
		return resp.Error().Error()
	}
	require.Error(m.tb, err, "%s %s", operation, path)
	coded, isCoded := err.(logical.HTTPCodedError) //nolint:errorlint // only a bare one keeps its code on the way to Vault
	if !isCoded {
		require.Equal(m.tb, http.StatusInternalServerError, status, "%v", err)
		return err.Error()
	}
	require.Equal(m.tb, status, coded.Code(), "%v", err)
	return err.Error()
}

// How long a test waits for background work, and how often it polls.
const (
	eventually = 10 * time.Second
	poll       = 5 * time.Millisecond
)

// newReadyMount returns a mount on which `creds/myapi` works, and its provider.
func newReadyMount(tb testing.TB) (*mount, *provider) {
	tb.Helper()
	m := newMount(tb)
	p := newProvider(tb, idp.Options{})
	m.write("config", map[string]any{"allow_insecure_endpoints": true, "max_retries": 0})
	m.write("keys/myapi", map[string]any{"type": "ed25519", "client_id": "my-client", "issuer": p.issuer(), "revocation_endpoint": p.issuer() + revocationPath})
	m.write("roles/myapi", nil)
	p.register(m, "myapi", "my-client")
	return m, p
}

// publicKey returns that of one version, as PEM.
func (m *mount) publicKey(key string, version int) string {
	m.tb.Helper()
	return m.read(fmt.Sprintf("keys/%s/versions/%d", key, version)).Data["public_key"].(string)
}

// rows returns what a detailed list shows of each entry.
func (m *mount) rows(path string) map[string]any {
	m.tb.Helper()
	rows, _ := m.do(logical.ListOperation, path, nil).Data["key_info"].(map[string]any)
	return rows
}

// version returns what a list shows of one version of the key "myapi"; nil if it does not exist.
func (m *mount) version(number int) map[string]any {
	m.tb.Helper()
	found, _ := m.rows("keys/myapi/versions")[strconv.Itoa(number)].(map[string]any)
	return found
}

// states returns those of the versions of the key "myapi".
func (m *mount) states() map[string]string {
	m.tb.Helper()
	states := map[string]string{}
	for number, version := range m.rows("keys/myapi/versions") {
		states[number] = version.(map[string]any)["state"].(string)
	}
	return states
}

// signedBy reads a token and returns the version of the key "myapi" that signed for it.
func (m *mount) signedBy() int {
	m.tb.Helper()
	keyID := m.read("creds/myapi").Data["key_id"]
	for number, version := range m.rows("keys/myapi/versions") {
		if version.(map[string]any)["key_id"] == keyID {
			n, err := strconv.Atoi(number)
			require.NoError(m.tb, err)
			return n
		}
	}
	require.Fail(m.tb, "an unknown key signed")
	return 0
}

// runPeriodic is what Vault does about once a minute.
func (m *mount) runPeriodic() {
	m.tb.Helper()
	_, err := m.HandleRequest(context.Background(), &logical.Request{Operation: logical.RollbackOperation, Storage: m.storage})
	require.NoError(m.tb, err)
}

// privateKeys returns those in the stored entry of the key "myapi", by version, as encoded there.
func (m *mount) privateKeys() map[int]string {
	m.tb.Helper()
	var entry struct {
		Versions []struct {
			Number     int    `json:"number"`
			PrivateKey string `json:"private_key"`
		} `json:"versions"`
	}
	require.NoError(m.tb, json.Unmarshal([]byte(m.storage.entries(m.tb)["key/myapi"]), &entry))
	found := map[int]string{}
	for _, version := range entry.Versions {
		require.NotEmpty(m.tb, version.PrivateKey)
		found[version.Number] = version.PrivateKey
	}
	return found
}

// holdGeneration holds the next generation of a private key, until release is called.
func (m *mount) holdGeneration() (began <-chan struct{}, release func()) {
	came, released := make(chan struct{}), make(chan struct{})
	var held atomic.Bool
	generate := m.generate
	m.generate = func(keyType keyring.Type) (*keyring.Material, error) {
		if held.CompareAndSwap(false, true) {
			close(came)
			<-released
		}
		return generate(keyType)
	}
	release = sync.OnceFunc(func() { close(released) })
	m.tb.Cleanup(release)
	return came, release
}

// generateQuickly has the mount generate an RSA key of 2048 bits as its wrapping key.
func (m *mount) generateQuickly() {
	m.generate = func(keyType keyring.Type) (*keyring.Material, error) {
		if keyType == keyring.WrappingKeyType {
			keyType = keyring.RSA2048
		}
		return keyring.Generate(keyType)
	}
}
