package backend

import (
	"context"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const accessTokenType = "access_token"

// accessTokenSecret is the lease on an access token. It cannot be renewed: a new token is a new read.
func (b *backend) accessTokenSecret() *framework.Secret {
	return &framework.Secret{
		Type:   accessTokenType,
		Fields: computedFields(tokenFields()),
		Revoke: b.revokeAccessToken,
	}
}

// revokeAccessToken lets the lease end. It never fails: a lease that cannot be revoked blocks `vault secrets disable`,
// and the token ends by itself.
func (b *backend) revokeAccessToken(context.Context, *logical.Request, *framework.FieldData) (*logical.Response, error) {
	return nil, nil
}

// refreshMargin is how long before a token's end its reader should have the next one: a fifth of its life, between 10 s
// and 60 s so that a Vault Agent's retries fit in, but never more than half of it.
func refreshMargin(life time.Duration) time.Duration {
	margin := min(time.Minute, max(10*time.Second, life/5), life/2)
	return max(margin.Truncate(time.Second), time.Second)
}

// leaseTTL is the token's life less the margin, and at least 1 s: Vault takes 0 for the mount's default, which is days.
func leaseTTL(life time.Duration) time.Duration {
	return max(life-refreshMargin(life), time.Second)
}
