package backend

import (
	"context"
	"errors"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/hashicorp/vault/sdk/logical"
)

// tokenRequest is a request for a role's token, with everything that it needs.
type tokenRequest struct {
	*backend
	req    *logical.Request
	name   string // the role's
	role   *role
	key    *keyring.Key
	client *tokenendpoint.Client
}

// tokenRequestForRole returns a request for a role's token, or an error about what it lacks.
func (b *backend) tokenRequestForRole(
	ctx context.Context, req *logical.Request, name string, role *role,
) (*tokenRequest, error) {
	key, err := b.keyOfRole(ctx, req, name, role)
	if err != nil {
		return nil, err
	}
	return b.newTokenRequest(ctx, req, name, role, key)
}

// newTokenRequest returns a request for a role's token with this key, which must be usable.
func (b *backend) newTokenRequest(
	ctx context.Context, req *logical.Request, name string, role *role, key *keyring.Key,
) (*tokenRequest, error) {
	if err := checkUsable(req.MountPoint, key); err != nil {
		return nil, err
	}
	client, err := b.clients.get(ctx, req.Storage, configStoragePath)
	if err != nil {
		return nil, err
	}
	return &tokenRequest{b, req, name, role, key, client}, nil
}

// checkUsable returns an error for a key that cannot sign.
func checkUsable(mount string, key *keyring.Key) error {
	switch {
	case key.Settings().Disabled:
		return userErrorf("key %q is disabled; to enable it: vault write %skeys/%s disabled=false",
			key.Name(), mount, key.Name())
	case !registered(key.Settings()):
		return userErrorf("%s. %s", unregistered(key), registrationAdvice(mount, key))
	case !key.Client().TokenEndpointKnown():
		return userError{missingTokenEndpoint(mount, key.Name())}
	}
	return nil
}

// fetch obtains a token within request_timeout. Package exchange chooses the version that signs,
// and records the outcome.
func (r *tokenRequest) fetch(ctx context.Context) (*exchange.Token, error) {
	ctx, cancel := r.client.WithTimeout(ctx)
	defer cancel()
	return r.exchanger.Token(ctx, r.client, r.exchangeRequest())
}

// fetchInBackground is fetch where no operation around it recovers a panic.
func (r *tokenRequest) fetchInBackground(ctx context.Context) (token *exchange.Token, err error) {
	defer r.recoverPanic(r.req, nil, &err)
	return r.fetch(ctx)
}

// try obtains a token with this version and no other, and stores nothing. The caller limits ctx.
func (r *tokenRequest) try(ctx context.Context, version *keyring.Version) (*exchange.Token, error) {
	return r.exchanger.Try(ctx, r.client, r.exchangeRequest(), version)
}

// revoke has the provider revoke a token (RFC 7009).
func (r *tokenRequest) revoke(ctx context.Context, version *keyring.Version, token string) error {
	return r.exchanger.Revoke(ctx, r.client, r.exchangeRequest(), version, token)
}

// maxAssertionTTL limits an assertion that leaves Vault: until used, its holder is the client.
const maxAssertionTTL = 5 * time.Minute

// assertion signs only for an endpoint that is allowed. A discovered one was checked at discovery.
func (r *tokenRequest) assertion(ctx context.Context) (*exchange.Assertion, error) {
	if endpoint := r.key.Settings().TokenEndpoint; endpoint != "" {
		if err := r.client.CheckURL(endpoint); err != nil {
			return nil, urlError(r.req.MountPoint, "token_endpoint", err)
		}
	}
	ctx, cancel := r.client.WithTimeout(ctx)
	defer cancel()
	return r.exchanger.Assertion(ctx, r.client, r.exchangeRequest(), maxAssertionTTL)
}

func (r *tokenRequest) exchangeRequest() exchange.Request {
	return exchange.Request{
		Key:        r.key,
		Scopes:     r.role.Scopes,
		Parameters: r.role.form(),
		Current:    r.currentKey,
		Change:     r.keyChanger(r.req.Storage, r.key.Name()),
		Role:       r.name,
		RequestID:  r.req.ID,
	}
}

// currentKey returns the role's key as it is now, or an error if the role may not sign with it.
func (r *tokenRequest) currentKey(ctx context.Context) (*keyring.Key, error) {
	key, err := r.keyOfRole(ctx, r.req, r.name, r.role)
	if err != nil {
		return nil, err
	}
	return key, checkUsable(r.req.MountPoint, key)
}

// mustForward reports whether a read belongs on a node that can write: it creates a lease, or this
// standby learned something that should be stored.
func (r *tokenRequest) mustForward() bool {
	return r.isStandby() &&
		(r.role.Delivery == leasedDelivery || r.exchanger.ShouldForward(r.key))
}

// failed explains a provider's error.
func (r *tokenRequest) failed(err error) error {
	if errors.Is(err, exchange.ErrKeyChanged) {
		return userErrorf("key %q was changed during the request; try again", r.key.Name())
	}
	return providerError(err, r.situation())
}

// situation knows of the issuer what is cached: nothing is discovered for a pinned key.
func (r *tokenRequest) situation() *situation {
	return &situation{
		mount: r.req.MountPoint, role: r.name, key: r.key,
		metadata: r.client.Known(r.key.Settings().Issuer),
	}
}

// tokenInputs is what a shared token depends on. Unchanged cached entries keep their pointer,
// except a key whose acceptance was recorded, so of the key only its ID and client count.
type tokenInputs struct {
	client      *tokenendpoint.Client
	role        *role
	keyID       string
	oauthClient keyring.Client
}

func (r *tokenRequest) inputs() tokenInputs {
	return tokenInputs{r.client, r.role, r.key.ID(), r.key.Client()}
}
