package backend

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func (b *backend) pathKeysList() *framework.Path {
	return &framework.Path{
		Pattern:      "keys/?$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: &framework.PathOperation{
				Callback: b.listKeys, Summary: "List the keys.", Responses: listResponse(),
				DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "keys"},
			},
		},
		HelpSynopsis:    "List the keys.",
		HelpDescription: "Lists the names of all keys of this mount.",
	}
}

func (b *backend) pathKeys() *framework.Path {
	answers := okResponse("The key's settings and public material.", keyResponseFields())
	write := &framework.PathOperation{
		Callback: b.writeKey, Summary: "Create a key, or change its settings.", Responses: answers,
		ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
		DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "key"},
	}
	return &framework.Path{
		Pattern:        "keys/(?P<name>[^/]+)",
		DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		ExistenceCheck: b.keyExists,
		Fields: fieldSchemas(keyFields(), map[string]*framework.FieldSchema{
			"name":    {Type: framework.TypeString, Description: "The key's name.", Required: true},
			"version": {Type: framework.TypeInt, Description: "The version to show the public material of. Default: the one to register now.", Query: true},
			"type": {
				Type:          framework.TypeString,
				Description:   "The kind of key pair, fixed once made: " + join(keyring.Types()) + ". Default: " + string(keyring.Types()[0]) + ".",
				AllowedValues: allowed(keyring.Types()),
			},
		}),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.CreateOperation: write,
			logical.UpdateOperation: write,
			logical.PatchOperation: &framework.PathOperation{
				Callback: b.writeKey, Summary: "Change parts of a key's settings.", Responses: answers,
				ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "patch", OperationSuffix: "key"},
			},
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readKey, Summary: "Read a key's settings and public material.", Responses: answers,
				DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "key"},
			},
			logical.DeleteOperation: &framework.PathOperation{
				Callback: b.deleteKey, Summary: "Delete a key.", Responses: noContentResponse(),
				ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
				DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "key"},
			},
		},
		HelpSynopsis:    "A key pair and the OAuth client that it belongs to.",
		HelpDescription: strings.TrimSpace(keysHelp),
	}
}

// keyActionPath describes an action on a key: an update of keys/<name>/<action> that answers with the key.
func keyActionPath(action string, fields map[string]*framework.FieldSchema, update *framework.PathOperation, synopsis, help string) *framework.Path {
	update.Responses = okResponse("The key's settings and public material.", keyResponseFields())
	update.ForwardPerformanceStandby, update.ForwardPerformanceSecondary = true, true
	all := map[string]*framework.FieldSchema{
		"name": {Type: framework.TypeString, Description: "The key's name.", Required: true},
	}
	maps.Copy(all, fields)
	return &framework.Path{
		Pattern:         "keys/(?P<name>[^/]+)/" + action,
		DisplayAttrs:    &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:          all,
		Operations:      map[logical.Operation]framework.OperationHandler{logical.UpdateOperation: update},
		HelpSynopsis:    synopsis,
		HelpDescription: strings.TrimSpace(help),
	}
}

func keyResponseFields() map[string]*framework.FieldSchema {
	return responseFields(keyFields(), []responseField{
		{name: "type", kind: framework.TypeString, description: "The kind of key pair."},
		{name: "public_key", kind: framework.TypeString, description: "The public key to register: paste this into the API Services Portal, which calls it a certificate in places."},
		{name: "certificate", kind: framework.TypeString, description: "A self-signed certificate of the same key, for providers that want one. Not for the portal: Keycloak refuses it."},
		{name: "certificate_sha256", kind: framework.TypeString, description: "The certificate's SHA-256 fingerprint in hex."},
		{name: "key_id", kind: framework.TypeString, description: "The kid: base64url SHA-256 of the public key (SubjectPublicKeyInfo)."},
		{name: "public_key_version", kind: framework.TypeInt, description: "The version that public_key, certificate and key_id are of."},
		{name: "active_version", kind: framework.TypeInt, description: "The version that signs."},
		{name: "staged_version", kind: framework.TypeInt, description: "The version that is to become active; 0 if there is none."},
		{name: "versions", kind: framework.TypeMap, description: "All versions by number."},
		{name: "roles", kind: framework.TypeStringSlice, description: "The roles that name this key."},
		{name: "jwks", kind: framework.TypeString, description: "The JSON Web Key Set of all live versions, for hosting elsewhere."},
		{name: "jwks_path", kind: framework.TypeString, description: "With registration=jwks: where the provider fetches the key set, below Vault's address. Needs no Vault token."},
	})
}

