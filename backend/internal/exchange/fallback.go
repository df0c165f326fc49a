package exchange

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

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
