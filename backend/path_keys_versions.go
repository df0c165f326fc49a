package backend

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathKeysVersionsList() *framework.Path {
	return keyPath("versions/?$", textOf("keys-versions"), nil, logical.ListOperation,
		operation(b.keyCallback(b.listVersions), "List a key's versions.",
			listResponse("state, key_id, origin and instants"), "", "key-versions"))
}

func (b *backend) pathKeysVersions() *framework.Path {
	return keyPath("versions/(?P<version>[^/]+)", textOf("keys-versions"),
		declaredFields("version parameters"), logical.ReadOperation,
		operation(b.keyCallback(b.readVersion), "Read one version of a key.",
			okResponse("The version.", declaredFields("public cert", "version")),
			"read", "key-version"))
}

func (b *backend) listVersions(
	_ *framework.FieldData, key *keyring.Key,
) (*logical.Response, error) {
	var numbers []string
	rows := map[string]any{}
	for _, v := range key.Versions() {
		number := strconv.Itoa(v.Number())
		numbers = append(numbers, number)
		rows[number] = versionRow(key, v, b.now())
	}
	return logical.ListResponseWithInfo(numbers, rows), nil
}

func versionRow(key *keyring.Key, v *keyring.Version, now time.Time) map[string]any {
	return map[string]any{
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

func (b *backend) readVersion(
	data *framework.FieldData, key *keyring.Key,
) (*logical.Response, error) {
	version, err := b.versionIn(data, key)
	if err != nil {
		return nil, err
	}
	jwk, err := key.JWK(version)
	if err != nil {
		return nil, err
	}
	response := publicKeyResponse(version)
	maps.Copy(response.Data, versionRow(key, version, b.now()))
	response.Data["jwk"] = jwk
	return response, nil
}

// versionIn returns the version that a request names, by default the one to register.
func (b *backend) versionIn(
	data *framework.FieldData, key *keyring.Key,
) (*keyring.Version, error) {
	number, err := versionParam(data.Raw)
	if err != nil {
		return nil, err
	}
	if number == 0 {
		return toRegister(key, b.now()), nil
	}
	if version := key.Version(number); version != nil {
		return version, nil
	}
	return nil, unknownVersion(key, number)
}

// versionParam returns the number of the requested version; 0 if there is none.
func versionParam(data map[string]any) (int, error) {
	value, err := convert(framework.TypeInt, data["version"])
	number, present := value.(int)
	switch {
	case err != nil:
		return 0, userErrorf("version: %w", err)
	case present && number < 1:
		return 0, userErrorf("version: must be at least 1, not %d", number)
	}
	return number, nil
}

func (b *backend) pathKeysCertificate() *framework.Path {
	fields := declaredFields("certificate parameters")
	fields["version"].Query = true
	return keyPath("certificate", textOf("keys-certificate"), fields, logical.ReadOperation,
		operation(b.keyCallback(b.readCertificate), "Read a version's certificate and public key.",
			okResponse("The public cert.", declaredFields("public cert")),
			"read", "key-certificate"))
}

func (b *backend) pathKeysJWKS() *framework.Path {
	return keyPath("jwks", textOf("keys-jwks"), nil, logical.ReadOperation,
		operation(b.keyCallback(b.readKeySet), "Read a key's JSON Web Key Set.",
			okResponse("The key set.", declaredFields("key set")), "read", "key-set"))
}

func publicKeyResponse(version *keyring.Version) *logical.Response {
	return &logical.Response{Data: map[string]any{
		"version":            version.Number(),
		"public_key":         version.PublicKeyPEM(),
		"certificate":        version.CertificatePEM(),
		"certificate_sha256": version.CertificateSHA256(),
		"key_id":             version.KeyID(),
	}}
}

func (b *backend) readCertificate(
	data *framework.FieldData, key *keyring.Key,
) (*logical.Response, error) {
	version, err := b.versionIn(data, key)
	if err != nil {
		return nil, err
	}
	return publicKeyResponse(version), nil
}

func (b *backend) readKeySet(
	_ *framework.FieldData, key *keyring.Key,
) (*logical.Response, error) {
	jwks, err := key.JWKS(b.now())
	if err != nil {
		return nil, err
	}
	return &logical.Response{Data: map[string]any{"jwks": jwks}}, nil
}

func (b *backend) pathKeysRotate() *framework.Path {
	return keyActionPath("rotate", "key", "Create the key's next version.", textOf("keys-rotate"),
		b.rotateKey, nil)
}

func (b *backend) rotateKey(
	ctx context.Context, req *logical.Request, name string,
) (*logical.Response, error) {
	key, err := loadForUpdate(ctx, req, name)
	if err != nil {
		return nil, err
	}
	if resp, err := b.unrotatable(ctx, req, key); resp != nil || err != nil {
		return resp, err
	}
	material, unlock, err := b.generateThenLock(ctx, key.Type(), b.keyLocks, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	key, err = loadForUpdate(ctx, req, name)
	if err != nil {
		return nil, err
	}
	if resp, err := b.unrotatable(ctx, req, key); resp != nil || err != nil {
		return resp, err
	}
	now := b.now()
	rotated, err := key.Expire(now).Rotate(material, now)
	if err != nil {
		return nil, err
	}
	if err := b.storeKey(ctx, req.Storage, key, rotated); err != nil {
		return nil, err
	}
	return b.keyResponse(ctx, req, rotated)
}

// unrotatable returns what to answer for a key that needs no new version or has no room for one;
// nil otherwise.
func (b *backend) unrotatable(
	ctx context.Context, req *logical.Request, key *keyring.Key,
) (*logical.Response, error) {
	now := b.now()
	if staged := key.Staged(now); staged != nil {
		return b.keyResponse(ctx, req, key, fmt.Sprintf("Version %d was staged before and may be "+
			"registered by now: no other was created.", staged.Number()))
	}
	if len(key.Live(now)) >= keyring.MaxVersions {
		return nil, userErrorf("key %q has %d versions, the maximum; first destroy a retired one: "+
			"vault write %skeys/%[1]s/destroy version=…",
			key.Name(), keyring.MaxVersions, req.MountPoint)
	}
	return nil, nil
}

func (b *backend) pathKeysDestroy() *framework.Path {
	return keyActionPath("destroy", "key-version",
		"Permanently delete a staged or retired version.", textOf("keys-destroy"),
		b.destroyVersion, declaredFields("destroy parameters"))
}

func (b *backend) destroyVersion(
	ctx context.Context, req *logical.Request, name string,
) (*logical.Response, error) {
	number, err := versionParam(req.Data)
	if err != nil {
		return nil, err
	}
	if number == 0 {
		return nil, userErrorf("version: is required; list the versions with: vault list "+
			"-detailed %skeys/%s/versions", req.MountPoint, name)
	}
	unlock, err := b.keyLocks.lock(ctx, name)
	if err != nil {
		return nil, err
	}
	defer unlock()
	key, err := loadForUpdate(ctx, req, name)
	if err != nil {
		return nil, err
	}
	version := key.Version(number)
	if version == nil {
		return nil, unknownVersion(key, number)
	}
	staged := key.Staged(b.now())
	switch {
	case key.State(version, b.now()) == keyring.Active && staged != nil:
		return nil, userErrorf("version: %d is active until the provider accepts version %d; "+
			"register its public_key, then read creds", number, staged.Number())
	case key.State(version, b.now()) == keyring.Active:
		return nil, userErrorf("version: %d is active; rotate and activate another first, or "+
			"disable the key with: vault write %skeys/%s disabled=true",
			number, req.MountPoint, name)
	}
	after := key.Destroy(number)
	defer b.dropTokens(key.Name())
	if err := b.storeKey(ctx, req.Storage, key, after); err != nil {
		return nil, err
	}
	b.Logger().Info("key version destroyed", "key", name, "version", number, "request_id", req.ID)
	return b.keyResponse(ctx, req, after, afterDestruction(after, number))
}
