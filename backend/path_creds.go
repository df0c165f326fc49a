package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathCreds() *framework.Path {
	responses := okResponse("The token; with delivery=leased under a lease that cannot be renewed.",
		tokenFields())
	return roleReadPath("creds", credsHelp, operation(b.readCreds,
		"Obtain an access token for a role.", responses, "generate", "credentials"))
}

func (b *backend) readCreds(
	ctx context.Context, req *logical.Request, data *framework.FieldData,
) (*logical.Response, error) {
	name, role, err := b.requestedRole(ctx, req, data)
	if err != nil {
		return nil, err
	}
	r, err := b.tokenRequestForRole(ctx, req, name, role)
	if err != nil {
		return nil, err
	}
	if r.mustForward() {
		return nil, logical.ErrReadOnly // Vault forwards the read; nothing was sent yet
	}
	if role.Delivery == sharedDelivery {
		return r.sharedResponse(ctx)
	}
	token, err := r.fetch(ctx)
	if err != nil {
		return nil, r.failed(err)
	}
	if role.Delivery == unleasedDelivery {
		resp := &logical.Response{Data: unleasedData(role, token, b.now())}
		return r.withWarnings(resp, token), nil
	}
	return r.withWarnings(r.leasedResponse(token), token), nil
}

const credsHelp = `
A read signs an assertion inside Vault and exchanges it at the provider's token endpoint.
The role's delivery decides what a read returns:

    leased    a fresh token, under a lease that ends before the token expires, so that
              readers that follow the lease, such as Vault Agent, always hold a valid
              token. The lease cannot be renewed: read again.
    unleased  a fresh token; read again after ttl seconds.
    shared    one token for all readers on this node, refreshed early; read again after
              ttl seconds.

    curl -H "Authorization: Bearer $(vault read -field=access_token bcgov-jwt/creds/myapi)" $URL

If a read fails, check/<role> tests each step and reports what to do.
`
