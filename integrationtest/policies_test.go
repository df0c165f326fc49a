package integrationtest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

const examplePolicies = "../docs/examples/policies"

// TestPolicyExamples tries every operation of the engine with each of the example policies, as they stand, and holds the answers to the table in their README.
func TestPolicyExamples(t *testing.T) {
	t.Parallel()
	table := readPolicyTable(t)
	files, err := filepath.Glob(examplePolicies + "/*.hcl")
	require.NoError(t, err)
	require.Len(t, files, len(table.personas), "policies, and columns of the table")

	m := policyMount(t)
	p := embeddedProvider(t)
	m.write(t, "config", p.config)
	m.newClient(t, p, "myapi", nil)
	m.newClient(t, p, "other", nil)
	m.newClient(t, p, "spare", nil)
	m.write(t, "roles/myapi-one", map[string]any{"key": "myapi"})

	attempts := m.attempts(t)
	requireSamePaths(t, table, attempts)
	for _, persona := range table.personas {
		t.Run(persona, func(t *testing.T) {
			t.Parallel()
			as := m.withPolicy(t, persona)
			for _, a := range attempts {
				target, body := a.target(persona)
				status := as.do(t, a.method, target, a.query, body).status
				allowed := slices.Contains(table.rows[a.path][persona], a.capability)
				require.Equal(t, allowed, status != http.StatusForbidden, "%s %s as %s: %d", a.capability, target, persona, status)
			}
		})
	}
	t.Run("reader of another role", func(t *testing.T) {
		t.Parallel()
		m.withPolicy(t, "reader").isRefused(t, http.MethodGet, "creds/other", nil)
	})
	t.Run("role author and the keys", func(t *testing.T) {
		t.Parallel()
		testRoleAuthorGetsNoToken(t, m)
	})
	t.Run("role author of a team and other keys", func(t *testing.T) {
		t.Parallel()
		testRoleAuthorOfTeam(t, m)
	})
	t.Run("operator and the life of a key", func(t *testing.T) {
		t.Parallel()
		testOperator(t, m, p)
	})
}

// policyMount mounts the plugin where the policies say, so that they can be used as they stand.
func policyMount(t *testing.T) *mount {
	t.Helper()
	m := unmounted(t, "bcgov-jwt")
	m.succeeds(t, "secrets", "enable", "-path={mount}", pluginName)
	m.adopt(t)
	return m
}

// withPolicy is the mount as somebody sees it who has one of the example policies.
func (m *mount) withPolicy(t *testing.T, persona string) *mount {
	t.Helper()
	policy := "example-" + persona + "-" + strings.ToLower(rand.Text())
	m.succeeds(t, "policy", "write", policy, filepath.Join(examplePolicies, persona+".hcl"))
	t.Cleanup(func() {
		if err := m.client.Sys().DeletePolicyWithContext(context.WithoutCancel(t.Context()), policy); err != nil {
			t.Error(err)
		}
	})
	token, err := m.client.Auth().Token().Create(&api.TokenCreateRequest{Policies: []string{policy}})
	require.NoError(t, err)
	return m.with(t, token.Auth.ClientToken)
}

// with is the mount as the owner of this Vault token sees it.
func (m *mount) with(t *testing.T, token string) *mount {
	t.Helper()
	client, err := m.client.Clone()
	require.NoError(t, err)
	client.SetToken(token)
	return &mount{path: m.path, uuid: m.uuid, client: client}
}

func (m *mount) isRefused(t *testing.T, method, path string, body any) {
	t.Helper()
	got := m.do(t, method, path, nil, body)
	require.Equal(t, http.StatusForbidden, got.status, "%s %s %v: %s", method, path, body, got.errorText())
}

// policyTable is the table in the README: for each path and persona, the capabilities.
type policyTable struct {
	personas []string
	rows     map[string]map[string][]string
}

func readPolicyTable(t *testing.T) policyTable {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join(examplePolicies, "README.md"))
	require.NoError(t, err)
	table := policyTable{rows: map[string]map[string][]string{}}
	for line := range strings.Lines(string(readme)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		switch {
		case strings.HasPrefix(line, "| Path |"):
			for _, cell := range cells[1:] {
				persona, _, _ := strings.Cut(strings.Trim(cell, " ["), "]")
				table.personas = append(table.personas, persona)
			}
		case strings.HasPrefix(line, "| `"):
			require.Len(t, cells, 1+len(table.personas), line)
			row := map[string][]string{}
			for i, cell := range cells[1:] {
				row[table.personas[i]] = strings.Fields(cell)
			}
			table.rows[strings.Trim(cells[0], " `")] = row
		}
	}
	require.NotEmpty(t, table.rows)
	return table
}

