package backend

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/helper/testhelpers/schema"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/testlog"
)

func TestMain(m *testing.M) {
	// A dependency of Vault's SDK starts this one when it is imported.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start"))
}

const mountPoint = "bcgov-jwt/"

// clock is a test's own clock.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *clock) advance(d time.Duration) { c.ahead.Add(int64(d)) }

// verb is a storage operation.
type verb string

const (
	get    verb = "get"
	list   verb = "list"
	put    verb = "put"
	remove verb = "delete"
)

func (v verb) writes() bool { return v == put || v == remove }

var errStorage = errors.New("storage is down")

// countingStorage counts calls, and lets a test act before each.
type countingStorage struct {
	*logical.InmemStorage

	mu     sync.Mutex
	counts map[verb]int
	before func(v verb, path string) error
}

func newStorage() *countingStorage {
	return &countingStorage{InmemStorage: &logical.InmemStorage{}, counts: map[verb]int{}}
}

func (s *countingStorage) count(v verb, path string) error {
	s.mu.Lock()
	s.counts[v]++
	before := s.before
	s.mu.Unlock()
	if before == nil {
		return nil
	}
	return before(v, path)
}

func (s *countingStorage) Get(ctx context.Context, path string) (*logical.StorageEntry, error) {
	if err := s.count(get, path); err != nil {
		return nil, err
	}
	return s.InmemStorage.Get(ctx, path)
}

func (s *countingStorage) List(ctx context.Context, prefix string) ([]string, error) {
	if err := s.count(list, prefix); err != nil {
		return nil, err
	}
	return s.InmemStorage.List(ctx, prefix)
}

func (s *countingStorage) Put(ctx context.Context, entry *logical.StorageEntry) error {
	if err := s.count(put, entry.Key); err != nil {
		return err
	}
	return s.InmemStorage.Put(ctx, entry)
}

func (s *countingStorage) Delete(ctx context.Context, path string) error {
	if err := s.count(remove, path); err != nil {
		return err
	}
	return s.InmemStorage.Delete(ctx, path)
}

// intercept runs before each call from now on; nil removes it.
func (s *countingStorage) intercept(before func(v verb, path string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = before
}

// failNth fails the n-th of the calls that match, counted from 1 and from now, and reports whether that has happened.
func (s *countingStorage) failNth(n int, matches func(verb) bool) (failed func() bool) {
	var seen atomic.Int64
	s.intercept(func(v verb, _ string) error {
		if matches(v) && seen.Add(1) == int64(n) {
			return errStorage
		}
		return nil
	})
	return func() bool { return seen.Load() >= int64(n) }
}

// failEach fails every call that matches, from now on.
func (s *countingStorage) failEach(matches func(verb) bool) {
	s.intercept(func(v verb, _ string) error {
		if matches(v) {
			return errStorage
		}
		return nil
	})
}

func (s *countingStorage) writes() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[put] + s.counts[remove]
}

func (s *countingStorage) calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[get] + s.counts[list] + s.counts[put] + s.counts[remove]
}

// entries returns everything that is stored, byte for byte.
func (s *countingStorage) entries(tb testing.TB) map[string]string {
	tb.Helper()
	paths, err := logical.CollectKeys(context.Background(), s.InmemStorage)
	require.NoError(tb, err)
	entries := map[string]string{}
	for _, path := range paths {
		entry, err := s.InmemStorage.Get(context.Background(), path)
		require.NoError(tb, err)
		entries[path] = string(entry.Value)
	}
	return entries
}

// countingSystem counts the calls to Vault. The interface in it is nil, so that a call that is not listed here panics:
// nothing else of Vault is called.
type countingSystem struct {
	logical.SystemView
	calls atomic.Int64
	state consts.ReplicationState
}

func (s *countingSystem) ReplicationState() consts.ReplicationState {
	s.calls.Add(1)
	return s.state
}

func (s *countingSystem) LocalMount() bool {
	s.calls.Add(1)
	return false
}

func (s *countingSystem) GetConsumptionBillingManager() logical.ConsumptionBillingManager {
	s.calls.Add(1)
	return nil
}

func (s *countingSystem) PluginEnv(context.Context) (*logical.PluginEnvironment, error) {
	s.calls.Add(1)
	return &logical.PluginEnvironment{VaultVersion: "1.21.0"}, nil
}

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
const patience = time.Minute

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

// provider is the identity provider of a test. It records requests.
type provider struct {
	*httptest.Server
	idp         *idp.Server
	clock       *clock
	tb          testing.TB
	connections atomic.Int64 // ever opened
	open        atomic.Int64

	mu        sync.Mutex
	received  []received
	intercept http.HandlerFunc // answers in the provider's place if it writes a header
}

// received is a recorded request.
type received struct {
	method string
	path   string // behind the issuer
	form   url.Values
}

