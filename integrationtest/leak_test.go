package integrationtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestNoOperationLetsASecretOut calls everything that the plugin serves, as its own OpenAPI document tells it, with good and with bad input. TestMain looks once
// more, for all tests together.
func TestNoOperationLetsASecretOut(t *testing.T) {
	t.Parallel()
	p := embeddedProvider(t)
	m := newMount(t, p.config)
	for _, keyType := range []string{"rsa-2048", "rsa-3072", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519"} {
		m.newClient(t, p, keyType, map[string]any{"type": keyType})
		m.read(t, "creds/"+keyType)
		m.requirePrivateKeyKnown(t, keyType)
	}
	m.newClient(t, p, "walked", nil)
	m.newClient(t, p, "spare", nil)
	for _, delivery := range []string{"leased", "unleased", "shared"} {
		m.newClient(t, p, delivery, nil)
		m.write(t, "roles/"+delivery, map[string]any{"delivery": delivery, "revoke_tokens": delivery == "leased", "allow_assertion": true})
	}
	m.write(t, "keys/walked/rotate", nil)
	m.newClient(t, p, "published", map[string]any{"registration": "jwks"})
	m.showKeysNow(t) // one is destroyed on the way

	operations := m.operations(t)
	valid := m.validCalls(t, p)
	for _, o := range operations {
		requests, known := valid[o.String()]
		require.True(t, known, "no valid call is known of %s: add one to validCalls", o)
		for _, request := range requests {
			got := m.do(t, o.method, request.path, o.query, request.body)
			require.Less(t, got.status, 300, "%s %s: %s", o.method, request.path, got.errorText())
		}
	}
	m.write(t, "config", p.config) // which the walk deleted
	for _, o := range operations {
		m.callBadly(t, o)
	}
	m.requireNoLeak(t)
}

// requireNoLeak looks through all that came out so far.
func (m *mount) requireNoLeak(t *testing.T) {
	t.Helper()
	m.showKeysNow(t)
	leaks, err := shared.leaks()
	require.NoError(t, err)
	require.Empty(t, leaks)
}

// requirePrivateKeyKnown makes a key known to the witness, and is sure that it is the right one.
func (m *mount) requirePrivateKeyKnown(t *testing.T, name string) {
	t.Helper()
	keys, err := m.privateKeys(t.Context(), name)
	require.NoError(t, err)
	require.Len(t, keys, 1)
	require.Equal(t, m.read(t, "keys/"+name).text(t, "public_key"), publicPEM(t, keys[0]))
	require.NoError(t, shared.witness.addPrivateKey(keys[0]))
}

func publicPEM(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// operation is one of the OpenAPI document.
type operation struct {
	method string
	path   string // with {name} in it
	query  url.Values
	fields []string // of its body
}

func (o operation) String() string { return o.method + " " + o.path }

// operations reads the mount's OpenAPI document; deletions come last.
func (m *mount) operations(t *testing.T) []operation {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.client.Address()+"/v1/"+m.path+"?help=1", http.NoBody)
	require.NoError(t, err)
	req.Header.Set("X-Vault-Token", m.client.Token())
	resp, err := m.client.CloneConfig().HttpClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	var help struct {
		OpenAPI openAPI `json:"openapi"`
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&help))
	var operations []operation
	for path, item := range help.OpenAPI.Paths {
		for _, method := range []string{"get", "post", "put", "patch", "delete", "head"} {
			if raw, found := item[method]; found {
				operations = append(operations, help.OpenAPI.operation(t, method, path, raw))
			}
		}
	}
	require.NotEmpty(t, operations)
	slices.SortFunc(operations, func(a, b operation) int {
		if aDeletes := a.method == http.MethodDelete; aDeletes != (b.method == http.MethodDelete) {
			if aDeletes {
				return 1
			}
			return -1
		}
		return strings.Compare(a.String(), b.String())
	})
	return operations
}

// openAPI is the part of an OpenAPI 3 document that says what may be called.
type openAPI struct {
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Schemas map[string]struct {
			Properties map[string]json.RawMessage `json:"properties"`
		} `json:"schemas"`
	} `json:"components"`
}

