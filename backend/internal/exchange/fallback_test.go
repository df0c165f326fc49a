package exchange

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/go-hclog"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

// keyProvider accepts the keys with these ids, and refuses others as Keycloak does.
type keyProvider struct {
	mu       sync.Mutex
	accepted map[string]bool
	requests []string // the kids that came
	hold     func()   // called within each request, if set
	answer   http.HandlerFunc
}

func (p *keyProvider) accept(versions ...*keyring.Version) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accepted = map[string]bool{}
	for _, v := range versions {
		p.accepted[v.KeyID()] = true
	}
}

func (p *keyProvider) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.requests
	p.requests = nil
	return seen
}

func (p *keyProvider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	signed, err := jose.ParseSignedCompact(r.PostFormValue("client_assertion"), []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	kid := signed.Signatures[0].Protected.KeyID
	p.mu.Lock()
	p.requests = append(p.requests, kid)
	good, hold, answer := p.accepted[kid], p.hold, p.answer
	p.mu.Unlock()
	if hold != nil {
		hold()
	}
	w.Header().Set("Content-Type", "application/json")
	switch {
	case answer != nil:
		answer(w, r)
	case good:
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "opaque", "token_type": "Bearer", "expires_in": 300})
	default:
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]any{"error": "invalid_client", "error_description": "Client authentication with signed JWT failed: Unable to load public key"})
	}
}

// world is an Exchanger, its provider, and one key in a storage of its own.
type world struct {
	t        testing.TB
	provider *keyProvider
	client   *tokenendpoint.Client
	exchange *Exchanger
	log      *bytes.Buffer
	offset   atomic.Int64 // of the clock

	mu     sync.Mutex
	key    *keyring.Key
	writes int
	broken error // of the storage
}

func newWorld(t testing.TB, registration keyring.Registration) *world {
	t.Helper()
	w := &world{t: t, provider: &keyProvider{}, log: &bytes.Buffer{}}
	server := httptest.NewServer(w.provider)
	t.Cleanup(server.Close)
	client, err := tokenendpoint.New(tokenendpoint.Config{RequestTimeout: 10 * time.Second, AllowInsecure: true}, tokenendpoint.Options{Now: w.now})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	w.client = client
	w.exchange = New(w.now, hclog.New(&hclog.LoggerOptions{Output: w.log, Mutex: &sync.Mutex{}}))
	w.key, err = keyring.New("myapi", keyring.ED25519, keyring.Settings{
		CommonName: "myapi", Algorithm: jose.EdDSA, SendKeyID: true, AssertionTTL: 45 * time.Second, ClientID: "c",
		Issuer: server.URL, TokenEndpoint: server.URL + "/token", Registration: registration, RetireAfter: time.Hour,
	}, w.now())
	require.NoError(t, err)
	w.provider.accept(w.key.Version(1))
	return w
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) }

func (w *world) pass(d time.Duration) { w.offset.Add(int64(d)) }

func (w *world) current() *keyring.Key {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.key
}

func (w *world) change(edit func(*keyring.Key) *keyring.Key) {
	require.NoError(w.t, w.Change(context.Background(), edit))
	w.mu.Lock()
	w.writes--
	w.mu.Unlock()
}

func (w *world) rotate() {
	w.change(func(key *keyring.Key) *keyring.Key {
		rotated, err := key.Rotate(w.now())
		require.NoError(w.t, err)
		return rotated
	})
}

// Change is the storage: a ChangeFunc.
func (w *world) Change(_ context.Context, edit func(*keyring.Key) *keyring.Key) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return w.broken
	}
	if edited := edit(w.key); edited != nil {
		w.key = edited
		w.writes++
	}
	return nil
}

func (w *world) read() (*Token, error) { return w.readWith(w.current()) }

func (w *world) readWith(key *keyring.Key) (*Token, error) {
	return w.exchange.Token(w.t.Context(), w.client, Request{Key: key, Change: w.Change, Role: "r", RequestID: "id"})
}

func (w *world) mustRead(version int) {
	w.t.Helper()
	token, err := w.read()
	require.NoError(w.t, err)
	require.Equal(w.t, w.current().Version(version).KeyID(), token.KeyID)
}

func (w *world) active() int { return w.current().Active(w.now()).Number() }

func (w *world) stored() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writes
}

func TestFirstAcceptanceIsStoredOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	for range 5 {
		w.mustRead(1)
	}
	require.Equal(t, 1, w.stored())
	require.NotZero(t, w.current().Version(1).AcceptedTime())
	require.Len(t, w.provider.seen(), 5)
}

func TestManualReadSwitchesForwardAndBackWithoutAFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	w.mustRead(1)
	w.rotate()
	w.mustRead(1)
	key := w.current()

	w.provider.accept(key.Version(2)) // the new key was pasted
	w.mustRead(2)
	require.Equal(t, 2, w.active())
	require.Equal(t, keyring.ByProvider, w.current().Version(2).ActivatedBy())
	require.NotZero(t, w.current().Version(2).AcceptedTime())
	require.Contains(t, w.log.String(), "key=myapi from=1 to=2 role=r request_id=id")
	writes := w.stored()
	w.mustRead(2)
	require.Equal(t, writes, w.stored(), "one stored switch")

	w.pass(2 * time.Minute)
	w.provider.accept(key.Version(1)) // the old one was pasted again
	w.mustRead(1)
	require.Equal(t, 1, w.active())
	require.Equal(t, 2, w.current().Staged(w.now()).Number())
}

func TestJWKSKeepsTheScheduleAndStopsTheRetirement(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.ByJWKS)
	w.mustRead(1)
	w.rotate() // active at once: there is no delay
	key := w.current()
	w.provider.accept(key.Version(1)) // its copy of the document is old
	w.mustRead(1)
	require.Equal(t, 2, w.active(), "the schedule stays")
	w.provider.seen()
	w.mustRead(1)
	require.Equal(t, []string{key.Version(1).KeyID()}, w.provider.seen(), "what worked is preferred")

	w.pass(12 * time.Second)
	w.provider.accept(key.Version(1), key.Version(2)) // it has read the document again
	w.mustRead(2)
	require.NotZero(t, w.current().Version(2).AcceptedTime())

	w.pass(2 * time.Minute)
	w.provider.accept(key.Version(1))
	w.mustRead(1)
	require.Zero(t, w.current().Version(2).AcceptedTime(), "a refusal stops the retirement of its predecessor")
}

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
	require.ErrorContains(t, err, "\nversion 2 (staged) was refused too: Client authentication")
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

func TestAChangeInTheMeantimeWins(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(w *world) *keyring.Key{
		"the version was destroyed": func(w *world) *keyring.Key { return w.key.Destroy(2) },
		"the operator activated it": func(w *world) *keyring.Key { return w.key.Activate(2, keyring.ByOperator, w.now()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, keyring.Manual)
			w.mustRead(1)
			w.rotate()
			key := w.current()
			w.provider.accept(key.Version(2))
			var once sync.Once
			var wanted *keyring.Key
			w.provider.hold = func() {
				once.Do(func() {
					w.change(func(*keyring.Key) *keyring.Key { wanted = meanwhile(w); return wanted })
				})
			}
			token, err := w.readWith(key)
			require.NoError(t, err)
			require.Equal(t, key.Version(2).KeyID(), token.KeyID)
			require.Same(t, wanted, w.current(), "what was learned did not undo it")
		})
	}
}

func TestAKeyMadeAnewIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	old := w.current()
	w.key = newWorld(t, keyring.Manual).key
	_, err := w.readWith(old)
	require.NoError(t, err)
	require.Zero(t, w.stored())
}

func TestANodeThatCannotStorePrefersWhatWorks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, keyring.Manual)
	w.mustRead(1)
	w.rotate()
	w.broken = context.DeadlineExceeded
	key := w.current()
	w.provider.accept(key.Version(2))
	w.mustRead(2)
	w.provider.seen()
	for range 3 {
		w.mustRead(2)
	}
	require.Len(t, w.provider.seen(), 3, "the refused version is not tried again")
	require.Equal(t, 1, w.active())
	require.Contains(t, w.log.String(), "could not be stored")
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
	memory := w.exchange.memories.of(w.current().ID())
	_, leads := memory.enterRound(w.now())
	require.True(t, leads)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := w.exchange.Token(ctx, w.client, Request{Key: w.current()})
	require.ErrorContains(t, err, "Unable to load public key")
	memory.leaveRound(false, w.now())
}
