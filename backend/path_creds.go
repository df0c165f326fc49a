package backend

import (
	"context"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
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
				Responses:    okResponse("The token; with delivery=leased under a lease that cannot be renewed.", responseSchemas(tokenFields())),
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
	if r.role.Delivery == sharedDelivery {
		return r.sharedResponse(ctx)
	}
	token, err := r.fetch(ctx)
	if err != nil {
		return nil, r.failed(err)
	}
	if r.role.Delivery == unleasedDelivery {
		resp := &logical.Response{Data: unleasedData(r.role, token, b.now())}
		return r.withWarnings(resp, token), nil
	}
	return r.withWarnings(r.leasedResponse(token), token), nil
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
