package exchange

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/stretchr/testify/require"
)

func TestFallback_OnlyAfterKeyRefusal(t *testing.T) {
	t.Parallel()
	const (
		keysNotLoaded   = keycloakPrefix + "Error when loading public keys: Connect refused"
		signatureFailed = keycloakPrefix + "Signature on JWT token failed validation"
	)
	for name, test := range map[string]struct {
		status   int
		body     string
		requests int
	}{
		"unable to load":        {400, refusal("Unable to load public key"), 2},
		"JWKS URL is down":      {400, refusal(keysNotLoaded), 2},
		"no description":        {401, `{"error":"invalid_client"}`, 2},
		"signature failed":      {400, refusal(signatureFailed), 2},
		"reuse proves the key":  {400, refusal("Token reuse detected"), 1},
		"of any cause":          {401, refusal("client authentication failed"), 2},
		"of a federated client": {401, refusal("Invalid client or Invalid client credentials"), 2},
		"Hydra's unknown kid": {400, `{"error":"invalid_request","error_description":"The JSON Web Token uses signing ` +
			`key with kid 'x', which could not be found."}`, 2},
		"Okta's kid":       {401, refusal("The client_assertion JWT kid is invalid."), 2},
		"Okta's signature": {401, refusal("The client_assertion signature is invalid."), 2},
		"Hydra's JWKS URL is down": {500, `{"error":"server_error","error_description":"Expected successful status code ` +
			`in range of 200 - 399 from location 'https://a/jwks.json' but received code 503."}`, 2},
		"the audience":          {400, refusal("Invalid token audience"), 1},
		"the algorithm":         {400, refusal("Invalid signature algorithm"), 1},
		"the clock":             {400, refusal("Token is not active"), 1},
		"another error":         {400, `{"error":"invalid_scope"}`, 1},
		"a failure of the host": {500, `{"error":"invalid_client"}`, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, keyring.Manual)
			w.rotate()
			w.provider.answer = func(rw http.ResponseWriter, _ *http.Request) {
				rw.WriteHeader(test.status)
				_, _ = rw.Write([]byte(test.body))
			}
			_, err := w.read()
			require.Error(t, err)
			require.Len(t, w.provider.seen(), test.requests)
			require.Zero(t, w.stored())
		})
	}
}

// A key that was never rotated pays nothing for what its provider's words leave open.
func TestFallback_KeyWithOneVersionSendsOneRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	w.provider.answer = func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusUnauthorized)
		_, _ = rw.Write([]byte(refusal("client authentication failed")))
	}
	for range 3 {
		_, err := w.read()
		require.ErrorContains(t, err, "client authentication failed")
		require.Len(t, w.provider.seen(), 1)
	}
}

func TestFallback_AllRefusedNamesEveryVersionAndPauses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	w.rotate()
	w.provider.accept()
	_, err := w.read()
	require.ErrorContains(t, err, "Unable to load public key")
	require.ErrorContains(t, err, "\nversion 2 (staged) was also rejected: Client authentication")
	require.Len(t, w.provider.seen(), 2)

	_, err = w.read()
	require.Error(t, err)
	require.Len(t, w.provider.seen(), 1, "no second fallback within 5 s")
	w.advance(6 * time.Second)
	_, err = w.read()
	require.Error(t, err)
	require.Len(t, w.provider.seen(), 2)
	require.Zero(t, w.stored())
}

func TestFallback_TriesDownToAcceptedVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.ByJWKS)
	w.mustRead(1)
	w.rotate()
	w.rotate() // the provider has fetched neither, though the schedule made both active
	require.Equal(t, 3, w.active())
	w.mustRead(1)
}

func TestFallback_StopsWhenKeyIsDisabled(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	w.mustRead(1)
	w.rotate()
	key := w.current()
	w.provider.accept(key.Version(2))
	w.provider.seen()
	var once sync.Once
	w.provider.hold = func() {
		once.Do(func() {
			w.change(func(current *keyring.Key) *keyring.Key {
				settings := current.Settings()
				settings.Disabled = true
				disabled, err := current.WithSettings(settings)
				require.NoError(t, err)
				return disabled
			})
		})
	}
	_, err := w.exchange.Token(t.Context(), w.client, Request{
		Key: key, Change: w.Change,
		Current: func(context.Context) (*keyring.Key, error) {
			if w.current().Settings().Disabled {
				return nil, errors.New("disabled")
			}
			return w.current(), nil
		},
	})
	require.ErrorContains(t, err, "Unable to load public key")
	require.Len(t, w.provider.seen(), 1)
}

func TestFallback_OneServesAllWaitingReaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	w.mustRead(1)
	w.rotate()
	key := w.current()
	w.provider.accept(key.Version(2))
	w.provider.seen()

	const readers = 20
	var wait sync.WaitGroup
	for range readers {
		wait.Go(func() {
			token, err := w.readWith(key)
			if err != nil || token.KeyID != key.Version(2).KeyID() {
				t.Errorf("a reader failed, or another version signed: %v", err)
			}
		})
	}
	wait.Wait()
	tried := 0
	for _, kid := range w.provider.seen() {
		if kid == key.Version(2).KeyID() {
			tried++
		}
	}
	require.Equal(t, readers, tried, "each reader receives its own token, and none tries twice")
	require.Equal(t, 2, w.active())
}

