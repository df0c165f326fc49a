package backend

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
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
		Fields: responseSchemas(tokenFields()),
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
	r := &tokenRequest{backend: b, req: req, key: key, config: config}
	return b.revocations.do(ctx, key, func(ctx context.Context) error {
		revoked, err := r.revoke(ctx, b.exchanger.Signing(key), accessToken)
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
