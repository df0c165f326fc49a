package backend

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func defaultKeySettings(name string, keyType keyring.Type) keyring.Settings {
	commonName := name
	if len(commonName) > maxCommonName {
		commonName = commonName[:maxCommonName]
	}
	return keyring.Settings{
		CommonName: commonName,
		Algorithm:  keyType.DefaultAlgorithm(),
		// Keycloak remembers a jti for at most 60 s but takes assertions for 60 s from iat: above 45 s a captured one can
		// work twice when this clock is ahead.
		AssertionTTL:    45 * time.Second,
		SendKeyID:       true,
		Registration:    keyring.Manual,
		ActivationDelay: 5 * time.Minute,
		RetireAfter:     24 * time.Hour,
	}
}

// maxCommonName is RFC 5280's ub-common-name.
const maxCommonName = 64

func keyFields() []field[keyring.Settings] {
	type settings = keyring.Settings
	return []field[settings]{
		newField("common_name", framework.TypeString,
			"Subject of the next version's certificate: at most 64 characters. Default: the key's name.",
			func(s *settings) *string { return &s.CommonName }, printable(maxCommonName)),
		newField("deletion_allowed", framework.TypeBool,
			"Whether the key may be deleted. Default: false.",
			func(s *settings) *bool { return &s.DeletionAllowed }, anyValue),
		newField("disabled", framework.TypeBool,
			"Stops every signature with this key at once. Default: false.",
			func(s *settings) *bool { return &s.Disabled }, anyValue),
		newField("client_id", framework.TypeString,
			"The Client ID that the API Services Portal shows.",
			func(s *settings) *string { return &s.ClientID }, printable(256)),
		newField("issuer", framework.TypeString,
			"The Issuer that the portal shows: an https URL, kept to the letter.",
			func(s *settings) *string { return &s.Issuer }, trimmed),
		newField("token_endpoint", framework.TypeString,
			"The Token Endpoint that the portal shows. Default: what the issuer's discovery document names.",
			func(s *settings) *string { return &s.TokenEndpoint }, trimmed),
		newField("revocation_endpoint", framework.TypeString,
			"Where tokens are revoked (RFC 7009). Default: what the issuer's discovery document names.",
			func(s *settings) *string { return &s.RevocationEndpoint }, trimmed),
		newField("audience", framework.TypeString,
			"The assertion's aud. Default: the issuer, which Keycloak wants.",
			func(s *settings) *string { return &s.Audience }, audience),
		newField("algorithm", framework.TypeString,
			"The JWS algorithm: one of "+strings.Join(algorithms(), ", ")+", as it fits the type. Default: by type, RS256 for RSA keys.",
			func(s *settings) *string { return (*string)(&s.Algorithm) }, trimmed).allowing(algorithms()...),
		newField("assertion_ttl", framework.TypeDurationSecond,
			"How long an assertion is good for: 30s to 1h. Default: 45s, the most that is safe at Keycloak.",
			func(s *settings) *time.Duration { return &s.AssertionTTL }, between(30*time.Second, time.Hour)),
		newField("send_key_id", framework.TypeBool,
			"Whether assertions name their key in the kid header, which Keycloak needs for all but RS256. Default: true.",
			func(s *settings) *bool { return &s.SendKeyID }, anyValue),
		newField("registration", framework.TypeString,
			"How the provider gets to know a new version. manual: a person registers each public key, and the provider's acceptance decides which "+
				"version signs. jwks: the provider fetches it from jwks_path of this mount, and a schedule decides. Default: manual.",
			func(s *settings) *string { return (*string)(&s.Registration) }, registration).allowing(string(keyring.Manual), string(keyring.ByJWKS)),
		newField("auto_rotate_period", framework.TypeDurationSecond,
			"With registration=jwks: the age at which the newest version gets a successor by itself: at least 1h. Default: 0, never.",
			func(s *settings) *time.Duration { return &s.AutoRotatePeriod }, autoRotatePeriod),
		newField("activation_delay", framework.TypeDurationSecond,
			"With registration=jwks: how long a new version is published before it signs: 0 to 24h. Default: 5m.",
			func(s *settings) *time.Duration { return &s.ActivationDelay }, between(0, 24*time.Hour)),
		newField("retire_after", framework.TypeDurationSecond,
			"How long a version stays usable and published after its successor was first accepted: at least assertion_ttl and 75s, at most 90d. Default: 24h.",
			func(s *settings) *time.Duration { return &s.RetireAfter }, retireAfter),
	}
}

// algorithms lists every algorithm that some key type allows.
func algorithms() []string {
	var all []string
	for _, keyType := range keyring.Types() {
		for _, algorithm := range keyType.Algorithms() {
			if !slices.Contains(all, string(algorithm)) {
				all = append(all, string(algorithm))
			}
		}
	}
	return all
}

