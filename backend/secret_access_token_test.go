package backend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func (m *mount) endLease(operation logical.Operation, lease *logical.Secret) (*logical.Response, error) {
	return m.HandleRequest(m.tb.Context(), &logical.Request{Operation: operation, Path: "creds/myapi", Storage: m.storage, Secret: lease})
}

// revoke ends the lease of a response as Vault does: with what it stored of it, as JSON.
func (m *mount) revoke(leased *logical.Response) {
	m.tb.Helper()
	lease := *leased.Secret
	lease.InternalData = overJSON(m.tb, lease.InternalData)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := m.HandleRequest(ctx, &logical.Request{
		ID: "request-1", Operation: logical.RevokeOperation, Path: "creds/myapi", MountPoint: mountPoint, Storage: m.storage,
		Data: overJSON(m.tb, leased.Data), Secret: &lease,
	})
	if err != nil || resp.IsError() {
		m.tb.Errorf("a lease must always end: %v, %v", resp, err)
	}
}

func TestRevoke_LeaseCannotBeRenewed(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	_, err := m.endLease(logical.RenewOperation, m.read("creds/myapi").Secret)
	require.ErrorIs(t, err, logical.ErrUnsupportedOperation)
}

func TestRevoke_LeaseAlwaysEnds(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(*mount, *provider){
		"unchanged":      func(*mount, *provider) {},
		"twice":          func(m *mount, _ *provider) { _, _ = m.endLease(logical.RevokeOperation, m.read("creds/myapi").Secret) },
		"role deleted":   func(m *mount, _ *provider) { m.delete("roles/myapi") },
		"key disabled":   func(m *mount, _ *provider) { m.write("keys/myapi", map[string]any{"disabled": true}) },
		"provider gone":  func(_ *mount, p *provider) { p.Close() },
		"config broken":  func(m *mount, _ *provider) { m.write("config", map[string]any{"allowed_hosts": "idp.example"}) },
		"storage is out": func(m *mount, _ *provider) { m.storage.intercept(func(verb, string) error { return errStorage }) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p := newReadyMount(t)
			lease := m.read("creds/myapi").Secret
			lease.InternalData = overJSON(t, lease.InternalData)
			harm(m, p)
			m.InvalidateKey(t.Context(), "role/myapi")
			resp, err := m.endLease(logical.RevokeOperation, lease)
			require.NoError(t, err)
			require.False(t, resp.IsError())
			require.Empty(t, p.requests(revocationPath), "no role requires it")
			require.NotContains(t, m.log.String(), "[WARN]")
		})
	}
}

func TestRevoke_LeaseOfEarlierPluginVersionEnds(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	_, err := m.endLease(logical.RevokeOperation, &logical.Secret{InternalData: map[string]any{"secret_type": "access_token"}})
	require.NoError(t, err)
}

// newRevokingMount returns a ready mount whose role has revoke_tokens.
func newRevokingMount(tb testing.TB) (*mount, *provider) {
	tb.Helper()
	m, p := newReadyMount(tb)
	m.write("roles/myapi", map[string]any{"revoke_tokens": true})
	return m, p
}

func TestRevoke_LeaseEndRevokesToken(t *testing.T) {
	t.Parallel()
	m, p := newRevokingMount(t)
	leased := m.read("creds/myapi")
	require.Equal(t, map[string]any{
		"secret_type": "access_token", "role": "myapi", "revoke_with_key": "myapi", "revoke_with_key_id": m.keyOwnID(),
		"revoke_at_issuer": p.issuer(), "revoke_as_client": "my-client",
	}, leased.Secret.InternalData, "no token in it")
	token := leased.Data["access_token"].(string)
	require.True(t, p.active(token))
	m.revoke(leased)
	require.False(t, p.active(token))

	sent := p.requests(revocationPath)
	require.Len(t, sent, 1)
	require.Equal(t, http.MethodPost, sent[0].method)
	form := sent[0].form
	require.True(t, form.Get("token") == token, "another token") //nolint:testifylint // a failure must not show it
	assertion := form.Get("client_assertion")
	m.signedClaims(t, assertion, 1)
	require.False(t, p.requests(tokenPath)[0].form.Get("client_assertion") == assertion, "not a fresh one") //nolint:testifylint // a failure must not show it
	form.Del("token")
	form.Del("client_assertion")
	require.Equal(t, map[string][]string{
		"token_type_hint": {"access_token"}, "client_id": {"my-client"}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}, map[string][]string(form))
	require.NotContains(t, m.log.String(), "[WARN]")

	m.revoke(leased) // again: Vault may repeat it
	require.NotContains(t, m.log.String(), "[WARN]")
}

