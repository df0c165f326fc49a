package backend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

const accessTokenType = "access_token"

// What a lease holds beside the role's name, if its token is to be revoked: the role may be gone by then.
const (
	leaseKey   = "revoke_with_key"    // the key's name
	leaseKeyID = "revoke_with_key_id" // tells it from a later key of that name
)

// accessTokenSecret is the lease on an access token. It cannot be renewed: a new token is a new read.
func (b *backend) accessTokenSecret() *framework.Secret {
	return &framework.Secret{
		Type:   accessTokenType,
		Fields: computedFields(tokenFields()),
		Revoke: b.revokeAccessToken,
	}
}

// revokeAccessToken lets the lease end, and has the provider revoke the token where the role asked for it. It never fails:
// a lease that cannot be revoked blocks `vault secrets disable`, and the token ends by itself.
func (b *backend) revokeAccessToken(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	keyName, revokes := req.Secret.InternalData[leaseKey].(string)
	if !revokes {
		return nil, nil
	}
	if err := b.revokeAtProvider(ctx, req, keyName); err != nil {
		b.Logger().Warn("a token was not revoked at the provider; it ends by itself", "role", req.Secret.InternalData["role"], "key", keyName,
			"token_jti", req.Data["token_jti"], "expires_at", req.Data["expires_at"], "error", err)
	}
	return nil, nil
}

// revokeAtProvider sends an RFC 7009 request for the token that the lease was for.
func (b *backend) revokeAtProvider(ctx context.Context, req *logical.Request, keyName string) error {
	accessToken, ok := req.Data["access_token"].(string)
	if !ok {
		return errors.New("the lease holds no token")
	}
	key, err := b.keys.get(ctx, req.Storage, keyName)
	switch {
	case err != nil:
		return err
	case key == nil || key.ID() != req.Secret.InternalData[leaseKeyID]:
		return errors.New("the key that it was got with was deleted")
	}
	if err := checkUsable(req.MountPoint, key); err != nil {
		return err
	}
	config, err := b.config.get(ctx, req.Storage, configStoragePath)
	if err != nil {
		return err
	}
	return b.revocations.do(ctx, key, func(ctx context.Context) error {
		revoked, err := b.exchanger.Revoke(ctx, config.client, exchange.Request{Key: key}, b.exchanger.Signing(key), accessToken)
		if err == nil && !revoked {
			return errors.New("the provider names no revocation endpoint")
		}
		return err
	})
}

const (
	// revocationTimeout is how long the end of a lease may wait for the provider.
	revocationTimeout = 5 * time.Second
	// maxRevocations go on at a time.
	maxRevocations = 16
	// revocationPause follows a failure to reach the provider: Vault ends leases one after the other when a mount is disabled,
	// and to wait for a provider that is down each time would take hours.
	revocationPause = 10 * time.Second
)

// revocations bounds what the ends of leases ask of the provider, and how long they wait for it.
type revocations struct {
	now   func() time.Time
	slots chan struct{}

	mu     sync.Mutex
	paused map[string]time.Time // until when, by the key's own id
}

func newRevocations(now func() time.Time) *revocations {
	return &revocations{now: now, slots: make(chan struct{}, maxRevocations), paused: map[string]time.Time{}}
}

// do revokes with a key, unless its provider was not reached a short while ago or it takes too long.
func (r *revocations) do(ctx context.Context, key *keyring.Key, revoke func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, revocationTimeout, fmt.Errorf("no answer within %s", revocationTimeout))
	defer cancel()
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return fmt.Errorf("too many revocations wait: %w", context.Cause(ctx))
	}
	if r.isPaused(key.ID()) {
		return fmt.Errorf("not tried, as the provider was not reached less than %s ago", revocationPause)
	}
	err := revoke(ctx)
	r.note(key.ID(), err)
	return err
}

func (r *revocations) isPaused(keyID string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now().Before(r.paused[keyID])
}

func (r *revocations) note(keyID string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.paused, keyID)
	failure, ok := errors.AsType[*tokenendpoint.Error](err)
	if ok && (failure.Kind == tokenendpoint.Unavailable || failure.Kind == tokenendpoint.TimedOut) {
		r.paused[keyID] = r.now().Add(revocationPause)
	}
}
