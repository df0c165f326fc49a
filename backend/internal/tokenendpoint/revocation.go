package tokenendpoint

import (
	"context"
	"net/url"
)

// Revoke posts a form to the revocation endpoint (RFC 7009 §2.1), with form and errors as in
// RequestToken. Any 2xx is a success, whatever its body: Keycloak responds 200 with an `error` to
// an unknown token, which is as good as revoked (RFC 7009 §2.2).
func (c *Client) Revoke(
	ctx context.Context, endpoint string, form func() (url.Values, error),
) error {
	call, err := c.newCall(OpRevocation, endpoint, form)
	if err != nil {
		return err
	}
	resp, err := call.run(ctx)
	if err != nil {
		return err
	}
	if resp.status < 200 || resp.status > 299 {
		return call.rejected(resp)
	}
	return nil
}
