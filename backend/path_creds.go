package backend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokencache"
)

func (b *backend) pathCreds() *framework.Path {
	return &framework.Path{
		Pattern:      "creds/(?P<role>[^/]+)",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields: map[string]*framework.FieldSchema{
			"role": {Type: framework.TypeString, Description: "The role's name.", Required: true},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readCreds, Summary: "Get an access token.",
				Responses:    ok("The token; with delivery=leased under a lease that cannot be renewed.", computedFields(tokenFields())),
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "generate", OperationSuffix: "credentials"},
			},
		},
		HelpSynopsis:    "Get an access token for a role.",
		HelpDescription: strings.TrimSpace(credsHelp),
	}
}

func (b *backend) readCreds(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, role, err := b.roleIn(ctx, req, data)
	if err != nil {
		return nil, err
	}
	r, err := b.newTokenRequest(ctx, req, name, role)
	if err != nil {
		return nil, err
	}
	if r.role.Delivery == shared {
		return r.shared(ctx)
	}
	token, err := r.fetch(ctx)
	if err != nil {
		return nil, r.failed(err)
	}
	if r.role.Delivery == unleased {
		return r.warned(&logical.Response{Data: unleasedData(r.role, token, b.now())}, token), nil
	}
	return r.warned(r.leased(token), token), nil
}

// tokenRequest is one read of a role's token, and what it needs.
type tokenRequest struct {
	*backend
	req    *logical.Request
	name   string // the role's
	role   *role
	key    *keyring.Key
	config *configuration
}

// newTokenRequest finds all that a token needs, and refuses where something of it is missing.
func (b *backend) newTokenRequest(ctx context.Context, req *logical.Request, name string, role *role) (*tokenRequest, error) {
	key, err := b.keyOf(ctx, req, name, role)
	if err != nil {
		return nil, err
	}
	if err := checkUsable(req.MountPoint, key); err != nil {
		return nil, err
	}
	config, err := b.config.get(ctx, req.Storage, configStoragePath)
	if err != nil {
		return nil, err
	}
	return &tokenRequest{backend: b, req: req, name: name, role: role, key: key, config: config}, nil
}

// fetch gets a fresh token from the provider.
func (r *tokenRequest) fetch(ctx context.Context) (*exchange.Token, error) {
	ctx, cancel := r.config.client.WithTimeout(ctx)
	defer cancel()
	return r.exchanger.Token(ctx, r.config.client, r.exchangeRequest(r.req, r.key, r.name, r.role))
}

func (r *tokenRequest) failed(err error) error {
	return providerError(err, r.req.MountPoint, r.key, r.name)
}

// tokenInputs is what a shared token rests on. Snapshots of what did not change are one and the same, but what an exchange
// learned makes a new one of the key: of that, only what the token was asked for with counts.
type tokenInputs struct {
	config   *configuration
	role     *role
	keyID    string
	settings keyring.Settings
}

// shared answers with the token that all readers of the role get.
func (r *tokenRequest) shared(ctx context.Context) (*logical.Response, error) {
	token, err := r.tokens.Token(ctx, r.name, tokenInputs{r.config, r.role, r.key.ID(), r.key.Settings()}, tokencache.Source{
		Fetch: r.fetchInBackground, Margin: r.role.margin,
	})
	switch {
	case errors.Is(err, tokencache.ErrClosed):
		return nil, logical.CodedError(http.StatusServiceUnavailable, err.Error())
	case err != nil && ctx.Err() != nil:
		return nil, logical.CodedError(http.StatusGatewayTimeout, "the reader went away before there was a token")
	case err != nil:
		return nil, r.failed(err)
	}
	resp := r.warned(&logical.Response{Data: sharedData(r.role, token)}, token.Token)
	if token.Failure != nil {
		resp.AddWarning("The token could not be replaced so far, and is good until expires_at: " + r.failed(token.Failure).Error())
	}
	return resp, nil
}

// fetchInBackground is fetch where there is no operation round it to recover a panic.
func (r *tokenRequest) fetchInBackground(ctx context.Context) (token *exchange.Token, err error) {
	defer r.recoverPanic(r.req, nil, &err)
	return r.fetch(ctx)
}

// roleIn returns the role that the request names.
func (b *backend) roleIn(ctx context.Context, req *logical.Request, data *framework.FieldData) (string, *role, error) {
	name, err := nameIn(data, "role")
	if err != nil {
		return "", nil, err
	}
	found, err := b.roles.get(ctx, req.Storage, name)
	if err == nil && found == nil {
		err = userErrorf("unknown role %q; to see which there are: vault list %sroles", name, req.MountPoint) // a 404 would show as "No value found" in the CLI
	}
	return name, found, err
}

