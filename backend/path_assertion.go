package backend

import (
	"context"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/clientauth"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
)

// maxAssertionTTL bounds an assertion that leaves Vault: until it is used, whoever has it is the client.
const maxAssertionTTL = 5 * time.Minute

func (b *backend) pathAssertion() *framework.Path {
	return &framework.Path{
		Pattern:      "assertion/(?P<role>[^/]+)",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields: map[string]*framework.FieldSchema{
			"role": {Type: framework.TypeString, Description: "The role's name.", Required: true},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readAssertion, Summary: "Get a signed client assertion.",
				Responses: okResponse("The assertion, and what is sent with it.", responseSchemas([]responseField{
					{name: "client_assertion", kind: framework.TypeString, description: "The signed JWT, good for one token request.", sensitive: true},
					{name: "client_assertion_type", kind: framework.TypeString, description: "The form parameter of that name (RFC 7523 section 2.2)."},
					{name: "client_id", kind: framework.TypeString, description: "The client that the assertion speaks for."},
					{name: "token_endpoint", kind: framework.TypeString, description: "Where to send it."},
					{name: "issuer", kind: framework.TypeString, description: "The provider's issuer."},
					{name: "key_id", kind: framework.TypeString, description: "The kid of the key that signed it."},
					{name: "expires_at", kind: framework.TypeString, description: "When it ends (RFC 3339)."},
					{name: "jti", kind: framework.TypeString, description: "The assertion's own id."},
				})),
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "generate", OperationSuffix: "assertion"},
			},
		},
		HelpSynopsis:    "Get a signed client assertion, to exchange elsewhere.",
		HelpDescription: strings.TrimSpace(assertionHelp),
	}
}

func (b *backend) readAssertion(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, role, err := b.roleIn(ctx, req, data)
	if err != nil {
		return nil, err
	}
	if !role.AllowAssertion {
		return nil, userErrorf("role %q hands out no assertions; to allow it: vault write %sroles/%s allow_assertion=true", name, req.MountPoint, name)
	}
	r, err := b.newTokenRequest(ctx, req, name, role)
	if err != nil {
		return nil, err
	}
	assertion, err := r.assertion(ctx)
	if err != nil {
		return nil, r.failed(err)
	}
	settings := r.key.Settings()
	return &logical.Response{Data: map[string]any{
		"client_assertion":      assertion.Compact(),
		"client_assertion_type": clientauth.AssertionType,
		"client_id":             settings.ClientID,
		"token_endpoint":        assertion.TokenEndpoint,
		"issuer":                settings.Issuer,
		"key_id":                assertion.KeyID,
		"expires_at":            timestamp(assertion.ExpiresAt),
		"jti":                   assertion.JTI,
	}}, nil
}

// assertion signs only for an endpoint that the configuration would let a token request go to. One that is discovered was
// checked then.
func (r *tokenRequest) assertion(ctx context.Context) (*exchange.Assertion, error) {
	if endpoint := r.key.Settings().TokenEndpoint; endpoint != "" {
		if err := r.config.client.CheckURL(endpoint); err != nil {
			return nil, userErrorf("token_endpoint of key %q %w", r.key.Name(), err)
		}
	}
	ctx, cancel := r.config.client.WithTimeout(ctx)
	defer cancel()
	return r.exchanger.Assertion(ctx, r.config.client, r.key, maxAssertionTTL)
}

const assertionHelp = `
For a caller that reaches the provider where Vault does not: the assertion is signed in
Vault, and the caller exchanges it. Whoever has it is the client, for one token request
within its life (the key's assertion_ttl, at most 5 minutes), and may ask for any scope.
So a role only hands it out with allow_assertion=true; creds is better where it can be.

    vault read -format=json bcgov-jwt/assertion/myapi

Send it to token_endpoint as a form: grant_type=client_credentials, client_id,
client_assertion_type and client_assertion.

Vault asks the provider only where the key does not name its token_endpoint.
`
