package backend

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/hashicorp/go-secure-stdlib/strutil"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func defaultKeySettings(name string, keyType keyring.Type) keyring.Settings {
	return keyring.Settings{
		CommonName: name[:min(len(name), maxCommonName)],
		Algorithm:  keyType.DefaultAlgorithm(),
		// Keycloak stores a jti for at most 60 s but accepts assertions until 60 s after iat: above
		// 45 s a captured one can be replayed when this clock is ahead.
		AssertionTTL:     45 * time.Second,
		SendKeyID:        true,
		AllowedRoles:     []string{"*"},
		Registration:     keyring.Manual,
		PrepublishPeriod: 5 * time.Minute,
		OverlapPeriod:    24 * time.Hour,
	}
}

// maxCommonName is RFC 5280's ub-common-name.
const maxCommonName = 64

func keyFields() []field[keyring.Settings] {
	return slices.Concat(keyPairFields(), clientFields(), rotationFields())
}

func keyPairFields() []field[keyring.Settings] {
	type settings = keyring.Settings
	return []field[settings]{
		newField("common_name", framework.TypeString,
			func(s *settings) *string { return &s.CommonName }, printable(maxCommonName)),
		newField("deletion_allowed", framework.TypeBool,
			func(s *settings) *bool { return &s.DeletionAllowed }, anyValue),
		newField("disabled", framework.TypeBool,
			func(s *settings) *bool { return &s.Disabled }, anyValue),
		newField("allowed_roles", framework.TypeCommaStringSlice,
			func(s *settings) *[]string { return &s.AllowedRoles }, roleGlobs),
	}
}

func clientFields() []field[keyring.Settings] {
	type settings = keyring.Settings
	return []field[settings]{
		newField("client_id", framework.TypeString,
			func(s *settings) *string { return &s.ClientID }, clientID),
		newField("issuer", framework.TypeString,
			func(s *settings) *string { return &s.Issuer }, issuer),
		newField("token_endpoint", framework.TypeString,
			func(s *settings) *string { return &s.TokenEndpoint }, trimmed),
		newField("revocation_endpoint", framework.TypeString,
			func(s *settings) *string { return &s.RevocationEndpoint }, trimmed),
		newField("audience", framework.TypeString,
			func(s *settings) *string { return &s.Audience }, audience),
		newField("algorithm", framework.TypeString,
			func(s *settings) *string { return (*string)(&s.Algorithm) }, trimmed).
			allowing(algorithms()...),
		newField("assertion_ttl", framework.TypeDurationSecond,
			func(s *settings) *time.Duration { return &s.AssertionTTL },
			between(30*time.Second, time.Hour)),
		newField("send_key_id", framework.TypeBool,
			func(s *settings) *bool { return &s.SendKeyID }, anyValue),
	}
}

func rotationFields() []field[keyring.Settings] {
	type settings = keyring.Settings
	return []field[settings]{
		newField("registration", framework.TypeString,
			func(s *settings) *string { return (*string)(&s.Registration) },
			oneOf(registrations())).allowing(texts(registrations())...),
		newField("auto_rotate_period", framework.TypeDurationSecond,
			func(s *settings) *time.Duration { return &s.AutoRotatePeriod }, autoRotatePeriod),
		newField("prepublish_period", framework.TypeDurationSecond,
			func(s *settings) *time.Duration { return &s.PrepublishPeriod },
			between(0, 24*time.Hour)),
		newField("overlap_period", framework.TypeDurationSecond,
			func(s *settings) *time.Duration { return &s.OverlapPeriod }, overlapPeriod),
	}
}

func registrations() []keyring.Registration {
	return []keyring.Registration{keyring.Manual, keyring.ByJWKS}
}

// algorithms lists the algorithms of all key types.
func algorithms() []string {
	var all []string
	for _, keyType := range keyring.Types() {
		all = append(all, texts(keyType.Algorithms())...)
	}
	return strutil.RemoveDuplicatesStable(all, false)
}

// newKeySettings applies the request to the settings and validates the result. Only changes are
// checked against the configuration, so that a stricter one does not block others.
func (b *backend) newKeySettings(
	ctx context.Context, req *logical.Request, name string, keyType keyring.Type,
	before keyring.Settings,
) (keyring.Settings, error) {
	after, defaults := before, defaultKeySettings(name, keyType)
	if swapped(req.Data) {
		return after, userErrorf("issuer: is a URL below token_endpoint; swap the two, as the " +
			"issuer is the shorter one")
	}
	if err := apply(keyFields(), &after, &defaults, req.Data); err != nil {
		return after, err
	}
	err := checkKeySettings(req.MountPoint, name, keyType, before, after)
	if err == nil {
		err = b.checkURLs(ctx, req, before, after)
	}
	return after, err
}

