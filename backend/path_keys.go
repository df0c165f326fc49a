package backend

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

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

func keySettings() []setting[keyring.Settings] {
	type settings = keyring.Settings
	return []setting[settings]{
		newSetting("common_name", framework.TypeString,
			"Subject of the next version's certificate: at most 64 characters. Default: the key's name.",
			func(s *settings) *string { return &s.CommonName }, printable(maxCommonName)),
		newSetting("deletion_allowed", framework.TypeBool,
			"Whether the key may be deleted. Default: false.",
			func(s *settings) *bool { return &s.DeletionAllowed }, anyValue),
		newSetting("disabled", framework.TypeBool,
			"Stops every signature with this key at once. Default: false.",
			func(s *settings) *bool { return &s.Disabled }, anyValue),
		newSetting("client_id", framework.TypeString,
			"The Client ID that the API Services Portal shows.",
			func(s *settings) *string { return &s.ClientID }, printable(256)),
		newSetting("issuer", framework.TypeString,
			"The Issuer that the portal shows: an https URL, kept to the letter.",
			func(s *settings) *string { return &s.Issuer }, trimmed),
		newSetting("token_endpoint", framework.TypeString,
			"The Token Endpoint that the portal shows. Default: what the issuer's discovery document names.",
			func(s *settings) *string { return &s.TokenEndpoint }, trimmed),
		newSetting("revocation_endpoint", framework.TypeString,
			"Where tokens are revoked (RFC 7009). Default: what the issuer's discovery document names.",
			func(s *settings) *string { return &s.RevocationEndpoint }, trimmed),
		newSetting("audience", framework.TypeString,
			"The assertion's aud. Default: the issuer, which Keycloak wants.",
			func(s *settings) *string { return &s.Audience }, audience),
		newSetting("algorithm", framework.TypeString,
			"The JWS algorithm: one of "+strings.Join(algorithms(), ", ")+", as it fits the type. Default: by type, RS256 for RSA keys.",
			func(s *settings) *string { return (*string)(&s.Algorithm) }, trimmed).allowing(algorithms()...),
		newSetting("assertion_ttl", framework.TypeDurationSecond,
			"How long an assertion is good for: 30s to 1h. Default: 45s, the most that is safe at Keycloak.",
			func(s *settings) *time.Duration { return &s.AssertionTTL }, between(30*time.Second, time.Hour)),
		newSetting("send_key_id", framework.TypeBool,
			"Whether assertions name their key in the kid header, which Keycloak needs for all but RS256. Default: true.",
			func(s *settings) *bool { return &s.SendKeyID }, anyValue),
		newSetting("registration", framework.TypeString,
			"How the provider gets to know a new version. manual: a person registers each public key, and the provider's acceptance decides which "+
				"version signs. jwks: the provider fetches it from jwks_path of this mount, and a schedule decides. Default: manual.",
			func(s *settings) *string { return (*string)(&s.Registration) }, registration).allowing(string(keyring.Manual), string(keyring.ByJWKS)),
		newSetting("auto_rotate_period", framework.TypeDurationSecond,
			"With registration=jwks: the age at which the newest version gets a successor by itself: at least 1h. Default: 0, never.",
			func(s *settings) *time.Duration { return &s.AutoRotatePeriod }, autoRotatePeriod),
		newSetting("activation_delay", framework.TypeDurationSecond,
			"With registration=jwks: how long a new version is published before it signs: 0 to 24h. Default: 5m.",
			func(s *settings) *time.Duration { return &s.ActivationDelay }, between(0, 24*time.Hour)),
		newSetting("retire_after", framework.TypeDurationSecond,
			"How long a version stays usable and published after its successor was first accepted: at least assertion_ttl and 75s, at most 90d. Default: 24h.",
			func(s *settings) *time.Duration { return &s.RetireAfter }, retireAfter),
	}
}

func registration(value string) (string, error) {
	value = strings.TrimSpace(value)
	if value != string(keyring.Manual) && value != string(keyring.ByJWKS) {
		return "", fmt.Errorf("%s is neither manual nor jwks", quoted(value))
	}
	return value, nil
}

func autoRotatePeriod(value time.Duration) (time.Duration, error) {
	if value != 0 && value < time.Hour {
		return 0, fmt.Errorf("must be at least 1h, or 0 for never, not %s", compact(value))
	}
	return value, nil
}