// How long a test waits for background work, and how often it polls.
const (
	eventually = 10 * time.Second
	poll       = 5 * time.Millisecond
)

const realmPath = "/realms/apigw"

// providerKey signs the tokens of all tests.
var providerKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func newProvider(tb testing.TB, options idp.Options) *provider {
	tb.Helper()
	clock := &clock{}
	options.SigningKey, options.Now = providerKey(), clock.now
	p := &provider{tb: tb, idp: idp.New(options), clock: clock}
	require.NoError(tb, p.idp.AddRealm("apigw"))
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(p.serve))
	p.Config.ErrorLog = log.New(io.Discard, "", 0)
	p.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			p.connections.Add(1)
			p.open.Add(1)
		case http.StateClosed:
			p.open.Add(-1)
		}
	}
	p.Start()
	tb.Cleanup(func() {
		p.CloseClientConnections() // a request may still wait for its answer
		p.Close()
		p.idp.Close()
	})
	return p
}

func (p *provider) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // the provider rejects what cannot be read
	r.Body = io.NopCloser(bytes.NewReader(body))
	form, _ := url.ParseQuery(string(body))
	p.mu.Lock()
	p.received = append(p.received, received{r.Method, strings.TrimPrefix(r.URL.Path, realmPath), form})
	intercept := p.intercept
	p.mu.Unlock()
	if intercept != nil {
		tracked := &trackedWriter{ResponseWriter: w}
		if intercept(tracked, r); tracked.wrote {
			return
		}
	}
	p.idp.ServeHTTP(w, r)
}

// trackedWriter records whether a handler has answered.
type trackedWriter struct {
	http.ResponseWriter
	wrote bool
}

func (w *trackedWriter) WriteHeader(status int) {
	w.wrote = true
	w.ResponseWriter.WriteHeader(status)
}

func (p *provider) interceptWith(handler http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.intercept = handler
}