// swapped reports whether a request has issuer and token_endpoint in each other's place: endpoints
// are below their issuer.
func swapped(data map[string]any) bool {
	issuer, _ := data["issuer"].(string)
	endpoint, _ := data["token_endpoint"].(string)
	endpoint = strings.TrimRight(strings.TrimSpace(endpoint), "/")
	return endpoint != "" && strings.HasPrefix(strings.TrimSpace(issuer), endpoint+"/")
}

func typeParam(data map[string]any, byDefault keyring.Type) (keyring.Type, error) {
	text, _ := data["type"].(string) // checkInput rejects other kinds of values
	keyType := keyring.Type(strings.TrimSpace(text))
	if keyType == "" {
		return byDefault, nil
	}
	if !keyType.Valid() {
		return "", userErrorf("type: %s is not a supported key type; use one of %s",
			quoted(string(keyType)), join(keyring.Types()))
	}
	return keyType, nil
}

// retirementSlack is how much overlap_period must exceed assertion_ttl: the provider tolerates 15 s
// of clock skew and may cache the key set for 60 s.
const retirementSlack = 75 * time.Second

func checkKeySettings(
	mount, name string, keyType keyring.Type, before, after keyring.Settings,
) error {
	const emptied = "%s: cannot be emptied once set; to stop the key from signing: " +
		"vault write %skeys/%s disabled=true"
	overlapPeriod := after.AssertionTTL + retirementSlack
	switch {
	case !slices.Contains(keyType.Algorithms(), after.Algorithm):
		return userErrorf("algorithm: %s does not match key type %s, which supports %s",
			quoted(string(after.Algorithm)), keyType, join(keyType.Algorithms()))
	case before.ClientID != "" && after.ClientID == "":
		return userErrorf(emptied, "client_id", mount, name)
	case before.Issuer != "" && after.Issuer == "":
		return userErrorf(emptied, "issuer", mount, name)
	case before.Client() != after.Client() && !after.Client().TokenEndpointKnown():
		return userErrorf("token_endpoint: is required, because audience is not the issuer: no " +
			"endpoint is discovered for such a key")
	case after.AutoRotatePeriod > 0 && after.Registration != keyring.ByJWKS:
		return userErrorf("auto_rotate_period: requires registration=jwks; with manual, set it to "+
			"0 and rotate with: vault write -f %skeys/%s/rotate", mount, name)
	case after.OverlapPeriod < overlapPeriod:
		return userErrorf("overlap_period: %s is too short for assertion_ttl %s; set at least %s",
			compact(after.OverlapPeriod), compact(after.AssertionTTL), compact(overlapPeriod))
	}
	return nil
}

func (b *backend) checkURLs(
	ctx context.Context, req *logical.Request, before, after keyring.Settings,
) error {
	client, err := b.clients.get(ctx, req.Storage, configStoragePath)
	if err != nil {
		return err
	}
	for _, endpoint := range []struct{ field, before, after string }{
		{"issuer", before.Issuer, after.Issuer},
		{"token_endpoint", before.TokenEndpoint, after.TokenEndpoint},
		{"revocation_endpoint", before.RevocationEndpoint, after.RevocationEndpoint},
	} {
		if endpoint.after == "" || endpoint.after == endpoint.before {
			continue
		}
		if err := client.CheckURL(endpoint.after); err != nil {
			return urlError(req.MountPoint, endpoint.field, err)
		}
	}
	return nil
}

// registered reports whether the settings have what a token request needs.
func registered(settings keyring.Settings) bool {
	return settings.ClientID != "" && settings.Issuer != ""
}

// keyState is how far a key has come.
type keyState string

// The states of a key: the first that applies.
const (
	keyDisabled     keyState = "disabled"
	keyUnregistered keyState = "unregistered"
	keyStaged       keyState = "staged"
	keyWaiting      keyState = "waiting" // the provider has not accepted the active version
	keyReady        keyState = "ready"
)

func stateOf(key *keyring.Summary) keyState {
	switch {
	case key.Settings.Disabled:
		return keyDisabled
	case !registered(key.Settings):
		return keyUnregistered
	case key.Staged != 0:
		return keyStaged
	case !key.Accepted:
		return keyWaiting
	}
	return keyReady
}

// loadForUpdate loads a key from storage. The caller holds the key's lock.
func loadForUpdate(ctx context.Context, req *logical.Request, name string) (*keyring.Key, error) {
	key, err := keyring.Load(ctx, req.Storage, name)
	if err == nil && key == nil {
		err = userErrorf("name: key %q does not exist; list the keys with: vault list %skeys",
			name, req.MountPoint)
	}
	return key, err
}

