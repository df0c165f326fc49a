package integrationtest

import (
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

const (
	// reloadPause is how long Keycloak waits at most before it may load a client's keys again: ten seconds by a clock of whole ones.
	reloadPause = 11 * time.Second
	// acceptance is how long a new version may take from a load until it is accepted: it is tried again every ten seconds, and one try may come too early.
	acceptance = 2*reloadPause + 3*time.Second
)

// TestJWKSRotationFailsNoRead rotates three times while creds is read all the time; Keycloak fetches the keys from Vault itself. That an assertion signed with the
// old key is refused after retire_after is held in process, with the clock moved: the least retire_after is too long to wait for here.
func TestJWKSRotationFailsNoRead(t *testing.T) {
	t.Parallel()
	kc := realKeycloak(t)
	m := newMount(t, kc.config)
	name := "scheduled-" + rand.Text()
	source := newJWKSSource(t)
	m.newPublisher(t, kc, name, source.URL, map[string]any{"activation_delay": 0})
	reads := m.startLoad(t, name)
	m.eventuallyAccepted(t, name, 1, 10*time.Second)
	require.EqualValues(t, 1, source.fetches.Load())

	// Within 10 s of the load Keycloak does not fetch again: version 1 goes on signing.
	rotated := m.write(t, "keys/"+name+"/rotate", nil)
	require.Equal(t, 2, rotated.number(t, "active_version"))
	requireNames(t, strings.Join(rotated.warnings, " "), "activation_delay is 0s")
	require.Equal(t, rotated.version(t, 1, "key_id"), m.read(t, "creds/"+name).text(t, "key_id"))
	require.EqualValues(t, 1, source.fetches.Load())
	m.eventuallyAccepted(t, name, 2, acceptance)
	require.Equal(t, rotated.text(t, "key_id"), m.read(t, "creds/"+name).text(t, "key_id"))

	// Published two seconds before it signs.
	m.write(t, "keys/"+name, map[string]any{"activation_delay": 2})
	rotated = m.write(t, "keys/"+name+"/rotate", nil)
	require.Equal(t, 3, rotated.number(t, "staged_version"))
	require.Equal(t, rotated.version(t, 2, "key_id"), m.read(t, "creds/"+name).text(t, "key_id"))
	require.Equal(t, []string{rotated.version(t, 3, "key_id"), rotated.version(t, 2, "key_id"), rotated.version(t, 1, "key_id")}, m.publishedKeyIDs(t, name))
	m.eventuallyAccepted(t, name, 3, 2*time.Second+acceptance)

	// More than 10 s after the load: the first refused assertion makes Keycloak fetch.
	m.write(t, "keys/"+name, map[string]any{"activation_delay": 0})
	pass(t, reloadPause)
	fetches := source.fetches.Load()
	rotated = m.write(t, "keys/"+name+"/rotate", nil)
	require.Equal(t, rotated.text(t, "key_id"), m.read(t, "creds/"+name).text(t, "key_id"), "the very next read")
	require.Equal(t, fetches+1, source.fetches.Load())
	key := m.eventuallyAccepted(t, name, 4, 5*time.Second)
	pass(t, time.Second)
	reads.end(t)
	require.Equal(t, "schedule", key.version(t, 4, "activated_by"))
	require.Empty(t, shared.Vault.switches(t, name), "with jwks the schedule decides")

	// A destroyed version is accepted until Keycloak fetches the keys again, and refused from then on.
	destroyed := m.privateKey(t, name, key.version(t, 3, "key_id"))
	m.showKeysNow(t)
	m.write(t, "keys/"+name+"/destroy", map[string]any{"version": 3})
	require.Equal(t, http.StatusOK, kc.askWith(t, key, destroyed, key.version(t, 3, "key_id")), "before Keycloak fetches again")
	pass(t, reloadPause)
	m.write(t, "keys/"+name+"/rotate", nil)
	m.read(t, "creds/"+name)
	m.eventuallyAccepted(t, name, 5, 5*time.Second)
	require.Equal(t, http.StatusBadRequest, kc.askWith(t, key, destroyed, key.version(t, 3, "key_id")))
}

// privateKey is that of the version with a key id, from storage.
func (m *mount) privateKey(t *testing.T, name, keyID string) crypto.Signer {
	t.Helper()
	keys, err := m.privateKeys(t.Context(), name)
	require.NoError(t, err)
	for _, key := range keys {
		id, err := keyIDOf(publicPEM(t, key))
		require.NoError(t, err)
		if id == keyID {
			return key
		}
	}
	require.Fail(t, "no version has the key id", keyID)
	return nil
}

// keyIDOf is the kid of a public key: what Keycloak makes of it too.
func keyIDOf(publicKey string) (string, error) {
	block, _ := pem.Decode([]byte(publicKey))
	if block == nil {
		return "", errors.New("not PEM")
	}
	digest := sha256.Sum256(block.Bytes)
	return base64.RawURLEncoding.EncodeToString(digest[:]), nil
}

// askWith asks for a token as whoever had the private key of this client could, and returns the status of the answer.
func (p *provider) askWith(t *testing.T, registered answer, key crypto.Signer, keyID string) int {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", keyID))
	require.NoError(t, err)
	clientID, now := registered.text(t, "client_id"), time.Now()
	claims, err := json.Marshal(map[string]any{
		"iss": clientID, "sub": clientID, "aud": p.issuer, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(30 * time.Second).Unix(),
	})
	require.NoError(t, err)
	signed, err := signer.Sign(claims)
	require.NoError(t, err)
	assertion, err := signed.CompactSerialize()
	require.NoError(t, err)
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {clientID}, "client_assertion": {assertion},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.tokenEndpoint(), strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	return resp.StatusCode
}

// newPublisher makes a key, and a client of the provider that fetches the key's public half below base, and a role of the same name.
func (m *mount) newPublisher(t *testing.T, p *provider, name, base string, settings map[string]any) {
	t.Helper()
	clientID := newClientID()
	all := map[string]any{"client_id": clientID, "issuer": p.issuer, "registration": "jwks"}
	maps.Copy(all, settings)
	path := m.write(t, "keys/"+name, all).text(t, "jwks_path")
	require.NoError(t, p.put(t.Context(), keycloak.PortalJWKSClient(clientID, base+path)))
	m.write(t, "roles/"+name, nil)
}

// jwksSource passes what a provider fetches on to Vault, counts it, and can be switched off.
type jwksSource struct {
	URL     string
	fetches atomic.Int64
	outage  atomic.Pointer[http.HandlerFunc] // answers in place of Vault, if it is set
}

func newJWKSSource(t *testing.T) *jwksSource {
	t.Helper()
	target, err := url.Parse("http://" + shared.Vault.Address)
	require.NoError(t, err)
	source := &jwksSource{}
	vault := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		source.fetches.Add(1)
		if outage := source.outage.Load(); outage != nil {
			(*outage)(w, r)
			return
		}
		vault.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	source.URL = server.URL
	return source
}

func (s *jwksSource) fail(outage http.HandlerFunc) { s.outage.Store(&outage) }
func (s *jwksSource) recover()                     { s.outage.Store(nil) }

// document is what is served at a JWKS URL.
type document struct {
	status int
	header http.Header
	body   string
}

// fetch asks for a key set as a provider does: without a Vault token.
func fetch(t *testing.T, method, path string) document {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+shared.Vault.Address+path, http.NoBody)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	shared.witness.saw("the key set "+path, string(body))
	return document{resp.StatusCode, resp.Header, string(body)}
}

