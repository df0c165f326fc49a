// Package backend is a Vault secrets engine for OAuth 2.0 client credentials with a signed JWT
// (RFC 6749 §4.4, RFC 7523): keys are generated in Vault and never leave it, and a read of
// creds/<role> returns a fresh access token.
package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokencache"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

// operationPrefix starts every OpenAPI operation ID.
const operationPrefix = "bcgov-jwt"

// Build identifies the source of this binary. It is set at build time.
type Build struct {
	Version string // semantic, with a leading v, as Vault's plugin catalog requires
	Commit  string
}

// backend is one mount of the secrets engine.
type backend struct {
	*framework.Backend
	build     Build
	now       func() time.Time
	generate  func(keyring.Type) (*keyring.Material, error)
	exchanger *exchange.Exchanger
	// mayHaveNamespaces reports whether the host is OpenBao or Vault Enterprise.
	mayHaveNamespaces func() bool

	// Cached, so that warm reads touch no storage.
	clients     entryCache[tokenendpoint.Client] // follow the mount's configuration
	keys        entryCache[keyring.Key]
	keyIDs      keyIDs
	keyNames    entryCache[string] // by ID
	roles       entryCache[role]
	wrappingKey entryCache[keyring.WrappingKey]

	tokens      *tokencache.Cache[tokenInputs] // of roles with delivery=shared
	revocations *revocations
	schedule    schedule // which keys have background work due, and when
	metrics     *metrics
	unmeasured  schedule // which keys the metrics do not show as they are

	// Writers take, in this order: a mount lock (of the configuration or the wrapping key), or the
	// lock of a role's name, then those of key names. A key's lock covers its entry and its roles.
	// None is held across the network or the generation of a private key.
	mountLocks locks
	roleLocks  locks
	keyLocks   locks
}

// Factory returns the factory that Vault calls for each mount.
func Factory(build Build) logical.Factory {
	return func(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
		if conf == nil {
			return nil, errors.New("the backend configuration is missing")
		}
		return newBackend(ctx, conf, build, time.Now)
	}
}

func newBackend(
	ctx context.Context, conf *logical.BackendConfig, build Build, now func() time.Time,
) (*backend, error) {
	b := &backend{
		build:       build,
		now:         now,
		generate:    keyring.Generate,
		tokens:      tokencache.New[tokenInputs](now, conf.Logger),
		revocations: newRevocations(now),
		mountLocks:  newLocks(),
		roleLocks:   newLocks(),
		keyLocks:    newLocks(),
	}
	b.metrics = newMetrics(b)
	b.exchanger = exchange.New(now, conf.Logger, b.metrics)
	b.mayHaveNamespaces = sync.OnceValue(b.namespacesPossible)
	b.clients = newEntryCache(b, b.loadClient)
	b.clients.discard = (*tokenendpoint.Client).Close
	b.keys = newEntryCache(b, keyring.Load)
	b.keyNames = newEntryCache(b, keyring.NameByID)
	b.roles = newEntryCache(b, loadRole)
	b.wrappingKey = newEntryCache(b, keyring.LoadWrappingKey)
	b.Backend = &framework.Backend{
		Help:           textOf("engine"),
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
	cachedConf := *conf
	cachedConf.System = cacheReplication(conf.System)
	if err := b.Setup(ctx, &cachedConf); err != nil {
		return nil, fmt.Errorf("set up the backend: %w", err)
	}
	return b, nil
}

func (b *backend) paths() []*framework.Path {
	paths := []*framework.Path{
		b.pathConfig(),
		b.pathKeysList(),
		b.pathKeysImport(),
		b.pathKeysRotate(),
		b.pathKeysActivate(),
		b.pathKeysDestroy(),
		b.pathKeysCertificate(),
		b.pathKeysJWKS(),
		b.pathKeysVersionsList(),
		b.pathKeysVersions(),
		b.pathKeys(),
		b.pathWrappingKey(),
		b.pathJWKS(),
		b.pathRolesList(),
		b.pathRoles(),
		b.pathCreds(),
		b.pathAssertion(),
		b.pathCheck(),
		b.pathInfo(),
		b.pathMetrics(),
	}
	for _, path := range paths {
		path.DisplayAttrs = &framework.DisplayAttributes{OperationPrefix: operationPrefix}
	}
	return paths
}

// invalidate drops what is cached of an entry that another node wrote.
func (b *backend) invalidate(_ context.Context, storagePath string) {
	if storagePath == configStoragePath {
		b.configChanged()
	}
	if name, ok := keyring.NameOf(storagePath); ok {
		if key := b.keyChanged(name); key != nil {
			b.exchanger.Forget(key.ID())
		}
		b.dropTokens(name)
	}
	if id, ok := strings.CutPrefix(storagePath, keyring.IDPrefix); ok {
		b.keyIDChanged(id)
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
	b.clients.clear()
	b.keys.clear()
	b.keyNames.clear()
	b.roles.clear()
	b.wrappingKey.clear()
}
