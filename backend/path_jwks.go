package backend

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	jwksMediaType = "application/jwk-set+json"
	jwksMaxAge    = time.Minute // how long a provider may cache the key set
)

func (b *backend) pathJWKS() *framework.Path {
	responses := map[int][]framework.Response{http.StatusOK: {{
		Description: "A JSON Web Key Set (RFC 7517).", MediaType: jwksMediaType,
	}}}
	head := operation(b.readJWKS, "Check whether the public keys exist.", responses, "", "jwks")
	head.Unpublished = true
	return &framework.Path{
		Pattern: "jwks/(?P<id>[^/]+)",
		Fields:  declaredFields("jwks parameters"),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: operation(b.readJWKS,
				"Fetch a key's public keys. Requires no Vault token.", responses, "read", "jwks"),
			logical.HeaderOperation: head,
		},
		HelpSynopsis:    "A key's public keys, for the provider to fetch.",
		HelpDescription: textOf("jwks"),
	}
}

// jwksPath returns where a key is published, below Vault's address; empty if it is not.
func jwksPath(ctx context.Context, key *keyring.Key) string {
	if key.Settings().Registration != keyring.ByJWKS {
		return ""
	}
	mount, _ := ctx.Value(urlMount{}).(string)
	return "/v1/" + mount + "jwks/" + key.ID()
}

// jwksID matches a key's ID. Anything else is rejected without reading storage.
var jwksID = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// readJWKS returns the same 404 for anything but the ID of a published key, so that nothing can be
// learned about names, settings or deleted keys.
func (b *backend) readJWKS(
	ctx context.Context, req *logical.Request, data *framework.FieldData,
) (*logical.Response, error) {
	id, _ := data.Raw["id"].(string)
	if !jwksID.MatchString(id) {
		return nil, nil
	}
	document, err := b.publishedJWKS(ctx, req.Storage, id)
	if err != nil { // anyone may read the response
		b.Logger().Error("key set could not be read", "request_id", req.ID, "error", err)
		return nil, logical.CodedError(http.StatusInternalServerError,
			"the key set could not be read; the cause is in Vault's log")
	}
	if document == "" {
		return nil, nil
	}
	return &logical.Response{Data: map[string]any{
		logical.HTTPStatusCode:         http.StatusOK,
		logical.HTTPContentType:        jwksMediaType,
		logical.HTTPRawBody:            []byte(document), // Vault decodes a string that is base64
		logical.HTTPCacheControlHeader: fmt.Sprintf("max-age=%d", int(jwksMaxAge/time.Second)),
	}}, nil
}

// publishedJWKS returns the key set of the key with this ID; empty if it is not published.
func (b *backend) publishedJWKS(
	ctx context.Context, storage logical.Storage, id string,
) (string, error) {
	key, err := b.keyByID(ctx, storage, id)
	if err != nil || key == nil || key.Settings().Registration != keyring.ByJWKS {
		return "", err
	}
	return key.JWKS(b.now())
}