func TestFallback_DisagreeingNodesFailFewReadsAndStoreOneSwitchAMinute(t *testing.T) {
	t.Parallel()
	inVirtualTime(t, func(t *testing.T, w *world) {
		w.mustRead(1)
		w.rotate()
		key := w.current()
		before, begun := w.stored(), time.Now()
		requireStorePause := func() {
			t.Helper()
			require.LessOrEqual(t, w.stored()-before, 1+int(time.Since(begun)/time.Minute))
		}
		var turn atomic.Int64
		w.provider.answer = func(rw http.ResponseWriter, r *http.Request) {
			kid, _ := assertionKeyID(r)
			node := int(turn.Add(1))%2 + 1 // a load balancer alternates
			if kid == key.Version(node).KeyID() {
				_, _ = rw.Write([]byte(opaqueToken))
				return
			}
			rw.WriteHeader(http.StatusBadRequest)
			_, _ = rw.Write([]byte(refusal("Unable to load public key")))
		}
		for range 100 {
			_, err := w.read()
			require.NoError(t, err)
		}
		requireStorePause()
		var wait sync.WaitGroup
		var failed atomic.Int64
		for range 10 {
			wait.Go(func() {
				for range 20 {
					if _, err := w.read(); err != nil { // all four tries met the wrong node
						failed.Add(1)
					}
				}
			})
		}
		wait.Wait()
		require.Less(t, failed.Load(), int64(80), "of 200; a pause after a failed fallback would fail every other one")
		requireStorePause()
	})
}

func TestFallback_CanceledReaderReceivesRefusal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	w.rotate()
	w.provider.accept()
	h := w.exchange.histories.of(w.current())
	_, leads := h.joinFallback(w.now())
	require.True(t, leads)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := w.exchange.Token(ctx, w.client, Request{Key: w.current()})
	require.ErrorContains(t, err, "Unable to load public key")
	h.endFallback(false, w.now())
}

// TestFallback_TriesEachVersionTwiceAndSendsSixRequestsAtMost counts what a provider receives for
// one read when it rejects everything although it accepted the key just now.
func TestFallback_TriesEachVersionTwiceAndSendsSixRequestsAtMost(t *testing.T) {
	t.Parallel()
	for versions, want := range map[int]int{1: 1, 2: 4, 3: 6, 5: 6, 8: 6} {
		t.Run(fmt.Sprintf("%d versions", versions), func(t *testing.T) {
			t.Parallel()
			inVirtualTime(t, func(t *testing.T, w *world) {
				w.mustRead(1)
				for range versions - 1 {
					w.rotate()
				}
				w.provider.accept()
				w.provider.seen()
				begun := time.Now()
				_, err := w.read()
				require.ErrorContains(t, err, "Unable to load public key")
				seen := w.provider.seen()
				require.Len(t, seen, want)
				if want > versions {
					require.Equal(t, 250*time.Millisecond, time.Since(begun), "one pause")
				}
				tries := map[string]int{}
				for _, kid := range seen {
					tries[kid]++
					require.LessOrEqual(t, tries[kid], 2)
				}
			})
		})
	}
}

// TestFallback_WaitingReaderTriesTwiceAtMost ends fallbacks of other readers without a verdict on
// the key, each time with another one already begun.
func TestFallback_WaitingReaderTriesTwiceAtMost(t *testing.T) {
	t.Parallel()
	inVirtualTime(t, func(t *testing.T, w *world) {
		w.rotate()
		w.provider.accept()
		h := w.exchange.histories.of(w.current())
		_, leads := h.joinFallback(w.now())
		require.True(t, leads)
		ended := make(chan error)
		go func() {
			_, err := w.read()
			ended <- err
		}()
		for range 2 {
			synctest.Wait()
			h.mu.Lock()
			close(h.fallback)
			h.fallback = make(chan struct{})
			h.mu.Unlock()
		}
		require.ErrorContains(t, <-ended, "Unable to load public key")
		require.Len(t, w.provider.seen(), 2)
	})
}

func TestDescription_IsTheProvidersIfAny(t *testing.T) {
	t.Parallel()
	nothing := &tokenendpoint.Error{Reason: tokenendpoint.Timeout}
	for want, err := range map[string]error{
		"the text":      &tokenendpoint.Error{Code: "code", Description: "the text"},
		"code":          &tokenendpoint.Error{Code: "code"},
		nothing.Error(): nothing,
		"another error": errors.New("another error"),
	} {
		require.Equal(t, want, Description(err))
	}
}

func TestFallback_RetriesCountAsRequests(t *testing.T) {
	t.Parallel()
	inVirtualTime(t, func(t *testing.T, w *world) {
		w.client = newClient(t, 5)
		w.mustRead(1)
		w.rotate()
		w.provider.seen()
		rejected := false
		w.provider.answer = func(rw http.ResponseWriter, _ *http.Request) {
			if !rejected {
				rejected = true
				rw.WriteHeader(http.StatusBadRequest)
				_, _ = rw.Write([]byte(refusal("Unable to load public key")))
				return
			}
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
		_, err := w.read()
		require.ErrorContains(t, err, "HTTP 503")
		require.Len(t, w.provider.seen(), 6, "one rejection, and the other version's attempts")
	})
}
