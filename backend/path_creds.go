package backend

import (
	"context"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathCreds() *framework.Path {
	responses := okResponse("The token; with delivery=leased under a lease that cannot be renewed.",
		declaredFields("token"))
	return roleReadPath("creds", textOf("creds"), operation(b.readCreds,
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