// keyOwnID returns the ID that distinguishes the key "myapi" from a later one of that name.
func (m *mount) keyOwnID() string {
	m.tb.Helper()
	key, err := keyring.Load(m.tb.Context(), m.storage, "myapi")
	require.NoError(m.tb, err)
	return key.ID()
}

func TestRevoke_FollowsLeaseNotRole(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*mount){
		"role deleted": func(m *mount) { m.delete("roles/myapi") },
		"role on another key": func(m *mount) {
			m.write("keys/second", map[string]any{"type": "ed25519"})
			m.write("roles/myapi", map[string]any{"key": "second"})
		},
		"role that no longer revokes": func(m *mount) { m.write("roles/myapi", map[string]any{"revoke_tokens": false}) },
		"role that is shared now":     func(m *mount) { m.write("roles/myapi", map[string]any{"revoke_tokens": false, "delivery": "shared"}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p := newRevokingMount(t)
			leased := m.read("creds/myapi")
			change(m)
			m.revoke(leased)
			require.False(t, p.active(leased.Data["access_token"].(string)))
		})
	}
}

func TestRevoke_LeaseWithoutRevocationRevokesNothing(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	leased := m.read("creds/myapi")
	m.write("roles/myapi", map[string]any{"revoke_tokens": true})
	m.revoke(leased)
	require.True(t, p.active(leased.Data["access_token"].(string)))
	require.Empty(t, p.requests(revocationPath))
}

func TestRevoke_ExpiredTokenIsSkipped(t *testing.T) {
	t.Parallel()
	m, p := newRevokingMount(t)
	leased := m.read("creds/myapi")
	m.clock.advance(time.Hour)
	m.revoke(leased)
	require.Empty(t, p.requests(revocationPath))
	require.NotContains(t, m.log.String(), "[WARN]")
}

func TestRevoke_UsesKeysRevocationEndpoint(t *testing.T) {
	t.Parallel()
	m, p := newRevokingMount(t)
	m.write("keys/myapi", map[string]any{"token_endpoint": p.issuer() + tokenPath, "revocation_endpoint": p.issuer() + revocationPath})
	leased := m.read("creds/myapi")
	m.revoke(leased)
	require.False(t, p.active(leased.Data["access_token"].(string)))
	require.Empty(t, p.requests(discoveryPath))
}

// TestRevoke_IsSignedByVersionThatWorks covers a node that cannot store what it learned.
func TestRevoke_IsSignedByVersionThatWorks(t *testing.T) {
	t.Parallel()
	m, p := newRevokingMount(t)
	m.read("creds/myapi")
	m.write("keys/myapi/rotate", nil)
	p.registerVersion(m, 2)
	m.storage.failEach(verb.writes)
	leased := m.read("creds/myapi")
	require.Equal(t, 1, m.read("keys/myapi").Data["active_version"])
	m.revoke(leased)
	require.False(t, p.active(leased.Data["access_token"].(string)))
}