// publishedKeyIDs fetches the key set of a key, and holds it to its form.
func (m *mount) publishedKeyIDs(t *testing.T, name string) []string {
	t.Helper()
	key := m.read(t, "keys/"+name)
	path := key.text(t, "jwks_path")
	got := fetch(t, http.MethodGet, path)
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, "application/jwk-set+json", got.header.Get("Content-Type"))
	require.Equal(t, "max-age=60", got.header.Get("Cache-Control"))
	require.JSONEq(t, key.text(t, "jwks"), got.body)
	head := fetch(t, http.MethodHead, path)
	require.Equal(t, http.StatusOK, head.status)
	require.Equal(t, got.header.Get("Content-Type"), head.header.Get("Content-Type"))
	require.Empty(t, head.body)
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	require.NoError(t, json.Unmarshal([]byte(got.body), &set))
	var ids []string
	for _, jwk := range set.Keys {
		require.Equal(t, "sig", jwk["use"])
		require.NotContains(t, jwk, "d")
		id, _ := jwk["kid"].(string)
		ids = append(ids, id)
	}
	return ids
}

// TestUnreachableKeySet takes the JWKS URL away from Keycloak, rotates, and gives it back. That nothing expires for three times retire_after, and that the automatic
// rotation waits so long, is held in process, with the clock moved.
func TestUnreachableKeySet(t *testing.T) {
	t.Parallel()
	outages := map[string]http.HandlerFunc{
		"the connection is cut": func(w http.ResponseWriter, _ *http.Request) { hijack(w, "") },
		"an answer 503 in its place": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, `{"errors":["Vault is sealed"]}`, http.StatusServiceUnavailable)
		},
		"a page in its place": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>proxy</html>"))
		},
	}
	for outage, answer := range outages {
		t.Run(outage, func(t *testing.T) {
			t.Parallel()
			kc := realKeycloak(t)
			m := newMount(t, kc.config)
			name := "unreachable-" + rand.Text()
			source := newJWKSSource(t)
			m.newPublisher(t, kc, name, source.URL, map[string]any{"type": "ecdsa-p256", "activation_delay": 0, "assertion_ttl": 30, "retire_after": 105})
			reads := m.startLoad(t, name)
			m.eventuallyAccepted(t, name, 1, 10*time.Second)

			source.fail(answer)
			before := source.fetches.Load()
			m.write(t, "keys/"+name+"/rotate", nil)
			require.Eventually(t, func() bool { return source.fetches.Load() > before }, acceptance, 100*time.Millisecond, "Keycloak does not try")
			pass(t, 5*time.Second)
			key := m.read(t, "keys/"+name)
			require.Equal(t, 2, key.number(t, "active_version"))
			require.Empty(t, key.version(t, 2, "accepted_time"))
			require.Empty(t, key.version(t, 1, "expire_time"), "what the provider knows does not expire")
			require.Equal(t, key.version(t, 1, "key_id"), m.read(t, "creds/"+name).text(t, "key_id"))

			source.recover()
			key = m.eventuallyAccepted(t, name, 2, acceptance)
			require.NotEmpty(t, key.version(t, 1, "expire_time"))
			pass(t, time.Second)
			reads.end(t)
		})
	}
}

