package backend

import (
	"context"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/hashicorp/go-secure-stdlib/strutil"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	roleStoragePrefix = "role/"
	roleFormat        = 1
)

// role holds what to request with a key. A policy on creds/<role> decides who may read its tokens.
type role struct {
	Format     int      `json:"format"`
	Key        string   `json:"key"`
	KeyID      string   `json:"key_id"` // distinguishes the key from a later one of that name
	Scopes     []string `json:"scopes"`
	Parameters []string `json:"parameters"`

	Delivery       delivery      `json:"delivery"`
	RefreshMargin  time.Duration `json:"refresh_margin"` // 0: defaultMargin
	RevokeTokens   bool          `json:"revoke_tokens"`
	AllowAssertion bool          `json:"allow_assertion"`
}

// delivery is how a role's readers obtain tokens.
type delivery string

const (
	leasedDelivery   delivery = "leased"
	unleasedDelivery delivery = "unleased"
	sharedDelivery   delivery = "shared"
)

func deliveries() []delivery { return []delivery{leasedDelivery, unleasedDelivery, sharedDelivery} }

func roleFields() []field[role] {
	return []field[role]{
		newField("key", framework.TypeString,
			func(r *role) *string { return &r.Key }, keyName),
		newField("scopes", framework.TypeCommaStringSlice,
			func(r *role) *[]string { return &r.Scopes }, scopeTokens),
		newField("parameters", framework.TypeStringSlice,
			func(r *role) *[]string { return &r.Parameters }, formParameters),
		newField("delivery", framework.TypeString,
			func(r *role) *string { return (*string)(&r.Delivery) },
			oneOf(deliveries())).allowing(texts(deliveries())...),
		newField("refresh_margin", framework.TypeDurationSecond,
			func(r *role) *time.Duration { return &r.RefreshMargin }, marginWithinLife),
		newField("revoke_tokens", framework.TypeBool,
			func(r *role) *bool { return &r.RevokeTokens }, anyValue[bool]),
		newField("allow_assertion", framework.TypeBool,
			func(r *role) *bool { return &r.AllowAssertion }, anyValue[bool]),
	}
}

// validate checks the fields against each other.
func (r *role) validate() error {
	if r.RevokeTokens && r.Delivery != leasedDelivery {
		return userErrorf("revoke_tokens: requires delivery=leased, not %s, as the end of a lease "+
			"revokes the token", r.Delivery)
	}
	return nil
}

// form returns the parameters as form values.
func (r *role) form() url.Values {
	form := make(url.Values, len(r.Parameters))
	for _, parameter := range r.Parameters {
		name, value, _ := strings.Cut(parameter, "=")
		form.Add(name, value)
	}
	return form
}

// defaultMargin returns how long before a token expires its reader should have the next one: a
// fifth of its lifetime, from 10 s to 60 s so that a Vault Agent's retries fit, but at most half.
func defaultMargin(lifetime time.Duration) time.Duration {
	margin := min(time.Minute, max(10*time.Second, lifetime/5), lifetime/2)
	return max(margin.Truncate(time.Second), time.Second)
}

// margin returns refresh_margin, or the default where none is set or such a token cannot keep it.
func (r *role) margin(lifetime time.Duration) time.Duration {
	if r.RefreshMargin == 0 || !r.keepsMargin(lifetime) {
		return defaultMargin(lifetime)
	}
	return r.RefreshMargin
}

// keepsMargin reports whether a token with this lifetime can keep refresh_margin.
func (r *role) keepsMargin(lifetime time.Duration) bool { return r.RefreshMargin < lifetime }

// usableLifetime returns how much of its lifetime a token is used for: at least 1 s, as Vault
// replaces a lease of 0 with the mount's default, which is days.
func (r *role) usableLifetime(lifetime time.Duration) time.Duration {
	return max(lifetime-r.margin(lifetime), time.Second)
}

// remainingTTL returns what is left of a fresh token's usable lifetime. Vault and the reader count
// from now, the lifetime from when the token was requested; retries can lie in between.
func (r *role) remainingTTL(token *exchange.Token, now time.Time) time.Duration {
	passed := now.Sub(token.RequestedAt).Truncate(time.Second)
	return max(r.usableLifetime(token.Lifetime)-passed, time.Second)
}

func roleNames(ctx context.Context, s logical.Storage) ([]string, error) {
	names, err := s.List(ctx, roleStoragePrefix)
	if err != nil {
		return nil, fmt.Errorf("list the roles: %w", err)
	}
	return names, nil
}

func loadRole(ctx context.Context, s logical.Storage, name string) (*role, error) {
	stored := role{Delivery: leasedDelivery} // for entries older than the field
	found, err := storage.Get(ctx, s, roleStoragePrefix+name, roleFormat, &stored)
	if err != nil {
		return nil, fmt.Errorf("role %q: %w", name, err)
	}
	if !found {
		return nil, nil
	}
	return &stored, nil
}

