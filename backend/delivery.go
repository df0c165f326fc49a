package backend

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokencache"
)

// delivery is how a role's readers get tokens.
type delivery string

const (
	leased   delivery = "leased"   // a fresh token each, under a lease
	unleased delivery = "unleased" // a fresh token each, without a lease
	shared   delivery = "shared"   // one token for all readers on this node
)

func deliveries() []delivery { return []delivery{leased, unleased, shared} }

func deliveryName(name string) (string, error) {
	name = strings.TrimSpace(name)
	if !slices.Contains(deliveries(), delivery(name)) {
		return "", fmt.Errorf("must be %s, %s or %s, not %s", leased, unleased, shared, quoted(name))
	}
	return name, nil
}

// marginWithinLife refuses what no token could have: the longest life that is counted with is a day.
func marginWithinLife(margin time.Duration) (time.Duration, error) {
	if margin < 0 || margin >= 24*time.Hour {
		return 0, fmt.Errorf("must be at least 0 and less than 24h, the longest life that a token can have here")
	}
	return margin, nil
}

// marginByRule is how long before a token's end its reader should have the next one: a fifth of its life, between 10 s and
// 60 s so that a Vault Agent's retries fit in, but never more than half of it.
func marginByRule(life time.Duration) time.Duration {
	margin := min(time.Minute, max(10*time.Second, life/5), life/2)
	return max(margin.Truncate(time.Second), time.Second)
}

// margin is the role's refresh_margin, or the rule's where that is not set or no token of this life could keep it.
func (r *role) margin(life time.Duration) time.Duration {
	if r.RefreshMargin == 0 || !r.keepsMargin(life) {
		return marginByRule(life)
	}
	return r.RefreshMargin
}

// keepsMargin says whether a token of this life can keep the role's refresh_margin.
func (r *role) keepsMargin(life time.Duration) bool { return r.RefreshMargin < life }

// period is how much of its life a token is used for: at least 1 s, as Vault takes a lease of 0 for the mount's default,
// which is days.
func (r *role) period(life time.Duration) time.Duration {
	return max(life-r.margin(life), time.Second)
}

// rest is what is left of a fresh token's period. Vault and the reader count from now, the token's life from when it was
// asked for, which retries can put some time ago.
func (r *role) rest(token *exchange.Token, now time.Time) time.Duration {
	return max(r.period(token.Lifetime)-now.Sub(token.RequestedAt).Truncate(time.Second), time.Second)
}

// tokenFields describes the answer. What not every delivery has is optional.
func tokenFields() []computed {
	return []computed{
		{name: "access_token", kind: framework.TypeString, description: "The access token, for the header `Authorization: Bearer …`.", sensitive: true},
		{name: "token_type", kind: framework.TypeString, description: "Always Bearer."},
		{name: "scope", kind: framework.TypeString, description: "The scopes granted, separated by spaces."},
		{name: "issued_at", kind: framework.TypeString, description: "When the token was asked for (RFC 3339)."},
		{name: "expires_at", kind: framework.TypeString, description: "When the token ends (RFC 3339)."},
		{name: "key_id", kind: framework.TypeString, description: "The kid of the key that signed for it."},
		{name: "token_jti", kind: framework.TypeString, description: "The token's own id (jti), which finds it in the gateway's logs; empty if it is not a JWT."},
		{name: "expires_in", kind: framework.TypeInt64, optional: true, description: "The token's life in seconds, from issued_at. Not with delivery=shared."},
		{name: "ttl", kind: framework.TypeInt64, optional: true, description: "In how many seconds to read again. Not with delivery=leased, where the lease says it."},
		{name: "rotation_period", kind: framework.TypeInt64, optional: true, description: "How many seconds of its life the token is used for. Not with delivery=leased."},
		{name: "last_vault_rotation", kind: framework.TypeString, optional: true, description: "issued_at, under the name that static secrets have. Not with delivery=leased."},
	}
}

// tokenData is what every delivery answers with.
func tokenData(token *exchange.Token) map[string]any {
	return map[string]any{
		"access_token": token.AccessToken,
		"token_type":   token.Type,
		"scope":        token.Scope,
		"issued_at":    timestamp(token.RequestedAt),
		"expires_at":   timestamp(token.RequestedAt.Add(token.Lifetime)),
		"key_id":       token.KeyID,
		"token_jti":    token.JTI,
	}
}

func leasedData(token *exchange.Token) map[string]any {
	data := tokenData(token)
	data["expires_in"] = int64(token.Lifetime / time.Second)
	return data
}

func unleasedData(r *role, token *exchange.Token, now time.Time) map[string]any {
	data := leasedData(token)
	addRotation(data, r, token, r.rest(token, now))
	return data
}

// sharedData has no expires_in: it would be another number for each reader of one token, and some compare what they read.
func sharedData(r *role, token *tokencache.Shared) map[string]any {
	data := tokenData(token.Token)
	addRotation(data, r, token.Token, token.TTL)
	return data
}

// addRotation adds the fields by which Vault Agent and the Vault Secrets Operator tell when to read again what has no
// lease: they know them from static secrets.
func addRotation(data map[string]any, r *role, token *exchange.Token, ttl time.Duration) {
	data["ttl"] = int64(ttl / time.Second)
	data["rotation_period"] = int64(r.period(token.Lifetime) / time.Second)
	data["last_vault_rotation"] = data["issued_at"]
}