// TestKeyOfTheSameName: neither the address of a deleted key's public half nor a role that named it passes to a new key of that name.
func TestKeyOfTheSameName(t *testing.T) {
	t.Parallel()
	p := embeddedProvider(t)
	m := newMount(t, p.config)
	settings := map[string]any{"type": "ed25519", "registration": "jwks", "deletion_allowed": true}
	m.newClient(t, p, "myapi", settings)
	m.read(t, "creds/myapi")
	old := m.read(t, "keys/myapi").text(t, "jwks_path")
	require.Len(t, m.publishedKeyIDs(t, "myapi"), 1)
	role := m.mustBeStored(t, "role/myapi")
	m.showKeysNow(t)
	m.delete(t, "roles/myapi")
	m.delete(t, "keys/myapi")
	requireNoKeySet(t, old)

	m.newClient(t, p, "myapi", settings)
	m.read(t, "creds/myapi")
	requireNoKeySet(t, old)
	require.NotEqual(t, old, m.read(t, "keys/myapi").text(t, "jwks_path"))
	require.Len(t, m.publishedKeyIDs(t, "myapi"), 1)

	// What a restored snapshot or a lost race may leave: the old role beside the new key. No API makes it.
	m.delete(t, "roles/myapi")
	_, err := m.client.Logical().WriteWithContext(t.Context(), "sys/raw/logical/"+m.uuid+"/role/myapi", map[string]any{"value": role})
	require.NoError(t, err)
	got := m.do(t, http.MethodGet, "creds/myapi", nil, nil)
	require.Equal(t, http.StatusBadRequest, got.status, got.errorText())
	requireNames(t, got.errorText(), "vault write "+m.path+"/roles/myapi")

	// A key that a person registers publishes nothing, and so do names and junk.
	current := m.read(t, "keys/myapi").text(t, "jwks_path")
	m.write(t, "keys/myapi", map[string]any{"registration": "manual"})
	require.Empty(t, m.read(t, "keys/myapi").text(t, "jwks_path"))
	for _, id := range []string{current[strings.LastIndex(current, "/")+1:], "myapi", strings.ToLower(current[strings.LastIndex(current, "/")+1:]), "a b", strings.Repeat("A", 300)} {
		requireNoKeySet(t, "/v1/"+m.path+"/jwks/"+url.PathEscape(id))
	}
}

// requireNoKeySet wants the answer that any id gets that no key ever had.
func requireNoKeySet(t *testing.T, path string) {
	t.Helper()
	unknown := path[:strings.LastIndex(path, "/")+1] + rand.Text()
	for _, method := range []string{http.MethodGet, http.MethodHead} {
		want, got := fetch(t, method, unknown), fetch(t, method, path)
		want.header.Del("Date")
		got.header.Del("Date")
		require.Equal(t, http.StatusNotFound, got.status, "%s %s: %s", method, path, got.body)
		require.Equal(t, want, got, "%s %s", method, path)
	}
}
