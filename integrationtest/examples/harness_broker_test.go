package examples

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// brokerToken is the token of an action that the broker has started.
const brokerToken = "token-of-the-action"

// broker stands for NR Broker: it provisions wrapped secret_ids of a Vault that has AppRole where
// NR's has it.
type broker struct {
	m      *harness.Mount
	url    string
	roleID string

	mu      sync.Mutex
	wrapped []string // all so far
}

func newBroker(t *testing.T, provider *harness.Provider) *broker {
	t.Helper()
	b := &broker{m: harness.NewMount(t, provider.Config)}
	b.m.NewClient(t, provider, "myapi", nil)
	b.m.WritePolicy(t, b.m.Path, b.m.Expand(`
		path "{mount}/creds/myapi" { capabilities = ["read"] }
		path "{mount}/creds/missing" { capabilities = ["read"] }`))
	options := &api.EnableAuthOptions{Type: "approle"}
	sys := b.m.Client.Sys()
	require.NoError(t, sys.EnableAuthWithOptionsWithContext(t.Context(), b.m.Path, options))
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		assert.NoError(t, sys.DisableAuthWithContext(ctx, b.m.Path))
	})
	logical := b.m.Client.Logical()
	_, err := logical.WriteWithContext(t.Context(), b.role(), map[string]any{
		"token_policies": b.m.Path, "secret_id_num_uses": 1,
	})
	require.NoError(t, err)
	id := harness.ReadSecret(t, b.m.Client, b.role()+"/role-id")
	b.roleID = id.Data["role_id"].(string)
	server := httptest.NewServer(http.HandlerFunc(b.provision))
	t.Cleanup(server.Close)
	b.url = server.URL
	return b
}

func (b *broker) role() string { return "auth/" + b.m.Path + "/role/myapp" }

func (b *broker) provision(w http.ResponseWriter, r *http.Request) {
	isProvision := r.Method == http.MethodPost && r.URL.Path == "/v1/provision/approle/secret-id"
	switch {
	case !isProvision:
		http.NotFound(w, r)
	case r.Header.Get("X-Broker-Token") != brokerToken || r.Header.Get("X-Vault-Role-Id") != b.roleID:
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprint(w, `{"statusCode":403,"message":"Forbidden resource","error":"Forbidden"}`)
	default:
		b.sendWrapped(w, r)
	}
}

func (b *broker) sendWrapped(w http.ResponseWriter, r *http.Request) {
	client, err := b.m.Client.Clone()
	if err == nil {
		client.SetToken(b.m.Client.Token())
		client.SetWrappingLookupFunc(func(string, string) string { return "1m" })
	}
	secret, err := client.Logical().WriteWithContext(r.Context(), b.role()+"/secret-id", nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrapped = append(b.wrapped, secret.WrapInfo.Token)
	_ = json.NewEncoder(w).Encode(map[string]any{"wrap_info": secret.WrapInfo})
}

// run runs broker.sh with a command, which obtains a token of a role.
func (b *broker) run(
	t *testing.T, role string, environment []string, command ...string,
) harness.CommandResult {
	t.Helper()
	commands := recordCurl(t)
	args := append([]string{example("openshift/broker.sh"), b.m.Path + "/creds/" + role}, command...)
	result := runScript(t, append([]string{
		"PATH=" + filepath.Dir(commands) + ":" + os.Getenv("PATH"),
		"VAULT_ADDR=" + harness.Vault().URL(), "APPROLE=" + b.m.Path,
		"BROKER_URL=" + b.url, "BROKER_TOKEN=" + brokerToken, "ROLE_ID=" + b.roleID,
	}, environment...), args...)
	recorded, err := os.ReadFile(commands)
	require.True(t, err == nil || os.IsNotExist(err)) // it may have run none
	printed := result.Stdout + result.Stderr
	harness.Detector().Record("the output of broker.sh", printed)
	harness.Detector().Record("the command lines of broker.sh", string(recorded))
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, secret := range append(b.wrapped, brokerToken) {
		require.NotContains(t, printed+string(recorded), secret)
	}
	return result
}

// requireNothingLeft requires that neither an access token's lease nor a Vault token remains. Vault
// ends a revoked token's leases a moment later.
func (b *broker) requireNothingLeft(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		logins, err := b.m.Client.Logical().ListWithContext(t.Context(),
			"sys/leases/lookup/auth/"+b.m.Path+"/login")
		return err == nil && logins == nil && len(b.m.Leases(t, "myapi")) == 0
	}, 10*time.Second, 20*time.Millisecond)
}