func (d *openAPI) operation(t *testing.T, method, path string, raw json.RawMessage) operation {
	t.Helper()
	var described struct {
		Parameters []struct {
			Name   string `json:"name"`
			In     string `json:"in"`
			Schema struct {
				Enum []string `json:"enum"`
			} `json:"schema"`
		} `json:"parameters"`
		RequestBody struct {
			Content map[string]struct {
				Schema struct {
					Ref string `json:"$ref"`
				} `json:"schema"`
			} `json:"content"`
		} `json:"requestBody"`
	}
	require.NoError(t, json.Unmarshal(raw, &described))
	o := operation{method: strings.ToUpper(method), path: strings.TrimPrefix(path, "/"), query: url.Values{}}
	for _, parameter := range described.Parameters {
		if parameter.In == "query" && len(parameter.Schema.Enum) == 1 { // list=true
			o.query.Set(parameter.Name, parameter.Schema.Enum[0])
		}
	}
	for _, content := range described.RequestBody.Content {
		schema := d.Components.Schemas[content.Schema.Ref[strings.LastIndex(content.Schema.Ref, "/")+1:]]
		o.fields = slices.Sorted(maps.Keys(schema.Properties))
	}
	return o
}

type request struct {
	path string
	body any
}

// validCalls has calls that succeed for every operation of the document.
func (m *mount) validCalls(t *testing.T, p *provider) map[string][]request {
	t.Helper()
	_, jwksID, _ := strings.Cut(m.read(t, "keys/published").text(t, "jwks_path"), "/jwks/")
	imported, _ := pem.Decode([]byte(pastedKey(t)))
	return map[string][]request{
		"GET config":         {{path: "config"}},
		"POST config":        {{"config", p.config}},
		"PATCH config":       {{"config", map[string]any{"max_retries": 1}}},
		"DELETE config":      {{path: "config"}},
		"GET keys/":          {{path: "keys/"}},
		"GET keys/{name}":    {{path: "keys/walked"}, {path: "keys/ed25519"}},
		"POST keys/{name}":   {{"keys/walked", map[string]any{"assertion_ttl": 50}}, {"keys/doomed", map[string]any{"type": "ed25519", "deletion_allowed": true}}},
		"PATCH keys/{name}":  {{"keys/walked", map[string]any{"assertion_ttl": nil}}},
		"DELETE keys/{name}": {{path: "keys/doomed"}},

		"POST keys/{name}/rotate":   {{path: "keys/walked/rotate"}, {path: "keys/rsa-2048/rotate"}, {path: "keys/published/rotate"}},
		"POST keys/{name}/activate": {{"keys/walked/activate", map[string]any{"force": true}}},
		"POST keys/{name}/destroy":  {{"keys/walked/destroy", map[string]any{"version": 1}}},
		"POST keys/{name}/import": {
			{"keys/imported/import", map[string]any{"private_key": pastedKey(t), "type": "ecdsa-p256"}},
			{"keys/unwrapped/import", map[string]any{"ciphertext": m.wrap(t, imported.Bytes), "hash_function": "SHA256"}},
		},
		"GET wrapping_key": {{path: "wrapping_key"}},
		"GET jwks/{id}":    {{path: "jwks/" + jwksID}, {path: "jwks/" + jwksID}},

		"GET roles/":           {{path: "roles/"}},
		"GET roles/{name}":     {{path: "roles/walked"}},
		"POST roles/{name}":    {{"roles/walked", map[string]any{"parameters": []string{"resource=https://api.example.com"}}}, {"roles/doomed", map[string]any{"key": "walked"}}},
		"PATCH roles/{name}":   {{"roles/walked", map[string]any{"parameters": nil}}},
		"DELETE roles/{name}":  {{path: "roles/doomed"}},
		"GET creds/{role}":     {{path: "creds/walked"}, {path: "creds/rsa-2048"}, {path: "creds/leased"}, {path: "creds/unleased"}, {path: "creds/shared"}},
		"GET assertion/{role}": {{path: "assertion/leased"}, {path: "assertion/shared"}},
		"GET check/{role}":     {{path: "check/walked"}, {path: "check/ecdsa-p521"}},
		"GET info":             {{path: "info"}},
	}
}

// callBadly calls an operation with whatever should not be there. Most of it is refused; all that counts is that nothing secret comes out.
func (m *mount) callBadly(t *testing.T, o operation) {
	t.Helper()
	for _, name := range []string{"spare", "missing", "a..b", strings.Repeat("x", 200)} {
		path := regexp.MustCompile(`\{\w+\}`).ReplaceAllString(o.path, name)
		m.do(t, o.method, path, o.query, nil)
		for _, parameter := range []string{"nonsense", "Version", "private_key"} {
			query := maps.Clone(o.query)
			query.Set(parameter, "1")
			m.do(t, o.method, path, query, map[string]any{parameter: "1"})
		}
		if name == "a..b" {
			continue // the name is refused before anything else
		}
		for _, field := range o.fields {
			for _, value := range badValues(t) {
				m.do(t, o.method, path, o.query, map[string]any{field: value})
			}
		}
	}
	m.do(t, http.MethodGet, regexp.MustCompile(`\{\w+\}`).ReplaceAllString(o.path, "spare"), url.Values{"help": {"1"}}, nil)
}

