// Package backend is a Vault secrets engine for OAuth 2.0 client credentials with a signed JWT (RFC 6749 §4.4, RFC 7523):
// keys are made in Vault and never leave it, and a read of creds/<role> returns a fresh access token.
package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/locksutil"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokencache"
)

// operationPrefix begins every OpenAPI operation id.
const operationPrefix = "bcgov-jwt"

// Build says what this binary was built from; the build stamps it.
type Build struct {
	Version string // semantic version with a leading v, as Vault's plugin catalog takes it
	Commit  string
}

// backend is one mount of the secrets engine.
type backend struct {
	*framework.Backend
	build     Build
	now       func() time.Time
	exchanger *exchange.Exchanger

	// What hot reads need, so that they touch no storage.
	config entryCache[configuration]
	keys   entryCache[keyring.Key]
	roles  entryCache[role]
	// wrappingKey is read where keys are imported.
	wrappingKey entryCache[keyring.WrappingKey]
	// tokens are those of the roles with shared delivery.
	tokens *tokencache.Cache[tokenInputs]
	// revocations bounds what the ends of leases ask of the provider.
	revocations *revocations
	// schedule knows which keys have background work to do, and when.
	schedule schedule

	// Writers take, in this order: configLock, or the lock of a role's name, then those of key names. A key's lock covers
	// its entry and the roles that name it. No lock is held across the network.
	configLock   sync.Mutex
	wrappingLock sync.Mutex
	roleLocks    []*locksutil.LockEntry
	keyLocks     []*locksutil.LockEntry
}

// Factory returns the engine's factory, which Vault calls for each mount.
func Factory(build Build) logical.Factory {
	return func(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
		if conf == nil {
			return nil, errors.New("the backend configuration is missing")
		}
		return newBackend(ctx, conf, build, time.Now)
	}
}

func newBackend(ctx context.Context, conf *logical.BackendConfig, build Build, now func() time.Time) (*backend, error) {
	b := &backend{
		build:       build,
		now:         now,
		exchanger:   exchange.New(now, conf.Logger),
		tokens:      tokencache.New[tokenInputs](now, conf.Logger),
		revocations: newRevocations(now),
		roleLocks:   locksutil.CreateLocks(),
		keyLocks:    locksutil.CreateLocks(),
	}
	b.config = entryCache[configuration]{load: b.loadConfiguration, discard: (*configuration).close}
	b.keys = entryCache[keyring.Key]{load: keyring.Load}
	b.roles = entryCache[role]{load: loadRole}
	b.wrappingKey = entryCache[keyring.WrappingKey]{load: keyring.LoadWrappingKey}
	b.Backend = &framework.Backend{
		Help:           strings.TrimSpace(backendHelp),
		BackendType:    logical.TypeLogical,
		RunningVersion: build.Version,
		PathsSpecial: &logical.Paths{
			SealWrapStorage: []string{keyring.StoragePrefix, keyring.WrappingKeyStoragePath},
			Unauthenticated: []string{"jwks/+"}, // the provider has no Vault token
		},
		Paths:        b.paths(),
		Secrets:      []*framework.Secret{b.accessTokenSecret()},
		PeriodicFunc: b.periodic,
		Invalidate:   b.invalidate,
		Clean:        b.clean,
	}
	remembering := *conf
	remembering.System = cacheReplication(conf.System)
	if err := b.Setup(ctx, &remembering); err != nil {
		return nil, fmt.Errorf("set up the backend: %w", err)
	}
	return b, nil
}

func (b *backend) paths() []*framework.Path {
	return []*framework.Path{
		b.pathConfig(),
		b.pathKeysList(),
		b.pathKeysImport(),
		b.pathKeysRotate(),
		b.pathKeysActivate(),
		b.pathKeysDestroy(),
		b.pathKeys(),
		b.pathWrappingKey(),
		b.pathJWKS(),
		b.pathRolesList(),
		b.pathRoles(),
		b.pathCreds(),
		b.pathAssertion(),
		b.pathCheck(),
		b.pathInfo(),
	}
}

// invalidate is called when another node wrote to storage.
func (b *backend) invalidate(_ context.Context, storagePath string) {
	if storagePath == configStoragePath {
		b.configChanged()
	}
	if name, ok := keyring.NameOf(storagePath); ok {
		b.keyChanged(name)
		b.dropTokens(name)
	}
	if storagePath == keyring.WrappingKeyStoragePath {
		b.wrappingKey.drop(storagePath)
	}
	if name, ok := strings.CutPrefix(storagePath, roleStoragePrefix); ok {
		b.roleChanged(name)
	}
}

func (b *backend) clean(context.Context) {
	b.tokens.Close()
	b.config.clear()
	b.keys.clear()
	b.roles.clear()
	b.wrappingKey.clear()
}

// lock takes the locks of these names and returns what releases them. Several are taken in one fixed order.
func lock(locks []*locksutil.LockEntry, names ...string) (unlock func()) {
	taken := locksutil.LocksForKeys(locks, names)
	for _, l := range taken {
		l.Lock()
	}
	return func() {
		for _, l := range taken {
			l.Unlock()
		}
	}
}

const backendHelp = `
The bcgov-jwt secrets engine gets OAuth 2.0 access tokens for APIs that are protected
by "Signed JWT with Certificate", such as those behind the BC Government API Gateway.

The private key is made inside Vault and cannot be read. Its public key is registered
with the identity provider once; from then on a read of creds/<role> signs a client
assertion inside Vault, exchanges it at the token endpoint, and returns a fresh access
token.

    vault write -f bcgov-jwt/keys/myapi        makes a key and prints its public key
    vault write bcgov-jwt/keys/myapi client_id=... issuer=...
    vault write -f bcgov-jwt/roles/myapi       a role, guarded by policy
    vault read bcgov-jwt/check/myapi           tries each step and says what is missing
    vault read bcgov-jwt/creds/myapi           a fresh access token
    vault write -f bcgov-jwt/keys/myapi/rotate the key's next version, when it is time

A private key that was made elsewhere can be brought in with keys/<name>/import.
`