func TestRevoke_FailureIsLogged(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		harm func(*mount, *provider, *logical.Response)
		text string
	}{
		"key deleted": {func(m *mount, _ *provider, _ *logical.Response) {
			m.delete("roles/myapi")
			m.write("keys/myapi", map[string]any{"deletion_allowed": true})
			m.delete("keys/myapi")
		}, "the key it was obtained with was deleted"},
		"another key of that name": {func(m *mount, p *provider, _ *logical.Response) {
			m.remakeKey("myapi")
			m.write("keys/myapi", map[string]any{"client_id": "my-client", "issuer": p.issuer()})
			p.register(m, "myapi", "my-client")
		}, "the key it was obtained with was deleted"},
		"key disabled": {func(m *mount, _ *provider, _ *logical.Response) {
			m.write("keys/myapi", map[string]any{"disabled": true})
		}, "is disabled"},
		"another key registered": {func(m *mount, p *provider, _ *logical.Response) {
			m.write("keys/other", map[string]any{"type": "ed25519"})
			p.register(m, "other", "my-client")
		}, "HTTP 400"},
		"another issuer": {func(m *mount, _ *provider, _ *logical.Response) {
			m.write("keys/myapi", map[string]any{"issuer": newProvider(m.tb, idp.Options{}).issuer()})
		}, "the key's issuer or client_id has changed since"},
		"another client": {func(m *mount, _ *provider, _ *logical.Response) {
			m.write("keys/myapi", map[string]any{"client_id": "another"})
		}, "the key's issuer or client_id has changed since"},
		"a panic": {func(m *mount, _ *provider, _ *logical.Response) {
			m.InvalidateKey(m.tb.Context(), "key/myapi")
			m.storage.intercept(func(verb, string) error { panic("hunter2") })
		}, "internal error; the stack trace is in Vault's log with request_id=request-1"},
		"provider answers 503": {func(_ *mount, p *provider, _ *logical.Response) {
			p.answerWith(revocationPath, http.StatusServiceUnavailable, jsonType, `{}`)
		}, "HTTP 503"},
		"provider gone": {func(m *mount, p *provider, _ *logical.Response) {
			p.Close()
			m.clients.values[configStoragePath].value.Close() // and its kept connection, which may not have noticed yet
		}, "connection refused"},
		"host no longer allowed": {func(m *mount, _ *provider, _ *logical.Response) {
			m.write("config", map[string]any{"allowed_hosts": "idp.example"})
		}, "allowed_hosts"},
		"no revocation endpoint": {func(m *mount, _ *provider, _ *logical.Response) {
			m.write("keys/myapi", map[string]any{"revocation_endpoint": ""})
		}, "the key has no revocation_endpoint"},
		"storage out": {func(m *mount, _ *provider, _ *logical.Response) {
			m.InvalidateKey(m.tb.Context(), "key/myapi")
			m.storage.intercept(func(verb, string) error { return errStorage })
		}, "storage is down"},
		"storage of the configuration out": {func(m *mount, _ *provider, _ *logical.Response) {
			m.InvalidateKey(m.tb.Context(), "config")
			m.storage.intercept(func(_ verb, path string) error {
				if path == "config" {
					return errStorage
				}
				return nil
			})
		}, "storage is down"},
		"no token in the lease": {func(_ *mount, _ *provider, leased *logical.Response) {
			leased.Data = map[string]any{"token_jti": leased.Data["token_jti"]}
		}, "holds no token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m, p := newRevokingMount(t)
			leased := m.read("creds/myapi")
			token := leased.Data["access_token"].(string)
			test.harm(m, p, leased)
			m.revoke(leased)
			require.True(t, p.active(token), "the token is still active")

			logged := m.log.String()
			require.Equal(t, 1, strings.Count(logged, "[WARN]"))
			for _, part := range []string{"token revocation failed; the token expires on its own", test.text, "token_jti=" + leased.Data["token_jti"].(string), "role=myapi", "key=myapi"} {
				require.Contains(t, logged, part)
			}
			requireClean(t, logged)
		})
	}
}

func TestRevoke_UnreachableProviderPausesRequests(t *testing.T) {
	t.Parallel()
	m, p := newRevokingMount(t)
	m.write("keys/second", map[string]any{"type": "ed25519", "client_id": "second", "issuer": p.issuer(), "revocation_endpoint": p.issuer() + revocationPath})
	m.write("roles/second", map[string]any{"key": "second", "revoke_tokens": true})
	p.register(m, "second", "second")
	first, second := m.read("creds/myapi"), m.read("creds/second")
	p.answerWith(revocationPath, http.StatusServiceUnavailable, jsonType, `{}`)
	sent := func() int { return len(p.requests(revocationPath)) }

	for range 5 {
		m.revoke(first)
	}
	require.Equal(t, 1, sent())
	require.Equal(t, 4, strings.Count(m.log.String(), "skipped: the provider was unreachable less than 10s ago"))
	m.revoke(second)
	require.Equal(t, 1, sent(), "it is the same provider")
	elsewhere := newProvider(t, idp.Options{})
	m.write("keys/third", map[string]any{"type": "ed25519", "client_id": "third", "issuer": elsewhere.issuer(), "revocation_endpoint": elsewhere.issuer() + revocationPath})
	m.write("roles/third", map[string]any{"key": "third", "revoke_tokens": true})
	elsewhere.register(m, "third", "third")
	third := m.read("creds/third")
	m.revoke(third)
	require.False(t, elsewhere.active(third.Data["access_token"].(string)), "another provider is reachable")
	m.clock.advance(revocationPause)
	m.revoke(first)
	require.Equal(t, 2, sent(), "tried again")

	m.clock.advance(revocationPause)
	p.interceptWith(nil)
	m.revoke(first)
	m.revoke(first)
	require.Equal(t, 4, sent(), "the provider is back")
}