// badValues are wrong for most fields. A private key among them, PEM, is what a hurried user may paste anywhere.
func badValues(t *testing.T) []any {
	t.Helper()
	return []any{
		"junk", "", " ", nil, 5, -5, 5.7, true, []any{}, []any{"", 1}, map[string]any{"a": "b"}, strings.Repeat("long ", 4000), "\x00\x1b[31m", pastedKey(t), 1, 2,
	}
}

// pastedKey is a private key that is not Vault's.
func pastedKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	require.NoError(t, shared.witness.addPrivateKey(key))
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// TestHostileProviderGetsNoSecretOut has providers that send back what they were sent, wherever an error might quote it.
func TestHostileProviderGetsNoSecretOut(t *testing.T) {
	t.Parallel()
	m := newMount(t, map[string]any{"allow_insecure_endpoints": true, "max_retries": 1, "request_timeout": 1})
	for _, row := range hostileProviders() {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int64
			base := serve(t, func(w http.ResponseWriter, r *http.Request) {
				assertion := r.PostFormValue("client_assertion")
				if assertion != "" {
					sent.Add(1)
				}
				row.answer(w, r, assertion)
			})
			name := strings.ReplaceAll(row.name, " ", "-")
			m.write(t, "keys/"+name, map[string]any{
				"type": "rsa-2048", "client_id": "any", "issuer": base, "token_endpoint": base + "/token", "revocation_endpoint": base + "/revoke",
			})
			m.write(t, "roles/"+name, map[string]any{"scopes": "one"})
			got := m.do(t, http.MethodGet, "creds/"+name, nil, nil)
			require.Equal(t, row.status, got.status, got.errorText())
			m.fails(t, "read", "{mount}/creds/"+name)
			require.Equal(t, false, m.read(t, "check/"+name).data["ok"])
			require.Empty(t, shared.witness.leaks(func(where string) bool { return strings.Contains(where, m.path) && strings.Contains(where, name) }))
			require.NotZero(t, sent.Load(), "no assertion was there to send back")
		})
	}
}

// TestHostileProviderOfTokens gives tokens, and then shows them, or the assertion, where they do not belong.
func TestHostileProviderOfTokens(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name       string
		token      string // {random} is replaced
		scope      string // {assertion} is replaced
		revocation string // {token} and {assertion} are replaced
	}{
		{"JWT in the refusal of its revocation", "eyJhbGciOiJSUzI1NiJ9.eyJ{random}{random}.{random}{random}", "", "cannot revoke {token}"},
		{"opaque token in the refusal of its revocation", "{random}{random}", "", "cannot revoke {token}"},
		{"assertion in the refusal of a revocation", "{random}{random}", "", "cannot take {assertion}"},
		{"assertion for a scope", "{random}{random}", "{assertion}", ""},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			base := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				sent := strings.NewReplacer("{assertion}", r.PostFormValue("client_assertion"), "{token}", r.PostFormValue("token"), "{random}", rand.Text())
				answer := map[string]any{"access_token": sent.Replace(row.token), "token_type": "Bearer", "expires_in": 300, "scope": sent.Replace(row.scope)}
				if r.URL.Path == "/revoke" {
					w.WriteHeader(http.StatusBadRequest)
					answer = map[string]any{"error": "invalid_request", "error_description": sent.Replace(row.revocation)}
				}
				_ = json.NewEncoder(w).Encode(answer)
			})
			m := newMount(t, map[string]any{"allow_insecure_endpoints": true})
			m.write(t, "keys/myapi", map[string]any{
				"type": "rsa-2048", "client_id": "any", "issuer": base, "token_endpoint": base + "/token", "revocation_endpoint": base + "/revoke",
			})
			m.write(t, "roles/myapi", nil)
			m.do(t, http.MethodGet, "creds/myapi", nil, nil)
			m.read(t, "check/myapi")
			require.Empty(t, shared.witness.leaks(func(where string) bool { return strings.Contains(where, m.path) }))
		})
	}
}

type hostileProvider struct {
	name   string
	status int // of the answer to creds
	answer func(w http.ResponseWriter, r *http.Request, assertion string)
}