// newKeySettings applies the request to the present settings and checks the result. Only what changes is checked against
// the configuration, so that a stricter one does not stand in the way of other changes.
func (b *backend) newKeySettings(ctx context.Context, req *logical.Request, keyType keyring.Type, before, defaults keyring.Settings) (keyring.Settings, error) {
	after := before
	if err := apply(keyFields(), &after, &defaults, req.Data); err != nil {
		return after, err
	}
	if !slices.Contains(keyType.Algorithms(), after.Algorithm) {
		return after, userErrorf("algorithm: %s does not fit the key type %s, which signs with %s",
			quoted(string(after.Algorithm)), keyType, join(keyType.Algorithms()))
	}
	if err := checkNotEmptied(before, after); err != nil {
		return after, err
	}
	if err := checkRotation(after); err != nil {
		return after, err
	}
	return after, b.checkURLs(ctx, req, before, after)
}

func keyTypeIn(data map[string]any, absent keyring.Type) (keyring.Type, error) {
	text, _ := data["type"].(string) // checkInput has refused any other kind of value
	keyType := keyring.Type(strings.TrimSpace(text))
	if keyType == "" {
		return absent, nil
	}
	if !keyType.Valid() {
		return "", userErrorf("type: %s is not a key type; the types are %s", quoted(string(keyType)), join(keyring.Types()))
	}
	return keyType, nil
}

func checkNotEmptied(before, after keyring.Settings) error {
	for _, required := range []struct{ field, before, after string }{
		{"client_id", before.ClientID, after.ClientID},
		{"issuer", before.Issuer, after.Issuer},
	} {
		if required.before != "" && required.after == "" {
			return userErrorf("%s: cannot be emptied once it is set; to stop the key's use write disabled=true", required.field)
		}
	}
	return nil
}

// retirementSlack is what retire_after must be longer than an assertion: the provider forgives 15 s of clock difference
// and may cache a document for 60 s.
const retirementSlack = 75 * time.Second

// checkRotation holds the settings of rotation to each other, whichever of them changes.
func checkRotation(s keyring.Settings) error {
	switch {
	case s.AutoRotatePeriod > 0 && s.Registration != keyring.ByJWKS:
		return userErrorf("auto_rotate_period: needs registration=jwks, as with manual a person has to register each new public key; to change to manual write auto_rotate_period=0 with it")
	case s.RetireAfter < s.AssertionTTL+retirementSlack:
		return userErrorf("retire_after: %s is too short for assertion_ttl %s: it must be at least %s",
			compact(s.RetireAfter), compact(s.AssertionTTL), compact(s.AssertionTTL+retirementSlack))
	}
	return nil
}

func (b *backend) checkURLs(ctx context.Context, req *logical.Request, before, after keyring.Settings) error {
	mount := req.MountPoint
	config, err := b.config.get(ctx, req.Storage, configStoragePath)
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
		if err := config.client.CheckURL(endpoint.after); err != nil {
			return userErrorf("%s: %w%s", endpoint.field, err, listingAdvice(mount, err))
		}
	}
	return nil
}

// registered says whether the key's client is known, so that tokens can be asked for.
func registered(key *keyring.Key) bool {
	return key.Settings().ClientID != "" && key.Settings().Issuer != ""
}

// loadKeyToChange reads the key that a request names, from storage. It is called under the key's lock.
func loadKeyToChange(ctx context.Context, req *logical.Request, name string) (*keyring.Key, error) {
	key, err := keyring.Load(ctx, req.Storage, name)
	if err == nil && key == nil {
		err = userErrorf("name: there is no key %q; make it with: vault write -f %skeys/%s", name, req.MountPoint, name)
	}
	return key, err
}

func (b *backend) storeNewKey(ctx context.Context, storage logical.Storage, key *keyring.Key) error {
	defer b.keyChanged(key.Name())
	return keyring.Create(ctx, storage, key)
}

// storeKey writes a changed key over the one before. It is called under the key's lock.
func (b *backend) storeKey(ctx context.Context, storage logical.Storage, before, after *keyring.Key) error {
	defer b.keyChanged(after.Name())
	return keyring.Update(ctx, storage, before, after)
}

// keyChanger stores what an exchange learned of a key. A node that cannot write stores nothing: it keeps what it learned
// in memory.
func (b *backend) keyChanger(storage logical.Storage, name string) exchange.ChangeFunc {
	return func(ctx context.Context, edit func(*keyring.Key) *keyring.Key) error {
		if !b.WriteSafeReplicationState() {
			return nil
		}
		defer lock(b.keyLocks, name)()
		before, err := keyring.Load(ctx, storage, name)
		if err != nil {
			return err
		}
		after := edit(before)
		if after == nil {
			return nil
		}
		return b.storeKey(ctx, storage, before, after)
	}
}

// keyChanged forgets what this node holds of a key, whether or not the write of it succeeded.
func (b *backend) keyChanged(name string) {
	b.keys.drop(name)
	b.schedule.check(name)
}

// dropTokens makes the next readers of shared tokens wait for a token that the key, as it is now, was asked for.
func (b *backend) dropTokens(keyName string) {
	b.tokens.DropIf(func(basis tokenInputs) bool { return basis.role.Key == keyName })
}
