// Package exchange obtains access tokens: one client-credentials request (RFC 6749 §4.4), authenticated by a signed
// assertion (RFC 7523 §2.2), for one key. It chooses the version that signs, tries the others where the provider refuses
// it, and learns from what the provider accepts.
package exchange

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

// Exchanger obtains tokens, and remembers for this node which version of a key the provider accepts. It is safe for
// concurrent use.
type Exchanger struct {
	now        func() time.Time
	logger     hclog.Logger
	histories  histories
	statistics counter
}

// New makes an Exchanger that signs by this clock.
func New(now func() time.Time, logger hclog.Logger) *Exchanger {
	return &Exchanger{now: now, logger: logger}
}

// Request is what to ask of the token endpoint.
type Request struct {
	Key *keyring.Key
	// Scopes are sent as the scope parameter (RFC 6749 §3.3); none: the parameter is left out.
	Scopes []string
	// Parameters are further form parameters.
	Parameters url.Values
	// Current reads the key as it is now; nil if it was deleted. A read that a rotation overtook looks again before it fails.
	Current func(context.Context) (*keyring.Key, error)
	// Change stores what is learned of the key; nil where this node cannot write. See ChangeFunc.
	Change ChangeFunc
	// Role and RequestID go into the log line about a stored switch.
	Role, RequestID string
}

// ChangeFunc reads the key again under its lock, passes it to edit, and stores what that returns unless it is nil. The
// key is nil where it was deleted.
type ChangeFunc func(ctx context.Context, edit func(current *keyring.Key) *keyring.Key) error

// Token is an access token and what is known of it.
type Token struct {
	*tokenendpoint.Token
	// Scope is what was granted: what the provider said, or what was asked for when it said nothing (RFC 6749 §5.1).
	Scope string
	// MissingScopes were asked for and not granted.
	MissingScopes []string
	// KeyID is the kid of the version that signed the assertion. Not the version itself: a shared token would hold on to its
	// private key, also when the key was changed or deleted.
	KeyID string
}

// Token obtains an access token. Where the provider refuses the key itself, the other versions are tried within the same
// call, and what worked is learned. Its error is, or wraps, a *tokenendpoint.Error, but for faults of this program.
func (e *Exchanger) Token(ctx context.Context, client *tokenendpoint.Client, request Request) (*Token, error) {
	token, err := e.token(ctx, client, request)
	e.statistics.count(err, e.now())
	return token, err
}

func (e *Exchanger) token(ctx context.Context, client *tokenendpoint.Client, request Request) (*Token, error) {
	h := e.histories.of(request.Key.ID())
	for {
		version := h.choose(request.Key, e.now())
		token, err := e.Try(ctx, client, request, version)
		if err == nil {
			e.recordAcceptance(ctx, h, request, version, false)
			return token, nil
		}
		if !KeyRefused(err) {
			return nil, err
		}
		current, usable := e.current(ctx, request)
		if !usable {
			return nil, err
		}
		if current != request.Key {
			request.Key = current
			continue
		}
		if len(request.Key.Live(e.now())) == 1 {
			return nil, err
		}
		done, leads := h.joinFallback(e.now())
		switch {
		case leads:
			return (&fallback{e, client, request, h, version, err}).run(ctx)
		case done == nil: // every version was rejected just now
			return nil, err
		}
		select {
		case <-done:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// current returns the key as it is now: another one than the request began with where a rotation overtook it, as snapshots
// of a key that did not change are one and the same. It says false where there must be no further signature: the key was
// deleted, disabled or otherwise changed.
func (e *Exchanger) current(ctx context.Context, request Request) (*keyring.Key, bool) {
	if request.Current == nil {
		return request.Key, true
	}
	current, err := request.Current(ctx)
	if err != nil || current == nil || current.ID() != request.Key.ID() || current.Settings() != request.Key.Settings() {
		return nil, false
	}
	return current, true
}

// Try obtains an access token with this version and no other, and learns nothing.
func (e *Exchanger) Try(ctx context.Context, client *tokenendpoint.Client, request Request, version *keyring.Version) (*Token, error) {
	endpoint, err := TokenEndpoint(ctx, client, request.Key)
	if err != nil {
		return nil, err
	}
	answer, err := client.RequestToken(ctx, endpoint, func() (url.Values, error) { return e.tokenForm(request, version) })
	if err != nil {
		return nil, err
	}
	token := &Token{Token: answer, Scope: answer.Scope, KeyID: version.KeyID()}
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

func missing(asked, granted []string) []string {
	var absent []string
	for _, scope := range asked {
		if !slices.Contains(granted, scope) {
			absent = append(absent, scope)
		}
	}
	return absent
}
