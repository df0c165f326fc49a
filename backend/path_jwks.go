package backend

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

// jwksMaxAge is how long a provider may cache the document.
const jwksMaxAge = time.Minute

func (b *backend) pathJWKS() *framework.Path {
	responses := map[int][]framework.Response{http.StatusOK: {{Description: "A JSON Web Key Set (RFC 7517).", MediaType: "application/jwk-set+json"}}}
	return &framework.Path{
		Pattern:      "jwks/(?P<id>[^/]+)",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields: map[string]*framework.FieldSchema{
			"id": {Type: framework.TypeString, Description: "The key's own id, as its jwks_path has it.", Required: true},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readJWKS, Summary: "Fetch a key's public keys. Needs no Vault token.", Responses: responses,
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "jwks"},
			},
			logical.HeaderOperation: &framework.PathOperation{
				Callback: b.readJWKS, Summary: "See whether a key's public keys are there.", Responses: responses, Unpublished: true,
			},
		},
		HelpSynopsis:    "A key's public keys, for the provider to fetch.",
		HelpDescription: strings.TrimSpace(jwksHelp),
	}
}

// keyID is the form of a key's own id: what has another is refused without a look at the storage.
var keyID = regexp.MustCompile(`^[A-Z2-7]{26}$`)

// readJWKS answers the same 404 to whatever is not the id of a key that publishes, so that nothing can be learned of
// names, settings, or keys that are gone.
func (b *backend) readJWKS(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	id, _ := data.Raw["id"].(string)
	if !keyID.MatchString(id) {
		return nil, nil
	}
	name, err := keyring.NameByID(ctx, req.Storage, id)
	if err != nil || name == "" {
		return nil, err
	}
	key, err := b.keys.get(ctx, req.Storage, name)
	if err != nil || key == nil || key.ID() != id || key.Settings().Registration != keyring.ByJWKS {
		return nil, err
	}
	document, err := key.JWKS(b.now())
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{
		logical.HTTPStatusCode:         http.StatusOK,
		logical.HTTPContentType:        "application/jwk-set+json",
		logical.HTTPRawBody:            []byte(document), // a string would be decoded if it were base64
		logical.HTTPCacheControlHeader: fmt.Sprintf("max-age=%d", int(jwksMaxAge/time.Second)),
	}}, nil
}

const jwksHelp = `
The public keys of one key with registration=jwks, as a JSON Web Key Set that the
identity provider fetches without a Vault token. The id is random, does not tell the
key's name, and does not pass to a later key of that name: see jwks_path of the key.

    curl $VAULT_ADDR$(vault read -field=jwks_path bcgov-jwt/keys/myapi)
`
