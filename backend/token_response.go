package backend

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokencache"
	"github.com/hashicorp/vault/sdk/logical"
)

// leasedResponse returns a token under a lease, which holds what its end needs.
func (r *tokenRequest) leasedResponse(token *exchange.Token) *logical.Response {
	internal := map[string]any{"role": r.name}
	if r.role.RevokeTokens {
		settings := r.key.Settings()
		internal[leaseKey], internal[leaseKeyID] = r.key.Name(), r.key.ID()
		internal[leaseIssuer], internal[leaseClient] = settings.Issuer, settings.ClientID
	}
	resp := r.Secret(accessTokenType).Response(tokenData(token), internal)
	resp.Secret.TTL = r.role.remainingTTL(token, r.now())
	return resp
}

// sharedResponse returns the token that all readers of the role share.
func (r *tokenRequest) sharedResponse(ctx context.Context) (*logical.Response, error) {
	source := tokencache.Source{Fetch: r.fetchInBackground, Margin: r.role.margin}
	token, err := r.tokens.Token(ctx, r.name, r.inputs(), source)
	if role, err := r.roles.get(ctx, r.req.Storage, r.name); role == nil || err != nil {
		r.tokens.Drop(r.name) // the role was deleted before this read could use it
	}
	switch {
	case errors.Is(err, tokencache.ErrClosed):
		return nil, logical.CodedError(http.StatusServiceUnavailable, err.Error())
	case err != nil && ctx.Err() != nil:
		return nil, logical.CodedError(http.StatusGatewayTimeout,
			"the request was canceled before a token was obtained")
	case err != nil:
		return nil, r.failed(err)
	}
	if token.RequestedAt.Add(token.Lifetime).Sub(r.now()) < r.role.margin(token.Lifetime) {
		r.metrics.servedLate.Inc()
	}
	resp := r.withWarnings(&logical.Response{Data: sharedData(r.role, token)}, token.Token)
	if token.Failure != nil {
		resp.AddWarning("The token could not be refreshed yet; it is valid until expires_at: " +
			r.failed(token.Failure).Error())
	}
	return resp, nil
}

// withWarnings adds what the reader should know of the token.
func (r *tokenRequest) withWarnings(
	resp *logical.Response, token *exchange.Token,
) *logical.Response {
	if len(token.MissingScopes) > 0 {
		resp.AddWarning(missingScopes(r.req.MountPoint, r.name, token))
	}
	if !r.role.keepsMargin(token.Lifetime) {
		resp.AddWarning(marginTooLong(r.req.MountPoint, r.name, r.role, token))
	}
	return resp
}

// tokenData returns what a leased token is delivered with.
func tokenData(token *exchange.Token) map[string]any {
	return map[string]any{
		"access_token": token.AccessToken,
		"token_type":   token.Type,
		"scope":        token.Scope,
		"issued_at":    timestamp(token.RequestedAt),
		"expires_at":   timestamp(token.RequestedAt.Add(token.Lifetime)),
		"expires_in":   int64(token.Lifetime / time.Second),
		"key_id":       token.KeyID,
		"token_jti":    token.JTI,
	}
}

func unleasedData(r *role, token *exchange.Token, now time.Time) map[string]any {
	data := tokenData(token)
	addRotation(data, r, token, r.remainingTTL(token, now))
	return data
}

// sharedData has no expires_in: it would differ for each reader, and some compare what they read.
func sharedData(r *role, token *tokencache.Shared) map[string]any {
	data := tokenData(token.Token)
	delete(data, "expires_in")
	addRotation(data, r, token.Token, token.TTL)
	return data
}

// addRotation adds the fields by which Vault Agent and the Vault Secrets Operator know when to read
// a secret without a lease again: they know them from static secrets.
func addRotation(data map[string]any, r *role, token *exchange.Token, ttl time.Duration) {
	data["ttl"] = int64(ttl / time.Second)
	data["rotation_period"] = int64(r.usableLifetime(token.Lifetime) / time.Second)
	data["last_vault_rotation"] = data["issued_at"]
}
