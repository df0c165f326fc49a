package backend

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func tokenFields() []computed {
	return []computed{
		{name: "access_token", kind: framework.TypeString, description: "The access token, for the header `Authorization: Bearer …`.", sensitive: true},
		{name: "token_type", kind: framework.TypeString, description: "Always Bearer."},
		{name: "scope", kind: framework.TypeString, description: "The scopes granted, separated by spaces."},
		{name: "issued_at", kind: framework.TypeString, description: "When the token was asked for (RFC 3339)."},
		{name: "expires_at", kind: framework.TypeString, description: "When the token ends (RFC 3339)."},
		{name: "expires_in", kind: framework.TypeInt64, description: "The token's life in seconds, from issued_at."},
		{name: "key_id", kind: framework.TypeString, description: "The kid of the key that signed for it."},
		{name: "token_jti", kind: framework.TypeString, description: "The token's own id (jti), which finds it in the gateway's logs; empty if it is not a JWT."},
	}
}

func (b *backend) pathCreds() *framework.Path {
	return &framework.Path{
		Pattern:      "creds/(?P<role>[^/]+)",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields: map[string]*framework.FieldSchema{
			"role": {Type: framework.TypeString, Description: "The role's name.", Required: true},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readCreds, Summary: "Get a fresh access token.",
				Responses:    ok("The token, under a lease that cannot be renewed.", computedFields(tokenFields())),
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "generate", OperationSuffix: "credentials"},
			},
		},
		HelpSynopsis:    "Get a fresh access token for a role.",
		HelpDescription: strings.TrimSpace(credsHelp),
	}
}

func (b *backend) readCreds(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, role, err := b.roleIn(ctx, req, data)
	if err != nil {
		return nil, err
	}
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
	ctx, cancel := config.client.WithTimeout(ctx)
	defer cancel()
	token, err := b.exchanger.Token(ctx, config.client, b.exchangeRequest(req, key, name, role))
	if err != nil {
		return nil, providerError(err, req.MountPoint, key, name)
	}
	return b.leasedAnswer(req, name, token), nil
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

func (b *backend) leasedAnswer(req *logical.Request, roleName string, token *exchange.Token) *logical.Response {
	resp := b.Secret(accessTokenType).Response(map[string]any{
		"access_token": token.AccessToken,
		"token_type":   token.Type,
		"scope":        token.Scope,
		"issued_at":    timestamp(token.RequestedAt),
		"expires_at":   timestamp(token.RequestedAt.Add(token.Lifetime)),
		"expires_in":   int64(token.Lifetime / time.Second),
		"key_id":       token.Version.KeyID(),
		"token_jti":    token.JTI,
	}, map[string]any{"role": roleName})
	// The lease counts from now, the token's life from when it was asked for, which retries can put some time ago.
	waited := b.now().Sub(token.RequestedAt).Truncate(time.Second)
	resp.Secret.TTL = max(leaseTTL(token.Lifetime)-waited, time.Second)
	if len(token.MissingScopes) > 0 {
		resp.AddWarning(missingScopes(req.MountPoint, roleName, token))
	}
	return resp
}

func missingScopes(mount, roleName string, token *exchange.Token) string {
	return fmt.Sprintf("The provider did not grant %s. Ask the API's owner to grant it to the client, or ask for less: vault write %sroles/%s scopes=…",
		strings.Join(token.MissingScopes, ", "), mount, roleName)
}

const credsHelp = `
Each read signs a new assertion inside Vault, exchanges it at the provider's token
endpoint, and returns a fresh access token. The lease ends before the token does, so
that readers that follow it, such as Vault Agent, always hold a valid one. It cannot be
renewed: read again.

    curl -H "Authorization: Bearer $(vault read -field=access_token bcgov-jwt/creds/myapi)" https://...

When it fails, check/<role> tries each step and says what to do.
`
