package backend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"golang.org/x/sync/semaphore"
)

const accessTokenType = "access_token"

// What a lease of a role with revoke_tokens also holds: the role may be gone when it ends.
const (
	leaseKey    = "revoke_with_key"
	leaseKeyID  = "revoke_with_key_id" // distinguishes the key from a later one of that name
	leaseIssuer = "revoke_at_issuer"   // the token is sent to no other provider
	leaseClient = "revoke_as_client"
)

// accessTokenSecret returns the type of the lease on an access token. It cannot be renewed: a new
// token is a new read.
func (b *backend) accessTokenSecret() *framework.Secret {
	return &framework.Secret{
		Type:   accessTokenType,
		Fields: declaredFields("token"),
		Revoke: b.revokeAccessToken,
	}
}

// revokeAccessToken ends the lease and, if the role had revoke_tokens, has the provider revoke the
// token. It never fails: a lease that cannot be revoked blocks `vault secrets disable`, and the
// token expires on its own.
func (b *backend) revokeAccessToken(
	ctx context.Context, req *logical.Request, _ *framework.FieldData,
) (*logical.Response, error) {
	lease := req.Secret.InternalData
	keyName, revokes := lease[leaseKey].(string)
	if !revokes {
		return nil, nil
	}
	if err := b.revokeAtProvider(ctx, req, keyName); err != nil {
		b.metrics.failedRevocations.Inc()
		b.Logger().Warn("token revocation failed; the token expires on its own",
			"role", lease["role"], "key", keyName, "token_jti", req.Data["token_jti"],
			"expires_at", req.Data["expires_at"], "error", err)
	}
	return nil, nil
}

// revokeAtProvider sends an RFC 7009 request for the lease's token.
func (b *backend) revokeAtProvider(
	ctx context.Context, req *logical.Request, keyName string,
) (err error) {
	defer b.recoverPanic(req, nil, &err)
	accessToken, ok := req.Data["access_token"].(string)
	if !ok {
		return errors.New("the lease holds no token")
	}
	if b.hasExpired(req.Data["expires_at"]) {
		return nil
	}
	key, err := b.keyOfLease(ctx, req, keyName)
	if err != nil {
		return err
	}
	client, err := b.clients.get(ctx, req.Storage, configStoragePath)
	if err != nil {
		return err
	}
	request := exchange.Request{Key: key, Current: func(ctx context.Context) (*keyring.Key, error) {
		return b.keyOfLease(ctx, req, keyName)
	}}
	return b.revocations.do(ctx, key, func(ctx context.Context) error {
		return b.exchanger.Revoke(ctx, client, request, b.exchanger.Signing(key), accessToken)
	})
}

// keyOfLease returns the key that the lease's token was obtained with, while it may sign.
func (b *backend) keyOfLease(
	ctx context.Context, req *logical.Request, name string,
) (*keyring.Key, error) {
	lease := req.Secret.InternalData
	key, err := b.keys.get(ctx, req.Storage, name)
	switch {
	case err != nil:
		return nil, err
	case key == nil || key.ID() != lease[leaseKeyID]:
		return nil, errors.New("the key it was obtained with was deleted")
	case key.Settings().Issuer != lease[leaseIssuer],
		key.Settings().ClientID != lease[leaseClient]:
		return nil, errors.New("the key's issuer or client_id has changed since")
	}
	return key, checkUsable(req.MountPoint, key)
}

// hasExpired reports whether a token has expired, so that there is nothing to revoke.
func (b *backend) hasExpired(expiresAt any) bool {
	text, _ := expiresAt.(string)
	expiry, err := time.Parse(time.RFC3339, text)
	return err == nil && b.now().After(expiry)
}

const (
	// revocationTimeout is how long the end of a lease may wait for the provider.
	revocationTimeout = 5 * time.Second
	// maxRevocations run concurrently.
	maxRevocations = 16
	// revocationPause follows a failure to reach the provider: Vault ends leases one after another
	// when a mount is disabled, and waiting each time for a provider that is down would take hours.
	revocationPause = 10 * time.Second
)

var errPaused = fmt.Errorf("skipped: the provider was unreachable less than %s ago",
	revocationPause)

// revocations limits the requests that ending leases send to the provider, and the wait for them.
type revocations struct {
	now    func() time.Time
	slots  *semaphore.Weighted
	paused sync.Map // until what time.Time, by issuer
}

func newRevocations(now func() time.Time) *revocations {
	return &revocations{now: now, slots: semaphore.NewWeighted(maxRevocations)}
}

// do calls revoke, unless the key's provider was recently unreachable or too many others wait.
func (r *revocations) do(
	ctx context.Context, key *keyring.Key, revoke func(context.Context) error,
) error {
	ctx, cancel := context.WithTimeoutCause(ctx, revocationTimeout,
		fmt.Errorf("no response within %s", revocationTimeout))
	defer cancel()
	issuer := key.Settings().Issuer
	if r.isPaused(issuer) { // checked before waiting behind others of a provider that hangs
		return errPaused
	}
	if r.slots.Acquire(ctx, 1) != nil {
		return fmt.Errorf("too many revocations in progress: %w", context.Cause(ctx))
	}
	defer r.slots.Release(1)
	if r.isPaused(issuer) {
		return errPaused
	}
	err := revoke(ctx)
	r.record(issuer, err)
	return err
}

func (r *revocations) isPaused(issuer string) bool {
	until, paused := r.paused.Load(issuer)
	return paused && r.now().Before(until.(time.Time))
}

func (r *revocations) record(issuer string, err error) {
	if failure, ok := errors.AsType[*tokenendpoint.Error](err); ok {
		switch failure.Reason.Kind() {
		case tokenendpoint.KindUnavailable, tokenendpoint.KindTimedOut:
			r.paused.Store(issuer, r.now().Add(revocationPause))
			return
		}
	}
	r.paused.Delete(issuer)
}