func TestRevoke_RejectionPausesNothing(t *testing.T) {
	t.Parallel()
	m, p := newRevokingMount(t)
	leased := m.read("creds/myapi")
	p.answerWith(revocationPath, http.StatusBadRequest, jsonType, `{"error":"invalid_client"}`)
	for range 3 {
		m.revoke(leased)
	}
	require.Len(t, p.requests(revocationPath), 3)
}

func TestRevoke_DoesNotWaitForSilentProvider(t *testing.T) {
	t.Parallel()
	m, p := newRevokingMount(t)
	m.write("config", map[string]any{"request_timeout": 45})
	leased := m.read("creds/myapi")
	p.interceptWith(silent(revocationPath))
	begun := time.Now()
	m.revoke(leased)
	require.Less(t, time.Since(begun), revocationTimeout+eventually)
	m.revoke(leased)
	require.Len(t, p.requests(revocationPath), 1, "the next one is skipped")
	require.Equal(t, 2, strings.Count(m.log.String(), "[WARN]"))
	requireClean(t, m.log.String())
}

func TestRevoke_TimesOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, begun := newRevocations(time.Now), time.Now()
		err := r.do(t.Context(), keyNamedK(t), func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		require.EqualError(t, err, "no response within 5s")
		require.Equal(t, 5*time.Second, time.Since(begun))
	})
}

func TestRevoke_SixteenRunConcurrently(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r, key := newRevocations(time.Now), keyNamedK(t)
		var begun atomic.Int64
		release := make(chan struct{})
		releaseAll := sync.OnceFunc(func() { close(release) })
		defer releaseAll()
		errs := make([]error, 40)
		var all sync.WaitGroup
		for i := range errs {
			all.Go(func() {
				errs[i] = r.do(t.Context(), key, func(context.Context) error {
					begun.Add(1)
					<-release
					return nil
				})
			})
		}
		synctest.Wait()
		require.EqualValues(t, 16, begun.Load())
		time.Sleep(4 * time.Second)
		release <- struct{}{} // one ends, and one that waits begins
		synctest.Wait()
		require.EqualValues(t, 17, begun.Load())
		time.Sleep(time.Second)
		synctest.Wait()
		releaseAll()
		all.Wait()
		failed := 0
		for _, err := range errs {
			if err != nil {
				require.EqualError(t, err, "too many revocations in progress: no response within 5s")
				failed++
			}
		}
		require.Equal(t, 40-17, failed)
		require.EqualValues(t, 17, begun.Load())
		require.NoError(t, r.do(t.Context(), key, func(context.Context) error { return nil }), "every slot is free again")
	})
}

func TestRevoke_OnlyUnreachableProviderPauses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		err    error
		pauses bool
	}{
		"none":        {nil, false},
		"unavailable": {&tokenendpoint.Error{Reason: tokenendpoint.NetworkFailure}, true},
		"timed out":   {fmt.Errorf("wrapped: %w", &tokenendpoint.Error{Reason: tokenendpoint.Timeout}), true},
		"rejected":    {&tokenendpoint.Error{Reason: tokenendpoint.UnknownKey}, false},
		"blocked":     {&tokenendpoint.Error{Reason: tokenendpoint.HostNotListed}, false},
		"malformed":   {&tokenendpoint.Error{Reason: tokenendpoint.InvalidResponse}, false},
		"canceled":    {&tokenendpoint.Error{Reason: tokenendpoint.Canceled}, false},
		"another":     {errors.New("no endpoint"), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				r, key, calls := newRevocations(time.Now), keyNamedK(t), 0
				try := func() error {
					return r.do(t.Context(), key, func(context.Context) error {
						calls++
						return test.err
					})
				}
				require.Equal(t, test.err, try())
				time.Sleep(revocationPause - time.Nanosecond)
				err := try()
				if !test.pauses {
					require.Equal(t, test.err, err)
					require.Equal(t, 2, calls)
					return
				}
				require.EqualError(t, err, "skipped: the provider was unreachable less than 10s ago")
				require.Equal(t, 1, calls)
				time.Sleep(time.Nanosecond)
				require.Equal(t, test.err, try())
				require.Equal(t, 2, calls)
			})
		})
	}
}
