package backend

import (
	"context"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/clientauth"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathAssertion() *framework.Path {
	responses := okResponse("The assertion and what to send with it.", declaredFields("assertion"))
	return roleReadPath("assertion", textOf("assertion"), operation(b.readAssertion,
		"Obtain a signed client assertion to exchange elsewhere.", responses,
		"generate", "assertion"))
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
