package security

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

func policyFile(name string) string {
	return harness.InRepository("docs/examples/policies/" + name)
}

// withPolicy returns the mount as the owner of example policies uses it.
func withPolicy(t *testing.T, m *harness.Mount, personas ...string) *harness.Mount {
	t.Helper()
	var policies []string
	for _, persona := range personas {
		policy := "example-" + persona + "-" + strings.ToLower(rand.Text())
		m.MustRun(t, "policy", "write", policy, policyFile(persona+".hcl"))
		m.DeletePolicyAfterTest(t, policy)
		policies = append(policies, policy)
	}
	if slices.Contains(personas, "reader-by-identity") {
		return asEntity(t, m, "myapi", policies[0])
	}
	return m.AsNewToken(t, api.TokenCreateRequest{Policies: policies})
}

// asEntity returns the mount as an entity of this name uses it.
func asEntity(t *testing.T, m *harness.Mount, name, policy string) *harness.Mount {
	t.Helper()
	path := "userpass-" + strings.ToLower(rand.Text())
	m.MustRun(t, "auth", "enable", "-path="+path, "userpass")
	t.Cleanup(func() { assert.NoError(t, m.Client.Sys().DisableAuth(path)) })
	accessor := m.MustRun(t, "read", "-field=accessor", "sys/auth/"+path)
	m.MustRun(t, "write", "identity/entity", "name="+name)
	id := m.MustRun(t, "read", "-field=id", "identity/entity/name/"+name)
	m.MustRun(t, "write", "identity/entity-alias", "name=user", "canonical_id="+strings.TrimSpace(id),
		"mount_accessor="+strings.TrimSpace(accessor))
	m.MustRun(t, "write", "auth/"+path+"/users/user", "password=p", "token_policies="+policy)
	token := m.MustRun(t, "write", "-field=token", "auth/"+path+"/login/user", "password=p")
	return m.As(t, strings.TrimSpace(token))
}

// policyTable is the table in the README: the capabilities of each persona on each path.
type policyTable struct {
	personas []string
	rows     map[string]map[string][]string
}

func readPolicyTable(t *testing.T) policyTable {
	t.Helper()
	readme, err := os.ReadFile(policyFile("README.md"))
	require.NoError(t, err)
	table := policyTable{rows: map[string]map[string][]string{}}
	for line := range strings.Lines(string(readme)) {
		_, row, _ := strings.Cut(strings.TrimSpace(line), "|")
		cells := strings.Split(strings.TrimSuffix(row, "|"), "|")
		switch {
		case strings.HasPrefix(line, "| Path |"):
			for _, cell := range cells[1:] {
				persona, _, _ := strings.Cut(strings.Trim(cell, " ["), "]")
				table.personas = append(table.personas, persona)
			}
		case strings.HasPrefix(line, "| `"):
			require.Len(t, cells, 1+len(table.personas), line)
			allowed := map[string][]string{}
			for i, cell := range cells[1:] {
				allowed[table.personas[i]] = strings.Fields(cell)
			}
			table.rows[strings.Trim(cells[0], " `")] = allowed
		}
	}
	require.NotEmpty(t, table.rows)
	return table
}

// attempt is a request that tries one capability on one path of the engine.
type attempt struct {
	capability string
	path       string // as in the documentation, such as keys/:name
	method     string
	query      url.Values
}

// attemptsOf derives attempts from the engine's own OpenAPI document, so that they cover a new
// path.
func attemptsOf(t *testing.T, m *harness.Mount) (attempts []attempt) {
	t.Helper()
	placeholder := regexp.MustCompile(`\{(\w+)\}`)
	for _, o := range m.Operations(t) {
		path := placeholder.ReplaceAllString(strings.TrimSuffix(o.Path, "/"), ":$1")
		for _, capability := range capabilitiesFor(o, path) {
			attempts = append(attempts, attempt{capability, path, o.Method, o.Query})
		}
	}
	return attempts
}

// capabilitiesFor returns those that Vault requires: a write that creates an entry needs another
// one.
func capabilitiesFor(o harness.Operation, path string) []string {
	switch {
	case o.Query.Get("list") == "true":
		return []string{"list"}
	case o.Method == http.MethodPost && (path == "keys/:name" || path == "roles/:name"):
		return []string{"create", "update"}
	case o.Method == http.MethodPost:
		return []string{"update"}
	case o.Method == http.MethodGet:
		return []string{"read"}
	default:
		return []string{strings.ToLower(o.Method)} // PATCH, DELETE
	}
}

