package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
)

const (
	pause       = 100 * time.Millisecond // between two requests of one client
	requestTime = 5 * time.Second        // until a client gives up
)

// reader reads creds of a role through one node, without retries, until it is stopped.
type reader struct {
	m        *harness.Mount
	role     string
	clientID string
	gateway  http.Handler // of an API, which accepts the provider's tokens

	mu    sync.Mutex
	reads []read
}

// read is the outcome of one read.
type read struct {
	begun, ended time.Time
	err          error
	wrong        error // of a token that is not one of the role's, or has expired
}

// startReaders starts a reader of each role through each of the mounts, in this order.
func startReaders(
	t *testing.T, p *harness.Provider, on []*harness.Mount, roles []string, clientID string,
) (readers []*reader, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	gateway := idp.NewGateway(p.Issuer, http.DefaultClient, time.Now)
	for _, m := range on {
		unrecorded := m.WithConnections(t, len(roles))
		for _, role := range roles {
			r := &reader{m: unrecorded, role: role, clientID: clientID, gateway: gateway}
			readers = append(readers, r)
			running.Go(func() { r.run(ctx) })
		}
	}
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return readers, stop
}

func (r *reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		got := r.read(context.WithoutCancel(ctx)) // one that has begun is completed
		r.mu.Lock()
		r.reads = append(r.reads, got)
		r.mu.Unlock()
		time.Sleep(pause)
	}
}

func (r *reader) read(ctx context.Context) read {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	got := read{begun: time.Now()}
	response, err := r.m.Request(ctx, http.MethodGet, "creds/"+r.role, nil)
	got.ended = time.Now()
	token, _ := response.Data["access_token"].(string)
	switch {
	case err != nil:
		got.err = err
	case response.Status != http.StatusOK:
		got.err = fmt.Errorf("%d %s", response.Status, response.ErrorText())
	default:
		got.wrong = r.check(token)
	}
	return got
}

// check calls an API with the token, and compares its client.
func (r *reader) check(token string) error {
	call := httptest.NewRequest(http.MethodGet, "/", http.NoBody)
	call.Header.Set("Authorization", "Bearer "+token)
	answer := httptest.NewRecorder()
	if r.gateway.ServeHTTP(answer, call); answer.Code != http.StatusOK {
		return fmt.Errorf("the API answers %d", answer.Code)
	}
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return errors.New("not a JWT")
	}
	var claims struct {
		ClientID string `json:"client_id"`
	}
	if err := parsed.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return errors.New("not a JWT")
	}
	if claims.ClientID != r.clientID {
		return fmt.Errorf("a token of %s", claims.ClientID)
	}
	return nil
}

// filter returns the reads so far for which a condition holds.
func (r *reader) filter(holds func(read) bool) []read {
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []read
	for _, got := range r.reads {
		if holds(got) {
			found = append(found, got)
		}
	}
	return found
}

func (r read) failed() bool { return r.err != nil }

// awaitSuccess waits for a read that began after a time and succeeded, and returns when it began.
func (r *reader) awaitSuccess(t *testing.T, after time.Time) (begun time.Time) {
	t.Helper()
	require.Eventually(t, func() bool {
		reads := r.filter(func(got read) bool { return !got.failed() && got.begun.After(after) })
		if len(reads) > 0 {
			begun = reads[0].begun
		}
		return len(reads) > 0
	}, time.Minute, pause, "%s is read again through %s", r.role, r.m.Client.Address())
	return begun
}

// requireRight requires that no read returned a wrong token.
func requireRight(t *testing.T, readers []*reader) {
	t.Helper()
	for _, r := range readers {
		wrong := r.filter(func(got read) bool { return got.wrong != nil })
		require.Empty(t, wrong, "tokens of %s through %s", r.role, r.m.Client.Address())
		require.NotEmpty(t, r.filter(func(got read) bool { return !got.failed() }), r.role)
	}
}

// requireOutage requires that reads failed at most between two times.
func (r *reader) requireOutage(t *testing.T, from, to time.Time) (failed int) {
	t.Helper()
	failures := r.filter(read.failed)
	for _, got := range failures {
		require.True(t, got.ended.After(from) && got.begun.Before(to),
			"%s through %s, begun %s after, ended %s after: %v", r.role, r.m.Client.Address(),
			got.begun.Sub(from), got.ended.Sub(from), got.err)
	}
	return len(failures)
}