// storeKey replaces a stored key. The caller holds the key's lock.
func (b *backend) storeKey(
	ctx context.Context, storage logical.Storage, before, after *keyring.Key,
) error {
	defer b.keyChanged(after.Name())
	return keyring.Update(ctx, storage, before, after)
}

// keyChanger stores what an exchange learned about a key. A node that cannot write stores nothing:
// the exchange keeps it in memory.
func (b *backend) keyChanger(storage logical.Storage, name string) exchange.ChangeFunc {
	return func(ctx context.Context, edit func(*keyring.Key) *keyring.Key) error {
		if !b.WriteSafeReplicationState() {
			return exchange.ErrReadOnly
		}
		unlock, err := b.keyLocks.lock(ctx, name)
		if err != nil {
			return err
		}
		defer unlock()
		before, err := keyring.Load(ctx, storage, name)
		if err != nil {
			return err
		}
		if after := edit(before); after != nil {
			return b.storeKey(ctx, storage, before, after)
		}
		return nil
	}
}

// registrationChanged logs what changed of where the key's signatures go, and forgets what another
// client's provider accepted.
func (b *backend) registrationChanged(before, after *keyring.Key, requestID string) {
	if before.Client() != after.Client() {
		b.exchanger.Forget(after.ID())
	}
	old, current := before.Settings(), after.Settings()
	changes := []any{"key", after.Name()}
	for _, f := range clientFields() {
		switch f.name {
		case "client_id", "issuer", "token_endpoint", "revocation_endpoint", "audience":
			if from, to := f.show(&old), f.show(&current); from != to {
				changes = append(changes, f.name, fmt.Sprintf("%q → %q", from, to))
			}
		}
	}
	if len(changes) > 2 {
		b.Logger().Info("key registration changed", append(changes, "request_id", requestID)...)
	}
}

// keyChanged drops a key from memory, whether or not its write succeeded, and returns it.
func (b *backend) keyChanged(name string) *keyring.Key {
	b.schedule.check(name)
	b.unmeasured.check(name)
	return b.keys.drop(name)
}

// dropTokens drops the shared tokens of a key's roles: the next readers wait for a token that is
// requested with the key as it is now.
func (b *backend) dropTokens(keyName string) {
	b.tokens.DropIf(func(inputs tokenInputs) bool { return inputs.role.Key == keyName })
}

// versionNumber returns 0 for no version.
func versionNumber(v *keyring.Version) int {
	if v == nil {
		return 0
	}
	return v.Number()
}

// keyIDs holds the IDs of all keys, so that a request for any other, which anyone can send, costs
// neither memory nor a call to Vault. Storage is listed once, by a standby once a minute; then each
// write changes one ID. A deleted key's may remain until it is requested.
type keyIDs struct {
	sync.Map

	listedAt atomic.Pointer[time.Time]
}

// listKeyIDs lists the stored IDs, unless that was done. Concurrent requests wait for one list.
func (b *backend) listKeyIDs(ctx context.Context, storage logical.Storage) error {
	listed := func() bool {
		at := b.keyIDs.listedAt.Load()
		return at != nil && !b.expired(*at)
	}
	if listed() {
		return nil
	}
	unlock, err := b.mountLocks.lock(ctx, keyring.IDPrefix)
	if err != nil {
		return err
	}
	defer unlock()
	if listed() {
		return nil
	}
	now := b.now()
	ids, err := keyring.ListIDs(ctx, storage)
	if err != nil {
		return err
	}
	for _, id := range ids {
		b.keyIDs.Store(id, nil)
	}
	b.keyIDs.listedAt.Store(&now)
	return nil
}

// keyByID returns the key with this ID, or nil.
func (b *backend) keyByID(
	ctx context.Context, storage logical.Storage, id string,
) (*keyring.Key, error) {
	if err := b.listKeyIDs(ctx, storage); err != nil {
		return nil, err
	}
	if _, known := b.keyIDs.Load(id); !known {
		return nil, nil
	}
	name, err := b.keyNames.get(ctx, storage, id)
	if err != nil {
		return nil, err
	}
	if name == nil { // deleted, and no later key has this ID
		b.keyIDs.Delete(id)
		return nil, nil
	}
	key, err := b.keys.get(ctx, storage, *name)
	if err != nil || key == nil || key.ID() != id { // where its index differs, the key counts
		return nil, err
	}
	return key, nil
}

// keyIDChanged notes that the index of an ID was written or deleted.
func (b *backend) keyIDChanged(id string) {
	b.keyIDs.Store(id, nil)
	b.keyNames.drop(id)
}