func retireAfter(value time.Duration) (time.Duration, error) {
	if value > 90*24*time.Hour {
		return 0, errors.New("must be at most 90d")
	}
	return value, nil
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

// maxCommonName is RFC 5280's ub-common-name.
const maxCommonName = 64

// audience is one value: Keycloak refuses more.
func audience(value string) (string, error) {
	value, err := printable(512)(value)
	if err == nil && strings.ContainsFunc(value, unicode.IsSpace) {
		err = errors.New("must be one value, without spaces")
	}
	return value, err
}

// printable takes ASCII without control characters, which is what RFC 6749 (appendix A) has for such values.
func printable(most int) func(string) (string, error) {
	return func(value string) (string, error) {
		value = strings.TrimSpace(value)
		if len(value) > most {
			return "", fmt.Errorf("must be at most %d characters, not %d", most, len(value))
		}
		if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' || c > '~' }) {
			return "", errors.New("must be printable ASCII")
		}
		return value, nil
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

func keyAnswerFields() map[string]*framework.FieldSchema {
	return answerFields(keySettings(), []computed{
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

func (b *backend) pathKeysList() *framework.Path {
	return &framework.Path{
		Pattern:      "keys/?$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ListOperation: &framework.PathOperation{
				Callback: b.listKeys, Summary: "List the keys.", Responses: listed(),
				DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "keys"},
			},
		},
		HelpSynopsis:    "List the keys.",
		HelpDescription: "Lists the names of all keys of this mount.",
	}
}

func (b *backend) pathKeys() *framework.Path {
	answers := ok("The key's settings and public material.", keyAnswerFields())
	write := &framework.PathOperation{
		Callback: b.writeKey, Summary: "Create a key, or change its settings.", Responses: answers,
		ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
		DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "key"},
	}
	return &framework.Path{
		Pattern:        "keys/(?P<name>[^/]+)",
		DisplayAttrs:   &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		ExistenceCheck: b.keyExists,
		Fields: schemas(keySettings(), map[string]*framework.FieldSchema{
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
				Callback: b.deleteKey, Summary: "Delete a key.", Responses: noContent(),
				ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
				DisplayAttrs: &framework.DisplayAttributes{OperationSuffix: "key"},
			},
		},
		HelpSynopsis:    "A key pair and the OAuth client that it belongs to.",
		HelpDescription: strings.TrimSpace(keysHelp),
	}
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
		return b.keyAnswer(ctx, req, key)
	}
	version := key.Version(number)
	if version == nil {
		return nil, noSuchVersion(key, number)
	}
	return b.versionAnswer(ctx, req, key, version)
}

// versionIn returns the version number that the request names, if it does.
func versionIn(data map[string]any) (number int, given bool, err error) {
	value, err := convert(framework.TypeInt, data["version"])
	if err != nil || value == nil {
		return 0, false, err
	}
	return value.(int), true, nil
}

func noSuchVersion(key *keyring.Key, number int) error {
	var numbers []string
	for _, v := range slices.Backward(key.Versions()) {
		numbers = append(numbers, strconv.Itoa(v.Number()))
	}
	return userErrorf("version: key %q has no version %d; it has %s", key.Name(), number, strings.Join(numbers, ", "))
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
	return b.keyAnswer(ctx, req, key, nextAfterCreation(req.MountPoint, key))
}

func (b *backend) storeNewKey(ctx context.Context, storage logical.Storage, key *keyring.Key) error {
	defer b.keyChanged(key.Name())
	return keyring.Create(ctx, storage, key)
}

// nextAfterCreation tells a newcomer the order of things at the portal: public key first, then the credentials.
func nextAfterCreation(mount string, key *keyring.Key) string {
	if registered(key) {
		return registering(mount, key) + "."
	}
	return registrationAdvice(mount, key)
}

// registered says whether the key's client is known, so that tokens can be asked for.
func registered(key *keyring.Key) bool {
	return key.Settings().ClientID != "" && key.Settings().Issuer != ""
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
		return b.keyAnswer(ctx, req, key)
	}
	changed, err := key.WithSettings(after)
	if err != nil {
		return nil, err
	}
	defer b.dropTokens(key.Name())
	if err := b.storeKey(ctx, req.Storage, key, changed); err != nil {
		return nil, err
	}
	return b.keyAnswer(ctx, req, changed)
}