// answerWith sets the response of a path behind the issuer.
func (p *provider) answerWith(path string, status int, contentType, body string) {
	p.interceptWith(func(w http.ResponseWriter, r *http.Request) {
		if strings.TrimPrefix(r.URL.Path, realmPath) != path {
			return
		}
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// requests returns those to a path behind the issuer.
func (p *provider) requests(path string) []received {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []received
	for _, r := range p.received {
		if r.path == path {
			found = append(found, r)
		}
	}
	return found
}

const (
	tokenPath      = "/protocol/openid-connect/token"
	revocationPath = "/protocol/openid-connect/revoke"
	discoveryPath  = "/.well-known/openid-configuration"
)

func (p *provider) issuer() string { return p.URL + realmPath }

// register registers the key at the provider, as the portal does, with changes of the client.
func (p *provider) register(m *mount, key, clientID string, changes ...func(*keycloak.Client)) {
	p.tb.Helper()
	client := keycloak.PortalClient(clientID, m.read("keys/" + key).Data["public_key"].(string))
	for _, change := range changes {
		change(&client)
	}
	require.NoError(p.tb, p.idp.PutClient("apigw", client))
}

// registerVersion registers one version of the key "myapi", as the portal does when its public key is pasted.
func (p *provider) registerVersion(m *mount, version int) {
	p.tb.Helper()
	publicKey := m.publicKey("myapi", version)
	require.NoError(p.tb, p.idp.PutClient("apigw", keycloak.PortalClient("my-client", publicKey)))
}

// holdToken holds the n-th token request from now on, until release is called.
func (p *provider) holdToken(n int64) (arrived <-chan struct{}, release func()) {
	came, released := make(chan struct{}), make(chan struct{})
	var seen atomic.Int64
	p.interceptWith(func(_ http.ResponseWriter, r *http.Request) {
		if strings.TrimPrefix(r.URL.Path, realmPath) == tokenPath && seen.Add(1) == n {
			close(came)
			<-released
		}
	})
	release = sync.OnceFunc(func() { close(released) })
	p.tb.Cleanup(release)
	return came, release
}

// active asks the provider whether a token is valid.
func (p *provider) active(token string) bool {
	p.tb.Helper()
	require.NoError(p.tb, p.idp.PutClient("apigw", keycloak.SecretClient("inspector", "secret")))
	form := url.Values{"client_id": {"inspector"}, "client_secret": {"secret"}, "token": {token}}
	r := httptest.NewRequest(http.MethodPost, p.issuer()+"/protocol/openid-connect/token/introspect", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	p.idp.ServeHTTP(w, r)
	require.Equal(p.tb, http.StatusOK, w.Code)
	var answer struct {
		Active bool `json:"active"`
	}
	require.NoError(p.tb, json.Unmarshal(w.Body.Bytes(), &answer))
	return answer.Active
}

// newReadyMount returns a mount on which `creds/myapi` works, and its provider.
func newReadyMount(tb testing.TB) (*mount, *provider) {
	tb.Helper()
	m := newMount(tb)
	p := newProvider(tb, idp.Options{})
	m.write("config", map[string]any{"allow_insecure_endpoints": true, "max_retries": 0})
	m.write("keys/myapi", map[string]any{"type": "ed25519", "client_id": "my-client", "issuer": p.issuer()})
	m.write("roles/myapi", nil)
	p.register(m, "myapi", "my-client")
	return m, p
}

// pass advances the clocks, here and at the provider.
func pass(m *mount, p *provider, d time.Duration) {
	m.clock.advance(d)
	p.clock.advance(d)
}

// publicKey returns that of one version, as PEM.
func (m *mount) publicKey(key string, version int) string {
	m.tb.Helper()
	return m.do(logical.ReadOperation, "keys/"+key, map[string]any{"version": version}).Data["public_key"].(string)
}

// version returns what a read of the key "myapi" shows of one version; nil if it does not exist.
func (m *mount) version(number int) map[string]any {
	m.tb.Helper()
	found, _ := m.read("keys/myapi").Data["versions"].(map[string]any)[strconv.Itoa(number)].(map[string]any)
	return found
}

// states returns those of the versions of the key "myapi".
func (m *mount) states() map[string]string {
	m.tb.Helper()
	states := map[string]string{}
	for number, version := range m.read("keys/myapi").Data["versions"].(map[string]any) {
		states[number] = version.(map[string]any)["state"].(string)
	}
	return states
}

// signedBy reads a token and returns the version of the key "myapi" that signed for it.
func (m *mount) signedBy() int {
	m.tb.Helper()
	keyID := m.read("creds/myapi").Data["key_id"]
	for number, version := range m.read("keys/myapi").Data["versions"].(map[string]any) {
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

func TestFactory_CreatesMount(t *testing.T) {
	t.Parallel()
	created, err := Factory(Build{Version: "v9.8.7"})(t.Context(), &logical.BackendConfig{System: &countingSystem{}, Logger: hclog.NewNullLogger()})
	require.NoError(t, err)
	require.Equal(t, logical.TypeLogical, created.Type())
	require.Equal(t, "v9.8.7", created.(logical.PluginVersioner).PluginVersion().Version)
	require.Equal(t, []string{"key/", "wrapping-key"}, created.SpecialPaths().SealWrapStorage, "a prefix without its slash would match nothing below")
	require.Equal(t, []string{"jwks/+"}, created.SpecialPaths().Unauthenticated)
	created.Cleanup(t.Context())

	_, err = Factory(Build{})(t.Context(), nil)
	require.Error(t, err)
}

func TestFactory_WorksAtCatalogRegistration(t *testing.T) {
	t.Parallel()
	created, err := Factory(Build{Version: "v1.0.0"})(t.Context(), &logical.BackendConfig{})
	require.NoError(t, err)
	created.Cleanup(t.Context())
}

func TestStorage_PrivateKeysAreSealWrapped(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	for path, value := range m.storage.entries(t) {
		if !strings.HasPrefix(path, m.SpecialPaths().SealWrapStorage[0]) {
			require.NotContains(t, value, "private", path)
			require.Less(t, len(value), 512, path)
		}
	}
}

// operations returns all that the mount serves, by a concrete path.
func (m *mount) operations() map[string][]logical.Operation {
	found := map[string][]logical.Operation{}
	for _, p := range m.Paths {
		concrete := p.Pattern
		for field := range p.Fields {
			concrete = strings.ReplaceAll(concrete, "(?P<"+field+">[^/]+)", "myapi")
		}
		concrete = strings.TrimPrefix(strings.TrimSuffix(strings.ReplaceAll(concrete, "/?", "/"), "$"), "^")
		for operation := range p.Operations {
			found[concrete] = append(found[concrete], operation)
		}
	}
	return found
}

func TestPaths_AreDocumented(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	ids := map[string]string{}
	for concrete, operations := range m.operations() {
		route := m.Route(concrete)
		require.NotNil(t, route, concrete)
		require.NotEmpty(t, route.HelpSynopsis, concrete)
		require.NotEmpty(t, route.HelpDescription, concrete)
		for name, field := range route.Fields {
			require.NotEmpty(t, field.Description, "%s of %s", name, concrete)
		}
		for _, operation := range operations {
			properties := route.Operations[operation].Properties()
			require.NotEmpty(t, properties.Summary, "%s %s", operation, concrete)
			require.NotEmpty(t, properties.Responses, "%s %s", operation, concrete)
			// The first read of the wrapping key creates it.
			writes := isWrite(operation) || operation == logical.DeleteOperation || concrete == "wrapping_key"
			require.Equal(t, writes, properties.ForwardPerformanceStandby, "%s %s", operation, concrete)
			require.Equal(t, properties.ForwardPerformanceStandby, properties.ForwardPerformanceSecondary, "%s %s", operation, concrete)
			if operation == logical.CreateOperation || properties.Unpublished {
				continue // one operation with update in OpenAPI, or none
			}
			id := string(operation) + " " + properties.DisplayAttrs.OperationVerb + " " + properties.DisplayAttrs.OperationSuffix
			require.Empty(t, ids[id], "%s has the OpenAPI name of %s", concrete, ids[id])
			ids[id] = concrete
		}
	}
}

func TestPaths_OpenAPIOperationIDsDiffer(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	resp, err := m.HandleRequest(t.Context(), &logical.Request{
		Operation: logical.HelpOperation, Path: "", Storage: m.storage, Data: map[string]any{"requestResponsePrefix": "BcgovJwt"},
	})
	require.NoError(t, err)
	document, isDocument := resp.Data["openapi"].(*framework.OASDocument)
	require.True(t, isDocument)
	seen := map[string]string{}
	for oasPath, item := range document.Paths {
		for _, operation := range []*framework.OASOperation{item.Get, item.Post, item.Patch, item.Delete} {
			if operation == nil {
				continue
			}
			require.True(t, strings.HasPrefix(operation.OperationID, operationPrefix+"-"), operation.OperationID)
			require.Empty(t, seen[operation.OperationID], "%s twice: %s", operation.OperationID, oasPath)
			seen[operation.OperationID] = oasPath
		}
	}
	require.NotEmpty(t, seen)
	require.Contains(t, resp.Data["help"], "bcgov-jwt/keys/myapi")
}

func TestPaths_SecretFieldsAreSensitive(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for path, secret := range map[string]string{"creds/myapi": "access_token", "assertion/myapi": "client_assertion"} {
		answer := m.Route(path).Operations[logical.ReadOperation].Properties().Responses[http.StatusOK][0]
		for name, field := range answer.Fields {
			require.Equal(t, name == secret, field.DisplayAttrs != nil && field.DisplayAttrs.Sensitive, "%s of %s", name, path)
		}
		require.Contains(t, answer.Fields, secret)
	}
	require.True(t, m.Secret(accessTokenType).Fields["access_token"].DisplayAttrs.Sensitive)
}

func TestInvalidate_NextReadSeesOtherNodesWrite(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		path, storagePath string
		change            map[string]any
		field             string
		want              any
	}{
		"config": {"check/myapi", "config", map[string]any{"allow_insecure_endpoints": false}, "ok", false},
		"key":    {"keys/myapi", "key/myapi", map[string]any{"disabled": true}, "disabled", true},
		"role":   {"roles/myapi", "role/myapi", map[string]any{"scopes": "a,b"}, "scopes", []string{"a", "b"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			here, _ := newReadyMount(t)
			there := mountOver(t, here.storage, here.clock)
			old := here.read(test.path).Data[test.field]
			there.write(strings.Replace(test.path, "check/myapi", "config", 1), test.change)
			require.Equal(t, old, here.read(test.path).Data[test.field], "cached until invalidated")
			here.InvalidateKey(t.Context(), test.storagePath+"x")
			here.InvalidateKey(t.Context(), "other/"+test.storagePath)
			require.Equal(t, old, here.read(test.path).Data[test.field], "another entry is invalidated")
			here.InvalidateKey(t.Context(), test.storagePath)
			require.Equal(t, test.want, here.read(test.path).Data[test.field])
		})
	}
}

func TestInvalidate_OfDeletedEntry(t *testing.T) {
	t.Parallel()
	here, _ := newReadyMount(t)
	there := mountOver(t, here.storage, here.clock)
	here.read("creds/myapi")
	there.delete("roles/myapi")
	here.InvalidateKey(t.Context(), "role/myapi")
	require.Contains(t, here.refused(logical.ReadOperation, "creds/myapi", nil), `unknown role "myapi"`)
}

func TestClean_LeavesNothingBehind(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	m.read("creds/myapi")
	m.Cleanup(t.Context())
	require.Empty(t, m.config.values)
	require.Empty(t, m.keys.values)
	require.Empty(t, m.roles.values)
	require.Eventually(t, func() bool { return p.open.Load() == 0 }, eventually, poll, "no connection")
}

func TestRequest_UnsupportedOperationIsRejectedByFramework(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for _, unserved := range []string{"", "nothing", "keys/a/b", "creds/", "config/x", path.Join("check", "a", "b")} {
		_, err := m.handle(t.Context(), logical.ReadOperation, unserved, nil)
		require.Error(t, err, "%q", unserved)
	}
	_, err := m.handle(t.Context(), logical.DeleteOperation, "info", nil)
	require.ErrorIs(t, err, logical.ErrUnsupportedOperation)
}
