// Package exchange obtains access tokens: one client-credentials request (RFC 6749 §4.4), authenticated by a signed
// assertion (RFC 7523 §2.2), for one key. It chooses the version that signs, tries the others where the provider refuses
// it, and learns from what the provider accepts.
package exchange

import (
	"context"
	"errors"
	"fmt"
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
	memories   memories
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
	memory := e.memories.of(request.Key.ID())
	for {
		version := memory.choose(request.Key, e.now())
		token, err := e.Try(ctx, client, request, version)
		if err == nil {
			e.learn(ctx, memory, request, version, asChosen)
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
		verdict, leads := memory.enterRound(e.now())
		switch {
		case leads:
			return e.lead(ctx, client, request, memory, version, err)
		case verdict == nil: // a round was in vain just now
			return nil, err
		}
		select {
		case <-verdict:
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

// lead goes through a round for all who wait for its verdict, and lets them go on whatever becomes of it.
func (e *Exchanger) lead(ctx context.Context, client *tokenendpoint.Client, request Request, memory *memory, refused *keyring.Version, refusal error) (token *Token, err error) {
	defer func() { memory.leaveRound(inVain(err), e.now()) }()
	return e.round(ctx, client, request, memory, refused, refusal)
}

// maxPasses bounds how often a round goes over all versions.
const maxPasses = 10

// round tries the versions other than the refused one. Where this key worked a short while ago, so that some node of the
// provider must know a version of it, it goes over all of them again, in the other order each time: nodes that a load
// balancer takes in turns would otherwise each be asked for the version that only the other one knows.
func (e *Exchanger) round(ctx context.Context, client *tokenendpoint.Client, request Request, memory *memory, refused *keyring.Version, refusal error) (*Token, error) {
	versions := alternatives(request.Key, refused, e.now())
	token, first := e.pass(ctx, client, request, memory, versions, refusal)
	if !inVain(first) {
		return token, first
	}
	versions = append([]*keyring.Version{refused}, versions...)
	for passes := 1; passes < maxPasses && memory.workedLately(e.now()); passes++ {
		slices.Reverse(versions)
		token, err := e.pass(ctx, client, request, memory, versions, refusal)
		if err == nil {
			return token, nil
		}
		if !inVain(err) { // what the provider said of the key tells the reader more than that time ran out over it
			break
		}
	}
	return nil, first
}

// pass tries versions in order. It ends with the first that works, or with the first error that is not about the key.
func (e *Exchanger) pass(ctx context.Context, client *tokenendpoint.Client, request Request, memory *memory, versions []*keyring.Version, refusal error) (*Token, error) {
	failures := &RoundError{refusal: refusal}
	for _, version := range versions {
		if _, usable := e.current(ctx, request); !usable {
			return nil, refusal
		}
		token, err := e.Try(ctx, client, request, version)
		if err == nil {
			e.learn(ctx, memory, request, version, afterRefusal)
			return token, nil
		}
		if !KeyRefused(err) {
			return nil, err
		}
		failures.add(request.Key, version, err, e.now())
	}
	return nil, failures
}

// alternatives are what to try in place of a refused version: the newer ones, which may have been registered by now,
// newest first, then the older ones, down to the newest that the provider has accepted before.
func alternatives(key *keyring.Key, refused *keyring.Version, now time.Time) []*keyring.Version {
	var others []*keyring.Version
	older := false
	for _, v := range key.Live(now) {
		switch {
		case v.Number() > refused.Number():
			others = append(others, v)
		case v.Number() < refused.Number() && !older:
			others, older = append(others, v), !v.AcceptedTime().IsZero()
		}
	}
	return others
}

// KeyRefused says whether the provider refused the key itself, so that another version may work.
func KeyRefused(err error) bool {
	var failure *tokenendpoint.Error
	return errors.As(err, &failure) && failure.KeyRefused
}

func inVain(err error) bool {
	var round *RoundError
	return errors.As(err, &round)
}

// RoundError says that the provider refused every version: the error of the one that was to sign, and what was said of
// each other one.
type RoundError struct {
	refusal error
	others  []string
}

func (e *RoundError) add(key *keyring.Key, version *keyring.Version, err error, now time.Time) {
	e.others = append(e.others, fmt.Sprintf("version %d (%s) was refused too: %s", version.Number(), key.State(version, now), Said(err)))
}

// Said is what the provider said, without what was tried and where.
func Said(err error) string {
	failure, ok := errors.AsType[*tokenendpoint.Error](err)
	switch {
	case ok && failure.Description != "":
		return failure.Description
	case ok && failure.Code != "":
		return failure.Code
	}
	return err.Error()
}

// Others has a line for each version but the one that was to sign.
func (e *RoundError) Others() []string { return e.others }

// Error is the refusal of the version that was to sign, then a line for each other one.
func (e *RoundError) Error() string {
	return strings.Join(append([]string{e.refusal.Error()}, e.others...), "\n")
}

// Unwrap returns the refusal of the version that was to sign.
func (e *RoundError) Unwrap() error { return e.refusal }

func missing(asked, granted []string) []string {
	var absent []string
	for _, scope := range asked {
		if !slices.Contains(granted, scope) {
			absent = append(absent, scope)
		}
	}
	return absent
}
