package backend

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
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
