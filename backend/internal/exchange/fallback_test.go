package exchange

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func TestOnlyAKeyRelatedRefusalIsRetriedWithAnotherVersion(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status   int
		body     string
		requests int
	}{
		"unable to load":        {400, `{"error":"invalid_client","error_description":"Unable to load public key"}`, 2},
		"JWKS URL is down":      {400, `{"error":"invalid_client","error_description":"Client authentication with signed JWT failed: Error when loading public keys: Connect refused"}`, 2},
		"no description":        {401, `{"error":"invalid_client"}`, 2},
		"signature failed":      {400, `{"error":"invalid_client","error_description":"Client authentication with signed JWT failed: Signature on JWT token failed validation"}`, 2},
		"reuse proves the key":  {400, `{"error":"invalid_client","error_description":"Token reuse detected"}`, 1},
		"a disabled client":     {401, `{"error":"invalid_client","error_description":"Invalid client or Invalid client credentials"}`, 1},
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

func TestARoundInVainNamesEveryVersionAndPauses(t *testing.T) {
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
	require.Len(t, w.provider.seen(), 1, "no second round within 5 s")
	w.pass(6 * time.Second)
	_, err = w.read()
	require.Error(t, err)
	require.Len(t, w.provider.seen(), 2)
	require.Zero(t, w.stored())
}

func TestARoundGoesDownToAVersionThatWasAccepted(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.ByJWKS)
	w.mustRead(1)
	w.rotate()
	w.rotate() // both active by schedule, and the provider has fetched neither
	require.Equal(t, 3, w.active())
	w.mustRead(1)
}

func TestAKeyThatIsDisabledInARoundSignsNoMore(t *testing.T) {
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
		Key: key, Change: w.Change, Current: func(context.Context) (*keyring.Key, error) { return w.current(), nil },
	})
	require.ErrorContains(t, err, "Unable to load public key")
	require.Len(t, w.provider.seen(), 1)
}

func TestOneRoundServesAllWhoWait(t *testing.T) {
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
				t.Errorf("a reader failed, or got another version: %v", err)
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
	require.Equal(t, readers, tried, "each reader has a token of its own, and none tries twice")
	require.Equal(t, 2, w.active())
}

func TestDisagreeingNodesFailNoReadAndStoreOneSwitchAMinute(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	w.mustRead(1)
	w.rotate()
	key := w.current()
	before := w.stored()
	var turn atomic.Int64
	w.provider.answer = func(rw http.ResponseWriter, r *http.Request) {
		signed, _ := jose.ParseSignedCompact(r.PostFormValue("client_assertion"), []jose.SignatureAlgorithm{jose.EdDSA})
		node := int(turn.Add(1))%2 + 1 // a load balancer that takes turns
		if signed.Signatures[0].Protected.KeyID == key.Version(node).KeyID() {
			_, _ = rw.Write([]byte(`{"access_token":"opaque","token_type":"Bearer","expires_in":300}`))
			return
		}
		rw.WriteHeader(http.StatusBadRequest)
		_, _ = rw.Write([]byte(`{"error":"invalid_client","error_description":"Unable to load public key"}`))
	}
	for range 100 {
		_, err := w.read()
		require.NoError(t, err)
	}
	require.LessOrEqual(t, w.stored()-before, 1)
	var wait sync.WaitGroup
	for range 10 {
		wait.Go(func() {
			for range 20 {
				if _, err := w.read(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	require.LessOrEqual(t, w.stored()-before, 1)
}

func TestAReaderThatGivesUpWhileItWaitsGetsTheRefusal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	w.rotate()
	w.provider.accept()
	h := w.exchange.histories.of(w.current().ID())
	_, leads := h.joinFallback(w.now())
	require.True(t, leads)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := w.exchange.Token(ctx, w.client, Request{Key: w.current()})
	require.ErrorContains(t, err, "Unable to load public key")
	h.endFallback(false, w.now())
}
