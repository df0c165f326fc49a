// Package exchange obtains access tokens: one client-credentials request (RFC 6749 §4.4),
// authenticated by a signed assertion (RFC 7523 §2.2), for one key. It chooses the version that
// signs, falls back to others when the provider rejects it, and records which one was accepted.
package exchange

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/hashicorp/go-hclog"
)

// Exchanger obtains tokens and tracks, on this node, which version of a key the provider accepts.
// It is safe for concurrent use.
type Exchanger struct {
	now       func() time.Time
	logger    hclog.Logger
	observer  Observer
	histories histories
}

// Observer counts what happens. Its methods are called concurrently.
type Observer interface {
	// Exchanged is called at the end of a token request, retries and fallback included.
	Exchanged(key *keyring.Key, at time.Time, took time.Duration, err error)
	// FellBack is called when the provider rejected the version that was to sign.
	FellBack(key *keyring.Key)
	// Switched is called when a version became active because the provider accepted it.
	Switched(key *keyring.Key)
}

// New creates an Exchanger that signs by this clock.
func New(now func() time.Time, logger hclog.Logger, observer Observer) *Exchanger {
	return &Exchanger{
		now: now, logger: logger, observer: observer,
		histories: histories{byID: map[string]*history{}},
	}
}

// Request describes a token request.
type Request struct {
	Key        *keyring.Key
	Scopes     []string   // the scope parameter (RFC 6749 §3.3), omitted if there are none
	Parameters url.Values // additional form parameters
	// Current returns the key as it is now, or an error if nothing may be signed with it; nil: Key.
	Current func(context.Context) (*keyring.Key, error)
	Change  ChangeFunc // stores an update of the key; nil: updates stay in memory
	// Role and RequestID are logged when an exchange changes the active version.
	Role, RequestID string
}

// ChangeFunc reads the key again under its lock, passes it to edit, or nil if it was deleted, and
// stores the result unless that is nil. On a node that cannot write its error is ErrReadOnly.
type ChangeFunc func(ctx context.Context, edit func(current *keyring.Key) *keyring.Key) error

// Token is an access token and the terms it was issued on.
type Token struct {
	*tokenendpoint.Token
	Scope         string   // granted; the requested one if the response has none (RFC 6749 §5.1)
	MissingScopes []string // requested but not granted
	// KeyID is the kid of the version that signed. Not the version itself: a shared token would
	// keep its private key in memory after the key was changed or deleted.
	KeyID string
}

// Token obtains an access token. If the provider rejects the key itself, the other versions are
// tried within the same call, and the one accepted is recorded. The error is, or wraps, a
// *tokenendpoint.Error unless it is internal.
func (e *Exchanger) Token(
	ctx context.Context, client *tokenendpoint.Client, request Request,
) (*Token, error) {
	b, began := &budget{}, e.now()
	token, err := withCurrentKey(ctx, request, func(request Request) (*Token, error) {
		b.triesOf = nil
		return e.token(ctx, client, request, b)
	})
	e.observer.Exchanged(request.Key, e.now(), e.now().Sub(began), err)
	return token, err
}

// withCurrentKey repeats do with the current key if that was changed in the meantime.
func withCurrentKey[T any](
	ctx context.Context, request Request, do func(Request) (T, error),
) (T, error) {
	for {
		result, err := do(request)
		if !errors.Is(err, ErrKeyChanged) {
			return result, err
		}
		if request.Key, err = request.current(ctx); err != nil {
			return result, err
		}
	}
}

// token obtains a token while the key belongs to the same client.
func (e *Exchanger) token(
	ctx context.Context, client *tokenendpoint.Client, request Request, b *budget,
) (*Token, error) {
	h := e.histories.of(request.Key)
	for {
		version := h.next(request.Key, e.now())
		if !b.allows(version) {
			return nil, b.rejection
		}
		token, err := e.try(ctx, client, request, version, b)
		if err == nil {
			e.recordAcceptance(ctx, h, request, version, false)
			return token, nil
		}
		if !KeyRejected(err) {
			return nil, err
		}
		current, unusable := request.current(ctx)
		switch {
		case unusable != nil:
			return nil, err
		case !sameClient(current, request.Key):
			return nil, ErrKeyChanged
		case current != request.Key: // a rotation overtook the request
			request.Key = current
			continue
		case len(request.Key.Live(e.now())) == 1:
			return nil, err
		}
		done, leads := h.joinFallback(e.now())
		switch {
		case leads:
			e.observer.FellBack(request.Key)
			return (&fallback{e, client, request, h, b, version, err}).run(ctx)
		case done == nil: // all versions were rejected just now
			return nil, err
		}
		select {
		case <-done:
		case <-ctx.Done():
			return nil, err
		}
	}
}

// ErrKeyChanged means that the key was registered as another client, or the version deleted, before
// anything was signed.
var ErrKeyChanged = errors.New("the key was changed during the request")

// current returns the key as it is now. An unchanged key is always the same pointer.
func (r *Request) current(ctx context.Context) (*keyring.Key, error) {
	if r.Current == nil {
		return r.Key, nil
	}
	return r.Current(ctx)
}

// check returns an error unless the key may still sign with this version.
func (r *Request) check(ctx context.Context, version *keyring.Version) error {
	current, err := r.current(ctx)
	switch {
	case err != nil:
		return err
	case !sameClient(current, r.Key), current.Version(version.Number()) == nil:
		return ErrKeyChanged
	}
	return nil
}

// sameClient reports whether two states of a key are of one key and one client.
func sameClient(a, b *keyring.Key) bool { return a.ID() == b.ID() && a.Client() == b.Client() }

// Try obtains an access token with this version only, and records nothing. Its error may also be
// ErrKeyChanged.
func (e *Exchanger) Try(
	ctx context.Context, client *tokenendpoint.Client, request Request, version *keyring.Version,
) (*Token, error) {
	return e.try(ctx, client, request, version, &budget{})
}

func (e *Exchanger) try(
	ctx context.Context, client *tokenendpoint.Client, request Request, version *keyring.Version,
	b *budget,
) (*Token, error) {
	endpoint, err := TokenEndpoint(ctx, client, request.Key)
	if err != nil {
		return nil, err
	}
	b.begin(version)
	response, err := client.RequestToken(ctx, endpoint, func() (url.Values, error) {
		if b.requests++; b.requests > maxRequests {
			return nil, tokenendpoint.ErrNoRetry
		}
		return e.tokenForm(ctx, request, version)
	})
	if err != nil {
		b.rejection = err
		return nil, err
	}
	token := &Token{Token: response, Scope: response.Scope, KeyID: version.KeyID()}
	if !response.HasScope {
		token.Scope = strings.Join(request.Scopes, " ")
	}
	granted := strings.Fields(token.Scope)
	token.MissingScopes = slices.DeleteFunc(slices.Clone(request.Scopes),
		func(scope string) bool { return slices.Contains(granted, scope) })
	return token, nil
}

// TokenEndpoint returns the URL that the key's assertions are sent to: the key's own setting, or
// the one in the issuer's discovery document.
func TokenEndpoint(
	ctx context.Context, client *tokenendpoint.Client, key *keyring.Key,
) (string, error) {
	if endpoint := key.Settings().TokenEndpoint; endpoint != "" {
		return endpoint, nil
	}
	metadata, err := client.Discover(ctx, key.Settings().Issuer)
	return metadata.TokenEndpoint, err
}
