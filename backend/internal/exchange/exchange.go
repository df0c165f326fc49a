// Package exchange obtains access tokens: one client-credentials request (RFC 6749 §4.4), authenticated by a signed
// assertion (RFC 7523 §2.2), for one key.
package exchange

import (
	"context"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/clientauth"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

// Exchanger obtains tokens and counts what came of it. It is safe for concurrent use.
type Exchanger struct {
	now func() time.Time

	mu         sync.Mutex
	statistics Statistics
}

// New makes an Exchanger that signs by this clock.
func New(now func() time.Time) *Exchanger {
	return &Exchanger{now: now}
}

// Request is what to ask of the token endpoint.
type Request struct {
	Key     *keyring.Key
	Version *keyring.Version // signs the assertion
	// Scopes are sent as the scope parameter (RFC 6749 §3.3); none: the parameter is left out.
	Scopes []string
	// Parameters are further form parameters.
	Parameters url.Values
}

// Token is an access token and what is known of it.
type Token struct {
	*tokenendpoint.Token
	// Scope is what was granted: what the provider said, or what was asked for when it said nothing (RFC 6749 §5.1).
	Scope string
	// MissingScopes were asked for and not granted.
	MissingScopes []string
	// KeyID is the id of the key that signed the assertion.
	KeyID string
	// Endpoint is the token endpoint that answered.
	Endpoint string
}

// Token obtains an access token. Its error is a *tokenendpoint.Error, but for faults of this program.
func (e *Exchanger) Token(ctx context.Context, client *tokenendpoint.Client, request Request) (*Token, error) {
	token, err := e.requestToken(ctx, client, request)
	e.count(err)
	return token, err
}

func (e *Exchanger) requestToken(ctx context.Context, client *tokenendpoint.Client, request Request) (*Token, error) {
	endpoint, err := TokenEndpoint(ctx, client, request.Key)
	if err != nil {
		return nil, err
	}
	answer, err := client.RequestToken(ctx, endpoint, func() (url.Values, error) { return e.tokenForm(request) })
	if err != nil {
		return nil, err
	}
	token := &Token{Token: answer, Scope: answer.Scope, KeyID: request.Version.KeyID(), Endpoint: endpoint}
	if !answer.HasScope {
		token.Scope = strings.Join(request.Scopes, " ")
	}
	token.MissingScopes = missing(request.Scopes, strings.Fields(token.Scope))
	return token, nil
}

// TokenEndpoint is where the key's assertions go: its own setting, or what the issuer's discovery document names.
func TokenEndpoint(ctx context.Context, client *tokenendpoint.Client, key *keyring.Key) (string, error) {
	if endpoint := key.Settings().TokenEndpoint; endpoint != "" {
		return endpoint, nil
	}
	metadata, err := client.Discover(ctx, key.Settings().Issuer)
	return metadata.TokenEndpoint, err
}

// Revoke asks the provider to end a token (RFC 7009). It says false, and no error, when the provider has no revocation
// endpoint.
func (e *Exchanger) Revoke(ctx context.Context, client *tokenendpoint.Client, request Request, accessToken string) (bool, error) {
	endpoint := request.Key.Settings().RevocationEndpoint
	if endpoint == "" {
		metadata, err := client.Discover(ctx, request.Key.Settings().Issuer)
		if err != nil {
			return false, err
		}
		endpoint = metadata.RevocationEndpoint
	}
	if endpoint == "" {
		return false, nil
	}
	err := client.Revoke(ctx, endpoint, func() (url.Values, error) {
		form, err := e.authentication(request)
		if err != nil {
			return nil, err
		}
		form.Set("token", accessToken)
		form.Set("token_type_hint", "access_token")
		return form, nil
	})
	return err == nil, err
}

func (e *Exchanger) tokenForm(request Request) (url.Values, error) {
	authentication, err := e.authentication(request)
	if err != nil {
		return nil, err
	}
	form := url.Values{}
	maps.Copy(form, request.Parameters)
	maps.Copy(form, authentication) // later, so that no parameter can take its place
	form.Set("grant_type", "client_credentials")
	if len(request.Scopes) > 0 {
		form.Set("scope", strings.Join(request.Scopes, " "))
	}
	return form, nil
}

// authentication is the part of a form that says who the client is, with a new assertion (RFC 7523 §2.2).
func (e *Exchanger) authentication(request Request) (url.Values, error) {
	settings := request.Key.Settings()
	assertion, err := clientauth.NewAssertion(request.Version.Signer(), settings.ClientID, request.Key.Audience(), e.now(), settings.AssertionTTL)
	if err != nil {
		return nil, err
	}
	return url.Values{
		"client_id":             {settings.ClientID},
		"client_assertion_type": {clientauth.AssertionType},
		"client_assertion":      {assertion.Compact()},
	}, nil
}

func missing(asked, granted []string) []string {
	var absent []string
	for _, scope := range asked {
		if !slices.Contains(granted, scope) {
			absent = append(absent, scope)
		}
	}
	return absent
}

// Statistics count what this node's exchanges came to.
type Statistics struct {
	Exchanges       int64
	Failures        int64
	LastFailureTime time.Time // zero: none yet
	LastFailureKind string    // a tokenendpoint.Kind's name, or "internal"
}

// Statistics returns the counts so far.
func (e *Exchanger) Statistics() Statistics {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.statistics
}

func (e *Exchanger) count(err error) {
	var failure *tokenendpoint.Error
	if errors.As(err, &failure) && failure.Kind == tokenendpoint.Canceled {
		return // the reader went away: that says nothing of the provider
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.statistics.Exchanges++
	if err == nil {
		return
	}
	e.statistics.Failures++
	e.statistics.LastFailureTime = e.now()
	e.statistics.LastFailureKind = "internal"
	if failure != nil {
		e.statistics.LastFailureKind = failure.Kind.String()
	}
}
