package backend

import (
	"context"
	"fmt"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
)

const (
	roleStoragePrefix = "role/"
	roleFormat        = 1
)

// role says what to ask the provider for with a key. Who may ask is a matter of policy on creds/<role>.
type role struct {
	Format int `json:"format"`
	// Key names the key, and KeyID tells it from a later one of the same name.
	Key        string   `json:"key"`
	KeyID      string   `json:"key_id"`
	Scopes     []string `json:"scopes"`
	Parameters []string `json:"parameters"`

	Delivery       delivery      `json:"delivery"`
	RefreshMargin  time.Duration `json:"refresh_margin"` // 0: by rule
	RevokeTokens   bool          `json:"revoke_tokens"`
	AllowAssertion bool          `json:"allow_assertion"`
}

// delivery is how a role's readers get tokens.
type delivery string

const (
	leasedDelivery   delivery = "leased"   // a fresh token each, under a lease
	unleasedDelivery delivery = "unleased" // a fresh token each, without a lease
	sharedDelivery   delivery = "shared"   // one token for all readers on this node
)

func deliveries() []delivery { return []delivery{leasedDelivery, unleasedDelivery, sharedDelivery} }

func roleFields() []field[role] {
	return []field[role]{
		newField("key", framework.TypeString,
			"The key to sign with. Default: the key of the role's own name.",
			func(r *role) *string { return &r.Key }, keyName),
		newField("scopes", framework.TypeCommaStringSlice,
			"The scopes to ask for, as a list. Default: none, so that the provider grants the client's own.",
			func(r *role) *[]string { return &r.Scopes }, scopeTokens),
		newField("parameters", framework.TypeStringSlice,
			"Further form parameters of the token request as `name=value`, such as resource, audience or authorization_details. "+
				"May be given several times.",
			func(r *role) *[]string { return &r.Parameters }, formParameters),
		newField("delivery", framework.TypeString,
			"How readers get tokens. leased: a fresh one each, under a lease. unleased: a fresh one each, without a lease, for Vault tokens that cannot hold one. "+
				"shared: one for all readers on a node, replaced ahead of time. Default: leased.",
			func(r *role) *string { return (*string)(&r.Delivery) }, deliveryName).allowing(texts(deliveries())...),
		newField("refresh_margin", framework.TypeDurationSecond,
			"How long before a token's end its reader should have the next one: the lease or ttl ends that much earlier. Default: 0, by rule: a fifth of the token's life, "+
				"10 s to 60 s, at most half of it.",
			func(r *role) *time.Duration { return &r.RefreshMargin }, marginWithinLife),
		newField("revoke_tokens", framework.TypeBool,
			"Ask the provider to revoke a token when its lease ends (RFC 7009), as well as that can be done. With delivery=leased only. Default: false.",
			func(r *role) *bool { return &r.RevokeTokens }, anyValue[bool]),
		newField("allow_assertion", framework.TypeBool,
			"Open assertion/<role>, which hands out signed client assertions for callers that reach the provider when Vault does not. Default: false.",
			func(r *role) *bool { return &r.AllowAssertion }, anyValue[bool]),
	}
}

// form returns the parameters as a form takes them.
func (r *role) form() url.Values {
	form := make(url.Values, len(r.Parameters))
	for _, parameter := range r.Parameters {
		name, value, _ := strings.Cut(parameter, "=")
		form.Add(name, value)
	}
	return form
}

// defaultMargin is how long before a token's end its reader should have the next one: a fifth of its life, between 10 s and
// 60 s so that a Vault Agent's retries fit in, but never more than half of it.
func defaultMargin(life time.Duration) time.Duration {
	margin := min(time.Minute, max(10*time.Second, life/5), life/2)
	return max(margin.Truncate(time.Second), time.Second)
}

// margin is the role's refresh_margin, or the rule's where that is not set or no token of this life could keep it.
func (r *role) margin(life time.Duration) time.Duration {
	if r.RefreshMargin == 0 || !r.keepsMargin(life) {
		return defaultMargin(life)
	}
	return r.RefreshMargin
}

// keepsMargin says whether a token of this life can keep the role's refresh_margin.
func (r *role) keepsMargin(life time.Duration) bool { return r.RefreshMargin < life }

// period is how much of its life a token is used for: at least 1 s, as Vault takes a lease of 0 for the mount's default,
// which is days.
func (r *role) usableLifetime(life time.Duration) time.Duration {
	return max(life-r.margin(life), time.Second)
}