// storeRole binds the role to its key and writes it, under the locks of the keys that it leaves and
// joins. The caller holds the role's lock.
func (b *backend) storeRole(
	ctx context.Context, req *logical.Request, name string, before, after *role,
) error {
	keys := []string{after.Key}
	if before != nil {
		keys = append(keys, before.Key)
	}
	unlock, err := b.keyLocks.lock(ctx, keys...)
	if err != nil {
		return err
	}
	defer unlock()
	if err := b.bindRole(ctx, req, name, before, after); err != nil {
		return err
	}
	if before != nil && reflect.DeepEqual(*before, *after) {
		return nil
	}
	defer b.roleChanged(name)
	if err := storage.Put(ctx, req.Storage, roleIndex(after.Key, name), struct{}{}); err != nil {
		return err
	}
	if err := storage.Put(ctx, req.Storage, roleStoragePrefix+name, after); err != nil {
		return err
	}
	if before != nil && before.Key != after.Key {
		return req.Storage.Delete(ctx, roleIndex(before.Key, name))
	}
	return nil
}

// bindRole binds a role to the key that it names, which must allow it. A role whose key was deleted
// or is damaged can still be changed.
func (b *backend) bindRole(
	ctx context.Context, req *logical.Request, name string, before, after *role,
) error {
	key, err := keyring.Load(ctx, req.Storage, after.Key)
	_, keyNamed := req.Data["key"]
	binds := before == nil || keyNamed
	switch {
	case err != nil && (binds || !storage.Unreadable(err)):
		return err
	case key != nil:
		if binds {
			after.KeyID = key.ID()
		}
		return checkAllowed(req.MountPoint, key, name)
	case binds:
		return userErrorf("key: %q does not exist; set key=… or create it with: vault write -f "+
			"%skeys/%[1]s", after.Key, req.MountPoint)
	}
	return nil
}

// checkAllowed returns an error unless the key's allowed_roles include the role.
func checkAllowed(mount string, key *keyring.Key, role string) error {
	if strutil.StrListContainsGlob(key.Settings().AllowedRoles, role) {
		return nil
	}
	return userErrorf("key %q does not allow role %q; to allow it, write the complete list: vault "+
		"write %skeys/%[1]s allowed_roles=…", key.Name(), role, mount)
}

// roleChanged drops what this node caches of a role, also after a failed write.
func (b *backend) roleChanged(name string) {
	b.roles.drop(name)
	b.tokens.Drop(name)
}

// keyOfRole returns the key that a role is bound to, or a userError if it was deleted or does not
// allow the role.
func (b *backend) keyOfRole(
	ctx context.Context, req *logical.Request, name string, r *role,
) (*keyring.Key, error) {
	key, err := b.keys.get(ctx, req.Storage, r.Key)
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, userErrorf("role %q uses key %q, which does not exist; to use another key: "+
			"vault write %sroles/%[1]s key=…", name, r.Key, req.MountPoint)
	}
	if key.ID() != r.KeyID {
		return nil, userErrorf("role %q was created for an earlier key %q, which was deleted; "+
			"to use the current one: vault write %sroles/%s key=%s",
			name, r.Key, req.MountPoint, name, r.Key)
	}
	return key, checkAllowed(req.MountPoint, key, name)
}

// requestedRole returns the role that the request names. An unknown one is a userError, as the CLI
// would show a 404 as "No value found".
func (b *backend) requestedRole(
	ctx context.Context, req *logical.Request, data *framework.FieldData,
) (string, *role, error) {
	name, err := nameIn(data, "role")
	if err != nil {
		return "", nil, err
	}
	found, err := b.roles.get(ctx, req.Storage, name)
	if err == nil && found == nil {
		err = userErrorf("unknown role %q; to list roles: vault list %sroles", name, req.MountPoint)
	}
	return name, found, err
}

// roleIndex returns the path of the empty entry that records that a role uses a key.
func roleIndex(key, role string) string {
	return roleIndexPrefix(key) + role
}

func roleIndexPrefix(key string) string { return "key-role/" + key + "/" }

// rolesOf returns the roles that use a key. Where its index and a role differ, the role counts; for
// a role that cannot be read the index does.
func (b *backend) rolesOf(ctx context.Context, s logical.Storage, key string) ([]string, error) {
	indexed, err := s.List(ctx, roleIndexPrefix(key))
	if err != nil {
		return nil, fmt.Errorf("list the roles of key %q: %w", key, err)
	}
	names := []string{}
	for _, name := range indexed {
		found, err := b.roles.get(ctx, s, name)
		switch {
		case storage.Unreadable(err):
			names = append(names, name)
		case err != nil:
			return nil, err
		case found != nil && found.Key == key:
			names = append(names, name)
		}
	}
	return names, nil
}