// attempt is a request that tries one capability on one path of the engine.
type attempt struct {
	capability string
	path       string // as the documentation writes it, such as keys/:name
	method     string
	query      url.Values
}

// attempts are made of the engine's own OpenAPI document, so that a new path is among them.
func (m *mount) attempts(t *testing.T) []attempt {
	t.Helper()
	var attempts []attempt
	for _, o := range m.operations(t) {
		path := regexp.MustCompile(`\{(\w+)\}`).ReplaceAllString(strings.TrimSuffix(o.path, "/"), ":$1")
		for _, capability := range capabilitiesFor(o, path) {
			attempts = append(attempts, attempt{capability: capability, path: path, method: o.method, query: o.query})
		}
	}
	return attempts
}

// capabilitiesFor are those that Vault asks for: a write needs another one where there is nothing yet.
func capabilitiesFor(o operation, path string) []string {
	switch {
	case o.query.Get("list") == "true":
		return []string{"list"}
	case o.method == http.MethodPost && (path == "keys/:name" || path == "roles/:name"):
		return []string{"create", "update"}
	case o.method == http.MethodPost:
		return []string{"update"}
	case o.method == http.MethodGet:
		return []string{"read"}
	default:
		return []string{strings.ToLower(o.method)} // PATCH, DELETE
	}
}

// requireSamePaths wants the table to have the engine's paths, and only capabilities that they have.
func requireSamePaths(t *testing.T, table policyTable, attempts []attempt) {
	t.Helper()
	possible := map[string][]string{}
	for _, a := range attempts {
		possible[a.path] = append(possible[a.path], a.capability)
	}
	require.Equal(t, slices.Sorted(maps.Keys(possible)), slices.Sorted(maps.Keys(table.rows)), "the engine's paths, and those in the README's table")
	for path, row := range table.rows {
		for persona, capabilities := range row {
			require.Subset(t, possible[path], capabilities, "%s of %s", path, persona)
		}
	}
}

// target is where and what a persona tries. What is made or deleted is nobody else's.
func (a attempt) target(persona string) (path string, body any) {
	name := "spare"
	switch {
	case persona == "reader":
		name = "myapi"
	case a.capability == "create" || a.capability == "delete":
		name = "myapi-" + persona
	case persona == "role-author-of-team":
		name = "myapi-one"
	}
	if a.path == "roles/:name" && a.method != http.MethodGet && a.method != http.MethodDelete {
		body = map[string]any{"key": "myapi"}
	}
	path = strings.NewReplacer(":name", name, ":role", name, ":id", "no-such-id").Replace(a.path)
	if a.capability == "list" {
		path += "/"
	}
	return path, body
}

// testRoleAuthorGetsNoToken: a role for the key of somebody else is a role like any other, and its token is as far away.
func testRoleAuthorGetsNoToken(t *testing.T, m *mount) {
	t.Helper()
	author := m.withPolicy(t, "role-author")
	author.write(t, "roles/mine", map[string]any{"key": "other"})
	require.Equal(t, true, author.read(t, "check/mine").data["ok"])
	author.isRefused(t, http.MethodGet, "creds/mine", nil)
	author.isRefused(t, http.MethodGet, "assertion/mine", nil)
	author.isRefused(t, http.MethodGet, "keys/other", nil)
	author.isRefused(t, http.MethodPost, "keys/mine", nil)
	author.delete(t, "roles/mine")
}