func (b *backend) listKeys(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	names, err := keyring.List(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	return logical.ListResponse(names), nil
}

func (b *backend) keyExists(ctx context.Context, req *logical.Request, data *framework.FieldData) (bool, error) {
	name, err := nameIn(data, "name")
	if err != nil {
		return false, nil // the write itself says what is wrong with the name
	}
	key, err := b.keys.get(ctx, req.Storage, name)
	return key != nil, err
}

func (b *backend) readKey(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "name")
	if err != nil {
		return nil, err
	}
	key, err := b.keys.get(ctx, req.Storage, name)
	if err != nil || key == nil {
		return nil, err
	}
	number, given, err := versionIn(req.Data)
	if err != nil {
		return nil, err
	}
	if !given {
		return b.keyResponse(ctx, req, key)
	}
	version := key.Version(number)
	if version == nil {
		return nil, noSuchVersion(key, number)
	}
	return b.keyResponseFor(ctx, req, key, version)
}

// versionIn returns the version number that the request names, if it does.
func versionIn(data map[string]any) (number int, given bool, err error) {
	value, err := convert(framework.TypeInt, data["version"])
	if err != nil || value == nil {
		return 0, false, err
	}
	return value.(int), true, nil
}

func (b *backend) writeKey(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "name")
	if err != nil {
		return nil, err
	}
	defer lock(b.keyLocks, name)()
	key, err := keyring.Load(ctx, req.Storage, name)
	switch {
	case err != nil:
		return nil, err
	case key != nil:
		return b.updateKey(ctx, req, key)
	case req.Operation == logical.PatchOperation:
		return nil, logical.CodedError(http.StatusNotFound, fmt.Sprintf("there is no key %q to patch", name))
	default:
		return b.createKey(ctx, req, name)
	}
}

func (b *backend) createKey(ctx context.Context, req *logical.Request, name string) (*logical.Response, error) {
	keyType, err := keyTypeIn(req.Data, keyring.Types()[0])
	if err != nil {
		return nil, err
	}
	defaults := defaultKeySettings(name, keyType)
	settings, err := b.newKeySettings(ctx, req, keyType, defaults, defaults)
	if err != nil {
		return nil, err
	}
	key, err := keyring.New(name, keyType, settings, b.now())
	if err != nil {
		return nil, err
	}
	if err := b.storeNewKey(ctx, req.Storage, key); err != nil {
		return nil, err
	}
	return b.keyResponse(ctx, req, key, nextAfterCreation(req.MountPoint, key))
}

func (b *backend) updateKey(ctx context.Context, req *logical.Request, key *keyring.Key) (*logical.Response, error) {
	if keyType, err := keyTypeIn(req.Data, key.Type()); err != nil {
		return nil, err
	} else if keyType != key.Type() {
		return nil, userErrorf("type: key %q is %s, and a key's type is fixed; make another key for %s", key.Name(), key.Type(), keyType)
	}
	before := key.Settings()
	after, err := b.newKeySettings(ctx, req, key.Type(), before, defaultKeySettings(key.Name(), key.Type()))
	if err != nil {
		return nil, err
	}
	if staged := key.Staged(b.now()); staged != nil && after.Registration != before.Registration {
		return nil, userErrorf("registration: cannot change while version %d is staged; activate it (vault write -f %skeys/%s/activate) or destroy it (vault write %skeys/%s/destroy version=%d) first",
			staged.Number(), req.MountPoint, key.Name(), req.MountPoint, key.Name(), staged.Number())
	}
	if after == before {
		return b.keyResponse(ctx, req, key)
	}
	changed, err := key.WithSettings(after)
	if err != nil {
		return nil, err
	}
	defer b.dropTokens(key.Name())
	if err := b.storeKey(ctx, req.Storage, key, changed); err != nil {
		return nil, err
	}
	return b.keyResponse(ctx, req, changed)
}

