// Package provider runs the identity providers that the tests know, each of them the real one, and
// administers all of them in one way.
package provider

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/program"
)

// Provider is a running identity provider.
type Provider interface {
	// Issuer returns the issuer identifier, below which is the discovery document.
	Issuer() string
	TokenEndpoint() string
	RevocationEndpoint() string
	// Audience returns the one that assertions need.
	Audience() string
	// PutClient registers a client, or replaces the one of its ID.
	PutClient(ctx context.Context, client Client) error
	// IsActive returns what introspection (RFC 7662) says about a token.
	IsActive(ctx context.Context, token string) (bool, error)
}

// KeySettings returns what the engine's key of a client needs besides the client's ID.
func KeySettings(p Provider) map[string]any {
	settings := map[string]any{
		"issuer": p.Issuer(), "revocation_endpoint": p.RevocationEndpoint(),
	}
	if audience := p.Audience(); audience != p.Issuer() {
		settings["audience"], settings["token_endpoint"] = audience, p.TokenEndpoint()
	}
	return settings
}

// Client is a client of the client credentials grant.
type Client struct {
	ID string
	// PublicKey is the one registered key, as PEM, unless the keys are at JWKSURL. A client with
	// neither has an empty key set.
	PublicKey string
	JWKSURL   string
	// Algorithm is the only one of its assertions; if empty, what the provider has as its default.
	Algorithm string
	// Secret is set for a client that authenticates with it instead.
	Secret string
	// TokenLifetime is how long its access tokens live; if zero, the provider's default.
	TokenLifetime time.Duration
}

// Scopes that oidc-provider and Hydra know: a client may request one of them.
const (
	Scope         = "read"
	ScopeRejected = "write"
)

// Names of the providers, as EnvNames lists them.
const (
	OIDCProvider = "oidc-provider"
	// OIDCProviderRS256 lists no algorithm but RS256.
	OIDCProviderRS256 = "oidc-provider-rs256"
	// OIDCProviderSecrets offers no method of authentication but a secret.
	OIDCProviderSecrets = "oidc-provider-secrets"
	Hydra               = "hydra"
	Keycloak            = "keycloak" // of the version that scripts/keycloak.sh selects
)

// EnvNames is the environment variable with the names of the providers to test with, separated by
// spaces.
const EnvNames = "PROVIDERS"

// Names returns the names that EnvNames lists, by default oidc-provider.
func Names() []string {
	if names := strings.Fields(os.Getenv(EnvNames)); len(names) > 0 {
		return names
	}
	return []string{OIDCProvider}
}

// kind is how a provider is started and reached.
type kind struct {
	start func(ctx context.Context, issuer string) (*program.Server, error)
	// at returns the provider of a server that is reached at a base URL.
	at func(ctx context.Context, server *program.Server, baseURL string) (Provider, error)
}

func kindOf(name string) (kind, error) {
	switch name {
	case OIDCProvider:
		return oidcProviderKind(), nil
	case OIDCProviderRS256:
		return oidcProviderKind("ALGORITHMS=RS256"), nil
	case OIDCProviderSecrets:
		return oidcProviderKind("METHODS=client_secret_basic"), nil
	case Hydra:
		return kind{run(program.Script{Name: "hydra.sh", Ready: "/health/ready"}), hydraAt}, nil
	case Keycloak:
		return kind{startKeycloak, keycloakAt}, nil
	default:
		return kind{}, fmt.Errorf("%s: no provider has the name %q", EnvNames, name)
	}
}

func oidcProviderKind(environment ...string) kind {
	return kind{run(program.Script{
		Name: "oidc-provider.sh", Ready: "/.well-known/openid-configuration",
		Environment: environment,
	}), oidcProviderAt}
}

// run runs a program that must be told its issuer.
func run(script program.Script) func(context.Context, string) (*program.Server, error) {
	return func(ctx context.Context, issuer string) (*program.Server, error) {
		script.Environment = append(script.Environment, "ISSUER="+issuer)
		return script.Start(ctx)
	}
}

// Running is a provider that Start started.
type Running struct {
	Provider

	front  *front
	server *program.Server
}

// Stop stops it.
func (r *Running) Stop() error {
	r.front.close()
	return r.server.Stop()
}

// ForTest is Start for a test and its subtests. If the provider is not available it skips the test,
// or fails it with CI=true.
func ForTest(
	t testing.TB, name string, observe func(http.Handler) http.Handler,
) *Running {
	t.Helper()
	running, err := Start(t.Context(), name, observe)
	program.Require(t, err)
	t.Cleanup(func() {
		if err := running.Stop(); err != nil {
			t.Error(err)
		}
	})
	return running
}

// Start starts a provider; program.ErrUnavailable means that this machine cannot run it. What
// passes at the issuer's address passes through observe, unless that is nil. The provider outlives
// ctx; the caller stops it.
func Start(
	ctx context.Context, name string, observe func(http.Handler) http.Handler,
) (*Running, error) {
	k, err := kindOf(name)
	if err != nil {
		return nil, err
	}
	r := &Running{front: newFront(observe)}
	if r.server, err = k.start(ctx, r.front.url()); err != nil {
		r.front.close()
		return nil, err
	}
	if err := r.front.open(r.server.BaseURL); err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	if r.Provider, err = k.at(ctx, r.server, r.front.url()); err != nil {
		return nil, errors.Join(err, r.Stop())
	}
	return r, nil
}