// checkUsable says why a key cannot sign, if so.
func checkUsable(mount string, key *keyring.Key) error {
	switch {
	case key.Settings().Disabled:
		return userErrorf("key %q is disabled; to enable it: vault write %skeys/%s disabled=false", key.Name(), mount, key.Name())
	case !registered(key):
		return userErrorf("%s. %s", unregistered(key), registrationAdvice(mount, key))
	}
	return nil
}

// unregistered says what a key's registration lacks.
func unregistered(key *keyring.Key) string {
	var lacking []string
	if key.Settings().ClientID == "" {
		lacking = append(lacking, "client_id")
	}
	if key.Settings().Issuer == "" {
		lacking = append(lacking, "issuer")
	}
	return fmt.Sprintf("key %q has no %s yet", key.Name(), strings.Join(lacking, " and no "))
}

func registrationAdvice(mount string, key *keyring.Key) string {
	return fmt.Sprintf("%s, where access to the API is requested; then write what the portal shows: vault write %skeys/%s client_id=… issuer=… token_endpoint=…",
		registering(mount, key), mount, key.Name())
}

func (b *backend) exchangeRequest(req *logical.Request, key *keyring.Key, roleName string, role *role) exchange.Request {
	return exchange.Request{
		Key:        key,
		Scopes:     role.Scopes,
		Parameters: role.form(),
		Current:    func(ctx context.Context) (*keyring.Key, error) { return b.keys.get(ctx, req.Storage, key.Name()) },
		Change:     b.keyChanger(req.Storage, key.Name()),
		Role:       roleName,
		RequestID:  req.ID,
	}
}

// keyChanger stores what an exchange learned of a key. A node that cannot write stores nothing: it keeps what it learned
// in memory.
func (b *backend) keyChanger(storage logical.Storage, name string) exchange.ChangeFunc {
	return func(ctx context.Context, edit func(*keyring.Key) *keyring.Key) error {
		if !b.WriteSafeReplicationState() {
			return nil
		}
		defer lock(b.keyLocks, name)()
		before, err := keyring.Load(ctx, storage, name)
		if err != nil {
			return err
		}
		after := edit(before)
		if after == nil {
			return nil
		}
		return b.storeKey(ctx, storage, before, after)
	}
}

// leased puts a token under a lease, which holds what the end of the lease needs.
func (r *tokenRequest) leased(token *exchange.Token) *logical.Response {
	internal := map[string]any{"role": r.name}
	if r.role.RevokeTokens {
		internal[leaseKey], internal[leaseKeyID] = r.key.Name(), r.key.ID()
		internal[leaseIssuer], internal[leaseClient] = r.key.Settings().Issuer, r.key.Settings().ClientID
	}
	resp := r.Secret(accessTokenType).Response(leasedData(token), internal)
	resp.Secret.TTL = r.role.rest(token, r.now())
	return resp
}

// warned adds what the reader should know of the token.
func (r *tokenRequest) warned(resp *logical.Response, token *exchange.Token) *logical.Response {
	if len(token.MissingScopes) > 0 {
		resp.AddWarning(missingScopes(r.req.MountPoint, r.name, token))
	}
	if !r.role.keepsMargin(token.Lifetime) {
		resp.AddWarning(marginTooLong(r.req.MountPoint, r.name, r.role, token))
	}
	return resp
}

func missingScopes(mount, roleName string, token *exchange.Token) string {
	return fmt.Sprintf("The provider did not grant %s. Ask the API's owner to grant it to the client, or ask for less: vault write %sroles/%s scopes=…",
		strings.Join(token.MissingScopes, ", "), mount, roleName)
}

func marginTooLong(mount, roleName string, r *role, token *exchange.Token) string {
	return fmt.Sprintf("refresh_margin is %s, and the token's whole life only %s: %s is kept instead. Set a shorter one, or none: vault write %sroles/%s refresh_margin=0",
		compact(r.RefreshMargin), compact(token.Lifetime), compact(r.margin(token.Lifetime)), mount, roleName)
}

const credsHelp = `
A token is got by signing a new assertion inside Vault and exchanging it at the
provider's token endpoint. The role's delivery says how readers get it:

    leased    a fresh token for each read, under a lease that ends before the token
              does, so that readers that follow it, such as Vault Agent, always hold a
              valid one. It cannot be renewed: read again.
    unleased  a fresh token for each read; ttl says when to read again.
    shared    one token for all readers on this node, replaced ahead of time; ttl says
              when to read again.

    curl -H "Authorization: Bearer $(vault read -field=access_token bcgov-jwt/creds/myapi)" https://...

When it fails, check/<role> tries each step and says what to do.
`