func (b *backend) deleteKey(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, err := nameIn(data, "name")
	if err != nil {
		return nil, err
	}
	defer lock(b.keyLocks, name)()
	key, err := keyring.Load(ctx, req.Storage, name)
	if err != nil || key == nil {
		return nil, err
	}
	if !key.Settings().DeletionAllowed {
		return nil, userErrorf("key %q may not be deleted: its private key would be lost for good. To allow it: vault write %skeys/%s deletion_allowed=true",
			name, req.MountPoint, name)
	}
	roles, err := b.rolesOf(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if len(roles) > 0 {
		return nil, userErrorf("key %q is used by %s %s: delete what uses it, or give it another key, first", name, plural(len(roles), "role"), abbreviate(roles, 10))
	}
	defer b.exchanger.Forget(key.ID())
	defer b.keyChanged(name)
	return nil, keyring.Delete(ctx, req.Storage, key)
}

// keyAnswer shows a key's settings and the public material of the version to register now: the staged one, if there is
// one.
func (b *backend) keyResponse(ctx context.Context, req *logical.Request, key *keyring.Key, warnings ...string) (*logical.Response, error) {
	now := b.now()
	shown := key.Staged(now)
	if shown == nil {
		shown = key.Active(now)
	}
	return b.keyResponseFor(ctx, req, key, shown, warnings...)
}

func (b *backend) keyResponseFor(ctx context.Context, req *logical.Request, key *keyring.Key, shown *keyring.Version, warnings ...string) (*logical.Response, error) {
	roles, err := b.rolesOf(ctx, req.Storage, key.Name())
	if err != nil {
		return nil, err
	}
	now := b.now()
	jwks, err := key.JWKS(now)
	if err != nil {
		return nil, err
	}
	settings := key.Settings()
	data := toResponse(keyFields(), &settings)
	data["type"] = string(key.Type())
	data["public_key"] = shown.PublicKeyPEM()
	data["certificate"] = shown.CertificatePEM()
	data["certificate_sha256"] = shown.CertificateSHA256()
	data["key_id"] = shown.KeyID()
	data["public_key_version"] = shown.Number()
	data["active_version"] = versionNumber(key.Active(now))
	data["staged_version"] = versionNumber(key.Staged(now))
	data["versions"] = versionsResponse(key, now)
	data["roles"] = roles
	data["jwks"] = jwks
	data["jwks_path"] = jwksPath(req.MountPoint, key)
	return &logical.Response{Data: data, Warnings: append(warnings, keyWarnings(key, now)...)}, nil
}

func versionsResponse(key *keyring.Key, now time.Time) map[string]any {
	versions := map[string]any{}
	for _, v := range key.Versions() {
		versions[strconv.Itoa(v.Number())] = map[string]any{
			"state":           string(key.State(v, now)),
			"key_id":          v.KeyID(),
			"origin":          string(v.Origin()),
			"creation_time":   timestamp(v.CreationTime()),
			"activation_time": timestamp(v.ActivationTime()),
			"activated_by":    string(v.ActivatedBy()),
			"accepted_time":   timestamp(v.AcceptedTime()),
			"expire_time":     timestamp(key.ExpireTime(v, now)),
		}
	}
	return versions
}

const keysHelp = `
A key belongs to one OAuth client at one issuer. Creating it makes the key pair inside
Vault; the private key cannot be read. The order of things at the API Services Portal:

    vault write -f bcgov-jwt/keys/myapi            prints public_key

Paste public_key into the portal when you request access to the API. Paste public_key
and not certificate, although the portal calls it a certificate in places. The portal
then shows the Client ID, Issuer and Token Endpoint; the API's owner approves.

    vault write bcgov-jwt/keys/myapi client_id=... issuer=... token_endpoint=...

On a write an absent field keeps its value and an empty one restores its default. Each
environment (dev, test, prod) is another client, so make one key for each.
`
