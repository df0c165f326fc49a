package exchange

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

const (
	// maxTries limits how often one read tries each version.
	maxTries = 2
	// maxRequests limits the token requests of one read, retries included: a provider may lock a
	// client after too many rejections.
	maxRequests = 6
	// secondTryPause precedes the second try of each version.
	secondTryPause = 250 * time.Millisecond
)

// budget counts the token requests of one read.
type budget struct {
	requests  int
	triesOf   map[int]int // by version number
	rejection error       // the latest error
}

func (b *budget) allows(version *keyring.Version) bool {
	return b.requests < maxRequests && b.triesOf[version.Number()] < maxTries
}

func (b *budget) begin(version *keyring.Version) {
	if b.triesOf == nil {
		b.triesOf = map[int]int{}
	}
	b.triesOf[version.Number()]++
}

// fallback obtains a token with another version than the one the provider rejected.
type fallback struct {
	*Exchanger
	client  *tokenendpoint.Client
	request Request
	history *history
	budget  *budget
	refused *keyring.Version
	refusal error
}

// run tries the other versions, and lets those who wait for it continue whatever the outcome. If
// the key worked recently, some node of the provider must know one of its versions, so all of them
// are tried once more, in the opposite order: otherwise a load balancer that alternates between
// nodes could pair each version with the node that does not know it.
func (f *fallback) run(ctx context.Context) (token *Token, err error) {
	pause := false
	defer func() { f.history.endFallback(pause, f.now()) }()
	versions := alternatives(f.request.Key, f.refused, f.now())
	token, first := f.tryVersions(ctx, versions)
	if _, allRefused := errors.AsType[*AllVersionsRefusedError](first); !allRefused {
		return token, first
	}
	if pause = !f.history.acceptedRecently(f.now()); pause {
		return nil, first
	}
	select {
	case <-time.After(secondTryPause):
	case <-ctx.Done():
		return nil, first
	}
	versions = append([]*keyring.Version{f.refused}, versions...)
	slices.Reverse(versions)
	if token, err = f.tryVersions(ctx, versions); err == nil {
		return token, nil
	}
	return nil, first // after a timeout, say: the rejection tells the reader more
}

// tryVersions tries versions in order, up to the first that works or the first error that is not
// about the key.
func (f *fallback) tryVersions(ctx context.Context, versions []*keyring.Version) (*Token, error) {
	failure := &AllVersionsRefusedError{refusal: f.refusal}
	for _, version := range versions {
		if !f.budget.allows(version) {
			break
		}
		token, err := f.try(ctx, f.client, f.request, version, f.budget)
		if err == nil {
			f.recordAcceptance(ctx, f.history, f.request, version, true)
			return token, nil
		}
		if !KeyRejected(err) {
			return nil, err
		}
		failure.others = append(failure.others, fmt.Sprintf("version %d (%s) was also rejected: %s",
			version.Number(), f.request.Key.State(version, f.now()), Description(err)))
	}
	return nil, failure
}

// alternatives returns the versions to try in place of the rejected one: the newer ones, newest
// first, as a person may have registered them since, then the older ones, down to the newest that
// the provider has accepted before. With jwks the older ones come first: a provider that knows a
// newer one has also fetched the rejected one, whose turn it is.
func alternatives(key *keyring.Key, refused *keyring.Version, now time.Time) []*keyring.Version {
	var newer, older []*keyring.Version
	accepted := false
	for _, v := range key.Live(now) {
		switch {
		case v.Number() > refused.Number():
			newer = append(newer, v)
		case v.Number() < refused.Number() && !accepted:
			older, accepted = append(older, v), !v.AcceptedTime().IsZero()
		}
	}
	if key.Settings().Registration == keyring.ByJWKS {
		slices.Reverse(newer) // the active one before a staged one
		return append(older, newer...)
	}
	return append(newer, older...)
}

// KeyRejected reports whether the provider rejected the key itself: another version may work.
func KeyRejected(err error) bool {
	failure, ok := errors.AsType[*tokenendpoint.Error](err)
	return ok && failure.KeyRejected()
}

// Description returns the provider's error_description or error code (RFC 6749 §5.2), or the text.
func Description(err error) string {
	if failure, ok := errors.AsType[*tokenendpoint.Error](err); ok {
		return cmp.Or(failure.Description, failure.Code, err.Error())
	}
	return err.Error()
}

// AllVersionsRefusedError means that the provider rejected every version that was tried.
type AllVersionsRefusedError struct {
	refusal error // of the version that was to sign
	others  []string
}

// Others returns a line for each version but the one that was to sign.
func (e *AllVersionsRefusedError) Others() []string { return e.others }

// Error joins the text of Unwrap's error and Others.
func (e *AllVersionsRefusedError) Error() string {
	return strings.Join(append([]string{e.refusal.Error()}, e.others...), "\n")
}

// Unwrap returns the rejection of the version that was to sign.
func (e *AllVersionsRefusedError) Unwrap() error { return e.refusal }