// requireSamePaths requires that the table has the engine's paths, and only capabilities that they
// have.
func requireSamePaths(t *testing.T, table policyTable, attempts []attempt) {
	t.Helper()
	possible := map[string][]string{}
	for _, a := range attempts {
		possible[a.path] = append(possible[a.path], a.capability)
	}
	require.Equal(t, slices.Sorted(maps.Keys(possible)), slices.Sorted(maps.Keys(table.rows)),
		"the engine's paths, and those in the README's table")
	for path, row := range table.rows {
		for persona, capabilities := range row {
			require.Subset(t, possible[path], capabilities, "%s of %s", path, persona)
		}
	}
}

// target returns the path and the body that a persona sends. What it creates or deletes is its own.
func (a attempt) target(persona string) (path string, body any) {
	name := "spare"
	switch {
	case persona == "reader", persona == "reader-by-identity":
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

// testRoleAuthorObtainsNoToken: the author of a role can obtain its token no more than that of any
// other role, whoever owns the key.
func testRoleAuthorObtainsNoToken(t *testing.T, m *harness.Mount) {
	t.Helper()
	author := withPolicy(t, m, "role-author")
	author.Write(t, "roles/mine", map[string]any{"key": "other"})
	require.Equal(t, true, author.Read(t, "check/mine").Data["ok"])
	author.RequireForbidden(t, http.MethodGet, "creds/mine", nil)
	author.RequireForbidden(t, http.MethodGet, "assertion/mine", nil)
	author.RequireForbidden(t, http.MethodGet, "keys/other", nil)
	author.RequireForbidden(t, http.MethodPost, "keys/mine", nil)
	author.Delete(t, "roles/mine")
}

// testRoleAuthorOfTeam has the ways in which a role might use another team's key. Some pass the
// policy, and have no effect.
func testRoleAuthorOfTeam(t *testing.T, m *harness.Mount) {
	t.Helper()
	author := withPolicy(t, m, "role-author-of-team")
	author.Write(t, "roles/myapi-mine", map[string]any{"key": "myapi", "scopes": "read"})
	author.Write(t, "roles/myapi-mine", map[string]any{"scopes": ""})
	require.Equal(t, true, author.Read(t, "check/myapi-mine").Data["ok"])
	m.Write(t, "keys/myapi-named", map[string]any{"type": "ed25519"})

	for _, body := range []map[string]any{
		{"key": "other"},
		{"Key": "other"},
		{"KEY": "other", "key": "myapi"},
		{"key": []string{"other"}},
		{"key": "myapi,other"},
		{"key": nil},
		{"key": 1},
	} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch} {
			author.RequireForbidden(t, method, "roles/myapi-mine", body)
		}
		author.RequireForbidden(t, http.MethodPost, "roles/myapi-named", body)
	}
	for _, body := range []map[string]any{
		{},
		{"key": ""},
		{"key": " "},
		{"key": []string{}},
		{"key": []string{"myapi"}},
		{"name": "other"},
		{"key": "myapi-/../other"},
	} {
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch} {
			for _, role := range []string{"myapi-mine", "myapi-named"} {
				author.Do(t, method, "roles/"+role, url.Values{"key": {"other"}}, body)
				got := m.Do(t, http.MethodGet, "roles/"+role, nil, nil)
				if got.Status != http.StatusNotFound {
					require.Contains(t, []string{"myapi", "myapi-named"}, got.Text(t, "key"),
						"%s %s %v", method, role, body)
				}
			}
		}
	}
	require.Equal(t, "myapi-named", m.Read(t, "roles/myapi-named").Text(t, "key"),
		"none of these writes had an effect")

	author.RequireForbidden(t, http.MethodPost, "roles/myapi", map[string]any{"key": "myapi"})
	author.RequireForbidden(t, http.MethodPost, "roles/other", map[string]any{"key": "myapi"})
	author.RequireForbidden(t, http.MethodDelete, "roles/other", nil)
	author.RequireForbidden(t, http.MethodGet, "check/other", nil)
	author.RequireForbidden(t, http.MethodGet, "creds/myapi-mine", nil)
}