// testRoleAuthorOfTeam has the ways in which a role might come by another team's key. Some pass the policy, and lead nowhere.
func testRoleAuthorOfTeam(t *testing.T, m *mount) {
	t.Helper()
	author := m.withPolicy(t, "role-author-of-team")
	author.write(t, "roles/myapi-mine", map[string]any{"key": "myapi", "scopes": "read"})
	author.write(t, "roles/myapi-mine", map[string]any{"scopes": ""})
	require.Equal(t, true, author.read(t, "check/myapi-mine").data["ok"])
	m.write(t, "keys/myapi-named", map[string]any{"type": "ed25519"})

	for _, body := range []map[string]any{
		{"key": "other"}, {"Key": "other"}, {"KEY": "other", "key": "myapi"}, {"key": []string{"other"}}, {"key": "myapi,other"}, {"key": nil}, {"key": 1},
	} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch} {
			author.isRefused(t, method, "roles/myapi-mine", body)
		}
		author.isRefused(t, http.MethodPost, "roles/myapi-named", body)
	}
	for _, body := range []map[string]any{
		{}, {"key": ""}, {"key": " "}, {"key": []string{}}, {"key": []string{"myapi"}}, {"name": "other"}, {"key": "myapi-/../other"},
	} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch} {
			for _, role := range []string{"myapi-mine", "myapi-named"} {
				author.do(t, method, "roles/"+role, url.Values{"key": {"other"}}, body)
				if got := m.do(t, http.MethodGet, "roles/"+role, nil, nil); got.status != http.StatusNotFound {
					require.Contains(t, []string{"myapi", "myapi-named"}, got.text(t, "key"), "%s %s %v", method, role, body)
				}
			}
		}
	}
	require.Equal(t, "myapi-named", m.read(t, "roles/myapi-named").text(t, "key"), "none of these writes was one")

	author.isRefused(t, http.MethodPost, "roles/myapi", map[string]any{"key": "myapi"})
	author.isRefused(t, http.MethodPost, "roles/other", map[string]any{"key": "myapi"})
	author.isRefused(t, http.MethodDelete, "roles/other", nil)
	author.isRefused(t, http.MethodGet, "check/other", nil)
	author.isRefused(t, http.MethodGet, "creds/myapi-mine", nil)
}

// testOperator walks through the life of a key with the operator's policy alone, and tries to get hold of an assertion on the way.
func testOperator(t *testing.T, m *mount, p *provider) {
	t.Helper()
	operator := m.withPolicy(t, "operator")
	clientID := newClientID()
	p.register(t, clientID, operator.write(t, "keys/operated", nil).text(t, "public_key"))
	operator.write(t, "keys/operated", map[string]any{"client_id": clientID, "issuer": p.issuer})
	m.write(t, "roles/operated", nil) // which a role author does
	require.Equal(t, true, operator.read(t, "check/operated").data["ok"])

	p.register(t, clientID, operator.write(t, "keys/operated/rotate", nil).text(t, "public_key"))
	require.Equal(t, 2, operator.write(t, "keys/operated/activate", nil).number(t, "active_version"))
	m.showKeysNow(t)
	operator.write(t, "keys/operated/destroy", map[string]any{"version": 1})

	for _, field := range []string{"token_endpoint", "revocation_endpoint", "audience", "Token_Endpoint"} {
		for _, method := range []string{http.MethodPost, http.MethodPatch} {
			operator.isRefused(t, method, "keys/operated", map[string]any{field: "https://attacker.example.com"})
		}
		operator.isRefused(t, http.MethodPost, "keys/forged", map[string]any{field: "https://attacker.example.com"})
	}
	operator.isRefused(t, http.MethodGet, "creds/operated", nil)
	operator.isRefused(t, http.MethodGet, "assertion/operated", nil)
	requireUselessAssertion(t, m, operator, p)
	operator.write(t, "keys/operated", map[string]any{"disabled": true})
}

// requireUselessAssertion has the operator point a registered key at an issuer of their own, which is sent an assertion. It is good for that issuer only.
func requireUselessAssertion(t *testing.T, m, operator *mount, p *provider) {
	t.Helper()
	captured := make(chan string, 1)
	var issuer string
	issuer = serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodPost {
			select {
			case captured <- r.PostFormValue("client_assertion"):
			default: // one is enough
			}
		}
		fmt.Fprintf(w, `{"issuer": %q, "token_endpoint": %q}`, issuer, issuer+"/token")
	})
	m.write(t, "config", map[string]any{
		"allow_insecure_endpoints": true, "allowed_hosts": p.config["allowed_hosts"].(string) + "," + strings.TrimPrefix(issuer, "http://"),
	})
	registered := operator.read(t, "keys/operated")
	operator.write(t, "keys/operated", map[string]any{"issuer": issuer})
	require.Equal(t, false, operator.read(t, "check/operated").data["ok"])

	resp, err := p.httpClient(t).PostForm(p.tokenEndpoint(), url.Values{
		"grant_type": {"client_credentials"}, "client_id": {registered.text(t, "client_id")}, "client_assertion": {<-captured},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	})
	require.NoError(t, err)
	defer resp.Body.Close()
	var refusal struct {
		Description string `json:"error_description"`
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&refusal))
	require.Equal(t, "Invalid token audience", refusal.Description)
}

// httpClient trusts the provider's certificate.
func (p *provider) httpClient(t *testing.T) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	require.True(t, roots.AppendCertsFromPEM([]byte(p.config["ca_cert"].(string))))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