// rest is what is left of a fresh token's period. Vault and the reader count from now, the token's life from when it was
// asked for, which retries can put some time ago.
func (r *role) remainingTTL(token *exchange.Token, now time.Time) time.Duration {
	return max(r.usableLifetime(token.Lifetime)-now.Sub(token.RequestedAt).Truncate(time.Second), time.Second)
}

func loadRole(ctx context.Context, s logical.Storage, name string) (*role, error) {
	stored := role{Delivery: leasedDelivery} // roles stored before there was a choice
	found, err := storage.Get(ctx, s, roleStoragePrefix+name, roleFormat, &stored)
	if err != nil {
		return nil, fmt.Errorf("role %q: %w", name, err)
	}
	if !found {
		return nil, nil
	}
	return &stored, nil
}

// storeRole binds the role to its key and writes it, under the locks of the keys that it leaves and joins. It is called
// under the role's lock.
func (b *backend) storeRole(ctx context.Context, req *logical.Request, name string, before, after *role) error {
	keys := []string{after.Key}
	if before != nil {
		keys = append(keys, before.Key)
	}
	defer lock(b.keyLocks, keys...)()
	_, keyNamed := req.Data["key"]
	if before == nil || keyNamed {
		key, err := keyring.Load(ctx, req.Storage, after.Key)
		if err != nil {
			return err
		}
		if key == nil {
			return userErrorf("key: there is no key %q; make it with: vault write -f %skeys/%s", after.Key, req.MountPoint, after.Key)
		}
		after.KeyID = key.ID()
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

// roleChanged forgets what this node holds of a role, whether or not the write of it succeeded.
func (b *backend) roleChanged(name string) {
	b.roles.drop(name)
	b.tokens.Drop(name)
}

// keyOf returns the key that a role was bound to, or a userError where that key is no more.
func (b *backend) keyOfRole(ctx context.Context, req *logical.Request, name string, r *role) (*keyring.Key, error) {
	key, err := b.keys.get(ctx, req.Storage, r.Key)
	if err != nil {
		return nil, err
	}
	if key == nil {
		return nil, userErrorf("role %q names the key %q, which does not exist", name, r.Key)
	}
	if key.ID() != r.KeyID {
		return nil, userErrorf("role %q was made for an earlier key %q, which was deleted; to use the present key of that name: vault write %sroles/%s key=%s",
			name, r.Key, req.MountPoint, name, r.Key)
	}
	return key, nil
}

// roleIn returns the role that the request names.
func (b *backend) roleIn(ctx context.Context, req *logical.Request, data *framework.FieldData) (string, *role, error) {
	name, err := nameIn(data, "role")
	if err != nil {
		return "", nil, err
	}
	found, err := b.roles.get(ctx, req.Storage, name)
	if err == nil && found == nil {
		err = userErrorf("unknown role %q; to see which there are: vault list %sroles", name, req.MountPoint) // a 404 would show as "No value found" in the CLI
	}
	return name, found, err
}

// roleIndex is the storage path that says that a role names a key. It holds nothing.
func roleIndex(key, role string) string {
	return roleIndexPrefix(key) + role
}

func roleIndexPrefix(key string) string { return "key-role/" + key + "/" }

// rolesOf lists the roles that name a key. A role's entry decides where its index differs.
func (b *backend) rolesOf(ctx context.Context, s logical.Storage, key string) ([]string, error) {
	indexed, err := s.List(ctx, roleIndexPrefix(key))
	if err != nil {
		return nil, fmt.Errorf("list the roles of key %q: %w", key, err)
	}
	names := []string{}
	for _, name := range indexed {
		found, err := b.roles.get(ctx, s, name)
		if err != nil {
			return nil, err
		}
		if found != nil && found.Key == key {
			names = append(names, name)
		}
	}
	return names, nil
}

// misplacedOnRole explains a field that belongs to the key; empty if it does not.
func (b *backend) misplacedOnRole(ctx context.Context, req *logical.Request, name string) string {
	role, isRole := strings.CutPrefix(req.Path, "roles/")
	ofKey := func(f field[keyring.Settings]) bool { return f.name == name }
	if !isRole || name != "type" && !slices.ContainsFunc(keyFields(), ofKey) {
		return ""
	}
	key := role
	if found, err := b.roles.get(ctx, req.Storage, role); err == nil && found != nil {
		key = found.Key
	}
	if named, ok := req.Data["key"].(string); ok && checkName(named) == nil {
		key = named
	}
	return fmt.Sprintf("%s: belongs to the key, not to the role; set it with: vault write %skeys/%s %s=…",
		name, req.MountPoint, key, name)
}