// storeKey writes a changed key over the one before. It is called under the key's lock.
func (b *backend) storeKey(ctx context.Context, storage logical.Storage, before, after *keyring.Key) error {
	defer b.keyChanged(after.Name())
	return keyring.Update(ctx, storage, before, after)
}

// keyChanged forgets what this node holds of a key, whether or not the write of it succeeded.
func (b *backend) keyChanged(name string) {
	b.keys.drop(name)
	b.schedule.check(name)
}

// dropTokens makes the next readers of shared tokens wait for a token that the key, as it is now, was asked for.
func (b *backend) dropTokens(keyName string) {
	b.tokens.DropIf(func(inputs tokenInputs) bool { return inputs.role.Key == keyName })
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

// newKeySettings applies the request to the present settings and checks the result. Only what changes is checked against
// the configuration, so that a stricter one does not stand in the way of other changes.
func (b *backend) newKeySettings(ctx context.Context, req *logical.Request, keyType keyring.Type, before, defaults keyring.Settings) (keyring.Settings, error) {
	after := before
	if err := apply(keySettings(), &after, &defaults, req.Data); err != nil {
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

// listingAdvice is how to allow a host, where that can be done.
func listingAdvice(mount string, err error) string {
	if !strings.Contains(err.Error(), "allowed_hosts") {
		return ""
	}
	return fmt.Sprintf("; to list it together with those that are: vault write %sconfig allowed_hosts=…", mount)
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
func (b *backend) keyAnswer(ctx context.Context, req *logical.Request, key *keyring.Key, warnings ...string) (*logical.Response, error) {
	now := b.now()
	shown := key.Staged(now)
	if shown == nil {
		shown = key.Active(now)
	}
	return b.versionAnswer(ctx, req, key, shown, warnings...)
}

func (b *backend) versionAnswer(ctx context.Context, req *logical.Request, key *keyring.Key, shown *keyring.Version, warnings ...string) (*logical.Response, error) {
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
	data := echoAll(keySettings(), &settings)
	data["type"] = string(key.Type())
	data["public_key"] = shown.PublicKeyPEM()
	data["certificate"] = shown.CertificatePEM()
	data["certificate_sha256"] = shown.CertificateSHA256()
	data["key_id"] = shown.KeyID()
	data["public_key_version"] = shown.Number()
	data["active_version"] = number(key.Active(now))
	data["staged_version"] = number(key.Staged(now))
	data["versions"] = versionsOf(key, now)
	data["roles"] = roles
	data["jwks"] = jwks
	data["jwks_path"] = jwksPath(req.MountPoint, key)
	return &logical.Response{Data: data, Warnings: append(warnings, keyWarnings(key, now)...)}, nil
}

// keyWarnings tell what an operator should know of a key, whenever it is looked at.
func keyWarnings(key *keyring.Key, now time.Time) []string {
	var warnings []string
	settings := key.Settings()
	if settings.Registration == keyring.ByJWKS && settings.ActivationDelay < jwksMaxAge {
		warnings = append(warnings, fmt.Sprintf("activation_delay is %s, but the provider may cache the key set for %s: it may refuse a new version at first, which is then signed for by its predecessor.",
			compact(settings.ActivationDelay), compact(jwksMaxAge)))
	}
	if key.RotationWaitsForRoom(now) {
		warnings = append(warnings, fmt.Sprintf("The key keeps %d versions, the most it can: the automatic rotation waits until one expires. A longer auto_rotate_period or a shorter retire_after makes room.", keyring.MaxVersions))
	}
	if key.RotationWaitsForAcceptance(now) {
		warnings = append(warnings, "The automatic rotation is due, and waits: the provider has not accepted the newest version yet, or no token was read on a node that can write. Can the provider reach the key set? Read check/<role>, then creds/<role>.")
	}
	return warnings
}

func number(v *keyring.Version) int {
	if v == nil {
		return 0
	}
	return v.Number()
}

func versionsOf(key *keyring.Key, now time.Time) map[string]any {
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

// timestamp writes an instant as RFC 3339 in UTC, and none as an empty string.
func timestamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

func texts[S ~string](items []S) []string {
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = string(item)
	}
	return texts
}

func join[S ~string](items []S) string { return strings.Join(texts(items), ", ") }

func plural(count int, noun string) string {
	if count == 1 {
		return "the " + noun
	}
	return "the " + noun + "s"
}

func abbreviate(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
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
