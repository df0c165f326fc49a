package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/clientauth"
)

func (b *backend) pathAssertion() *framework.Path {
	responses := okResponse("The assertion and what to send with it.", assertionFields())
	return roleReadPath("assertion", help("assertion"), operation(b.readAssertion,
		"Obtain a signed client assertion to exchange elsewhere.", responses,
		"generate", "assertion"))
}

func assertionFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"client_assertion": responseSecret("The signed JWT, valid for one token request."),
		"client_assertion_type": responseText(
			"The form parameter of that name (RFC 7523 section 2.2)."),
		"client_id":      responseText("The client that the assertion authenticates."),
		"token_endpoint": responseText("The URL to send the assertion to."),
		"issuer":         responseText("The provider's issuer."),
		"key_id":         responseText("The kid of the key that signed the assertion."),
		"expires_at":     responseText("When the assertion expires (RFC 3339)."),
		"jti":            responseText("The assertion's ID."),
	}
}

func (b *backend) readAssertion(
	ctx context.Context, req *logical.Request, data *framework.FieldData,
) (*logical.Response, error) {
	name, role, err := b.requestedRole(ctx, req, data)
	if err != nil {
		return nil, err
	}
	if !role.AllowAssertion {
		return nil, userErrorf("role %q issues no assertions; to allow it: vault write %sroles/%s "+
			"allow_assertion=true", name, req.MountPoint, name)
	}
	r, err := b.tokenRequestForRole(ctx, req, name, role)
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