// testOperator takes a key through its whole life with the policies of an operator and a registrar,
// and tries to obtain an assertion on the way.
func testOperator(t *testing.T, m *harness.Mount, p *harness.Provider) {
	t.Helper()
	operator, registrar := withPolicy(t, m, "operator"), withPolicy(t, m, "registrar")
	clientID := harness.NewClientID()
	p.Register(t, clientID, operator.Write(t, "keys/operated", nil).Text(t, "public_key"))
	registration := map[string]any{"client_id": clientID, "issuer": p.Issuer}
	operator.RequireForbidden(t, http.MethodPost, "keys/operated", registration)
	registrar.Write(t, "keys/operated", registration)
	m.Write(t, "roles/operated", nil) // which a role author does
	require.Equal(t, true, registrar.Read(t, "check/operated").Data["ok"])

	p.Register(t, clientID, operator.Write(t, "keys/operated/rotate", nil).Text(t, "public_key"))
	require.Equal(t, 2,
		operator.Write(t, "keys/operated/activate", nil).Number(t, "active_version"))
	m.RecordPrivateKeys(t)
	operator.Write(t, "keys/operated/destroy", map[string]any{"version": 1})
	require.Equal(t, true, operator.Read(t, "check/operated").Data["ok"])

	both := withPolicy(t, m, "operator", "registrar", "role-author")
	for _, persona := range []*harness.Mount{operator, registrar, both} {
		requireNoTokenFrom(t, persona)
	}
	registrar.RequireForbidden(t, http.MethodPost, "keys/operated", map[string]any{"disabled": true})
	both.Write(t, "keys/owned", nil)
	both.Write(t, "keys/owned", map[string]any{"client_id": clientID, "issuer": p.Issuer})
	both.Write(t, "keys/owned", map[string]any{"overlap_period": "48h", "allowed_roles": "owned"})
	both.Write(t, "roles/owned", nil)
	requireUselessAssertion(t, m, registrar, p)
	operator.Write(t, "keys/operated", map[string]any{"disabled": true})
}

// requireNoTokenFrom has ways in which an owner of a key might obtain a token of a registered one.
func requireNoTokenFrom(t *testing.T, persona *harness.Mount) {
	t.Helper()
	for _, field := range []string{
		"token_endpoint", "revocation_endpoint", "audience", "Token_Endpoint",
	} {
		forged := map[string]any{field: "https://attacker.example.com"}
		for _, method := range []string{http.MethodPost, http.MethodPatch} {
			persona.RequireForbidden(t, method, "keys/operated", forged)
		}
		persona.RequireForbidden(t, http.MethodPost, "keys/forged", forged)
	}
	persona.RequireForbidden(t, http.MethodGet, "creds/operated", nil)
	persona.RequireForbidden(t, http.MethodGet, "assertion/operated", nil)
}

// requireUselessAssertion has the registrar point a registered key at an issuer of their own, which
// receives an assertion. That is valid for this issuer only.
func requireUselessAssertion(t *testing.T, m, registrar *harness.Mount, p *harness.Provider) {
	t.Helper()
	captured := make(chan string, 1)
	var issuer string
	issuer = harness.Serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Method == http.MethodPost {
			select {
			case captured <- r.PostFormValue("client_assertion"):
			default: // one is enough
			}
		}
		fmt.Fprintf(w, `{"issuer": %q, "token_endpoint": %q}`, issuer, issuer+"/token")
	})
	hosts := p.Config["allowed_hosts"].(string) + "," + strings.TrimPrefix(issuer, "http://")
	m.Write(t, "config", map[string]any{"allow_insecure_endpoints": true, "allowed_hosts": hosts})
	registered := registrar.Read(t, "keys/operated")
	registrar.Write(t, "keys/operated", map[string]any{"issuer": issuer})
	require.Equal(t, false, registrar.Read(t, "check/operated").Data["ok"])

	resp := p.PostAssertion(t, registered.Text(t, "client_id"), <-captured)
	defer resp.Body.Close()
	var rejection struct {
		Description string `json:"error_description"`
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&rejection))
	require.Equal(t, "Invalid token audience", rejection.Description)
}
