package backend

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

const accessTokenType = "access_token"

// What a lease holds beside the role's name, if its token is to be revoked: the role may be gone by then.
const (
	leaseKey    = "revoke_with_key"    // the key's name
	leaseKeyID  = "revoke_with_key_id" // tells it from a later key of that name
	leaseIssuer = "revoke_at_issuer"   // no other provider is shown the token
	leaseClient = "revoke_as_client"
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
func (b *backend) revokeAtProvider(ctx context.Context, req *logical.Request, keyName string) (err error) {
	defer b.recoverPanic(req, nil, &err)
	accessToken, ok := req.Data["access_token"].(string)
	if !ok {
		return errors.New("the lease holds no token")
	}
	if b.hasEnded(req.Data["expires_at"]) {
		return nil
	}
	key, err := b.keys.get(ctx, req.Storage, keyName)
	switch {
	case err != nil:
		return err
	case key == nil || key.ID() != req.Secret.InternalData[leaseKeyID]:
		return errors.New("the key that it was got with was deleted")
	case key.Settings().Issuer != req.Secret.InternalData[leaseIssuer] || key.Settings().ClientID != req.Secret.InternalData[leaseClient]:
		return errors.New("the key was registered elsewhere since")
	}
	if err := checkUsable(req.MountPoint, key); err != nil {
		return err
	}
	config, err := b.config.get(ctx, req.Storage, configStoragePath)
	if err != nil {
		return err
	}
	return b.revocations.do(ctx, key, func(ctx context.Context) error {
		revoked, err := b.exchanger.Revoke(ctx, config.client, key, b.exchanger.Signing(key), accessToken)
		if err == nil && !revoked {
			return errors.New("the provider names no revocation endpoint")
		}
		return err
	})
}

// hasEnded says whether a token is over, so that there is nothing to revoke.
func (b *backend) hasEnded(expiresAt any) bool {
	text, _ := expiresAt.(string)
	end, err := time.Parse(time.RFC3339, text)
	return err == nil && b.now().After(end)
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

var errPaused = fmt.Errorf("not tried, as the provider was not reached less than %s ago", revocationPause)

// revocations bounds what the ends of leases ask of the provider, and how long they wait for it.
type revocations struct {
	now   func() time.Time
	slots chan struct{}

	mu     sync.Mutex
	paused map[string]time.Time // until when, by the issuer
}

func newRevocations(now func() time.Time) *revocations {
	return &revocations{now: now, slots: make(chan struct{}, maxRevocations), paused: map[string]time.Time{}}
}

// do revokes with a key, unless its provider was not reached a short while ago or it takes too long.
func (r *revocations) do(ctx context.Context, key *keyring.Key, revoke func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, revocationTimeout, fmt.Errorf("no answer within %s", revocationTimeout))
	defer cancel()
	issuer := key.Settings().Issuer
	if r.isPaused(issuer) { // before it waits behind others of a provider that hangs
		return errPaused
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return fmt.Errorf("too many revocations wait: %w", context.Cause(ctx))
	}
	if r.isPaused(issuer) {
		return errPaused
	}
	err := revoke(ctx)
	r.note(issuer, err)
	return err
}

func (r *revocations) isPaused(issuer string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now().Before(r.paused[issuer])
}

func (r *revocations) note(issuer string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.paused, issuer)
	failure, ok := errors.AsType[*tokenendpoint.Error](err)
	if ok && (failure.Kind == tokenendpoint.Unavailable || failure.Kind == tokenendpoint.TimedOut) {
		r.paused[issuer] = r.now().Add(revocationPause)
	}
}