func hostileProviders() []hostileProvider {
	answerJSON := func(status int, members ...any) func(http.ResponseWriter, *http.Request, string) {
		return func(w http.ResponseWriter, _ *http.Request, assertion string) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			body := fields(members...)
			for name, value := range body {
				if text, ok := value.(string); ok {
					body[name] = strings.ReplaceAll(text, "{assertion}", assertion)
				}
			}
			_ = json.NewEncoder(w).Encode(body)
		}
	}
	answerText := func(status int, mediaType, text string) func(http.ResponseWriter, *http.Request, string) {
		return func(w http.ResponseWriter, _ *http.Request, assertion string) {
			w.Header().Set("Content-Type", strings.ReplaceAll(mediaType, "{assertion}", assertion))
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, strings.ReplaceAll(text, "{assertion}", assertion))
		}
	}
	return []hostileProvider{
		{"description", 400, answerJSON(400, "error", "invalid_client", "error_description", "could not verify {assertion}")},
		{"description without a boundary", 400, answerJSON(400, "error", "invalid_client", "error_description", "x{assertion}")},
		{"description in a path", 400, answerJSON(401, "error", "invalid_client", "error_description", "/{assertion}/")},
		{"error code", 400, answerJSON(400, "error", "{assertion}")},
		{"error and success at once", 400, answerJSON(200, "error", "{assertion}", "access_token", "{assertion}")},
		{"error uri", 400, answerJSON(400, "error", "invalid_client", "error_uri", "https://example.com/{assertion}")},
		{"unknown member", 502, answerJSON(200, "{assertion}", "x", "token_type", "Bearer", "whatever", "{assertion}")},
		{"token type", 502, answerJSON(200, "access_token", "token", "token_type", "{assertion}", "expires_in", 300)},
		{"expires in", 502, answerJSON(200, "access_token", "token", "token_type", "Bearer", "expires_in", "{assertion}")},
		{"expires in of a token", 502, answerJSON(200, "access_token", "{assertion}", "token_type", "Bearer", "expires_in", -1)},
		{"scope that is none", 502, answerJSON(200, "access_token", "token", "token_type", "Bearer", "expires_in", 300, "scope", "{assertion}\n")},
		{"page", 502, answerText(200, "text/html", "<html>{assertion}</html>")},
		{"page of an error", 502, answerText(500, "text/html", "<html>{assertion}</html>")},
		{"page of a busy server", 502, answerText(503, "text/plain", "{assertion}")},
		{"broken JSON", 502, answerText(200, "application/json", `{"access_token":"{assertion}"`)},
		{"duplicated members", 502, answerText(200, "application/json", `{"access_token":"{assertion}","access_token":"{assertion}"}`)},
		{"media type", 502, answerText(200, "text/{assertion}", "x")},
		{"media type of an error", 400, answerText(400, "text/{assertion}; charset={assertion}", "x")},
		{"redirect", 502, func(w http.ResponseWriter, _ *http.Request, assertion string) {
			w.Header().Set("Location", "https://"+assertion[:min(40, len(assertion))]+".example.com/"+assertion+"?a="+assertion)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}},
		{"headers", 502, func(w http.ResponseWriter, _ *http.Request, assertion string) {
			for _, name := range []string{"Date", "Retry-After", "Content-Encoding", "Server", "Www-Authenticate", "X-Request-Id"} {
				w.Header().Set(name, assertion)
			}
			w.WriteHeader(http.StatusBadGateway)
		}},
		{"no HTTP", 502, func(w http.ResponseWriter, _ *http.Request, assertion string) {
			hijack(w, assertion+" "+assertion+"\r\n\r\n")
		}},
		{"broken header", 502, func(w http.ResponseWriter, _ *http.Request, assertion string) {
			hijack(w, "HTTP/1.1 200 OK\r\n"+assertion+"\r\n\r\n")
		}},
		{"broken length", 502, func(w http.ResponseWriter, _ *http.Request, assertion string) {
			hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: "+assertion+"\r\n\r\n")
		}},
		{"broken status", 502, func(w http.ResponseWriter, _ *http.Request, assertion string) {
			hijack(w, "HTTP/1.1 "+assertion+" OK\r\n\r\n")
		}},
		{"cut body", 502, func(w http.ResponseWriter, _ *http.Request, assertion string) {
			hijack(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"+assertion)
		}},
		{"silence", 504, func(_ http.ResponseWriter, r *http.Request, _ string) {
			select {
			case <-r.Context().Done():
			case <-time.After(time.Minute):
			}
		}},
	}
}

// hijack answers with bytes that need not be HTTP, and hangs up.
func hijack(w http.ResponseWriter, raw string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_, _ = conn.Write([]byte(raw))
	_ = conn.Close()
}
