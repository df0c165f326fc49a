package backend

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/netguard"
)

func nextAfterCreation(mount string, key *keyring.Key) string {
	if registered(key) {
		return registrationStep(mount, key) + "."
	}
	return registrationAdvice(mount, key)
}

func nextAfterImport(mount, name string) string {
	return fmt.Sprintf("Delete every other copy of this private key: anyone who has one can sign "+
		"as this client. Next: vault write %[1]skeys/%[2]s client_id=… issuer=… token_endpoint=… "+
		"with the provider's values. If you can replace the public key there, rotate to one that "+
		"was never outside Vault: vault write -f %[1]skeys/%[2]s/rotate", mount, name)
}

func nextAfterRotation(mount string, key *keyring.Key, now time.Time) string {
	staged := key.Staged(now)
	provider, _ := registrar(key)
	switch {
	case staged == nil: // with jwks and no delay
		return fmt.Sprintf("Version %d is published and active.", key.Active(now).Number())
	case key.Settings().Registration == keyring.ByJWKS:
		return fmt.Sprintf("Version %d is published at %s and becomes active at %s. No action is "+
			"needed.",
			staged.Number(), jwksPath(mount, key), timestamp(staged.ActivationTime()))
	default:
		return fmt.Sprintf("Next: replace the public key that %s has with public_key of version "+
			"%d (not certificate); `vault read -field=public_key %skeys/%s` prints it. The next "+
			"read of creds then switches over automatically; until then version %d signs.",
			provider, staged.Number(), mount, key.Name(), versionNumber(key.Active(now)))
	}
}

func afterDestruction(key *keyring.Key, number int) string {
	effect := "If its public key is registered, the provider accepts it until it is replaced there."
	if key.Settings().Registration == keyring.ByJWKS {
		effect = "The provider accepts its public key until it fetches the key set again, as " +
			"Keycloak does for an unknown kid."
	}
	return fmt.Sprintf("Version %d is permanently deleted. %s", number, effect)
}

// ofPortal reports whether the key's client is registered in the BC Government's API Services
// Portal: its issuers are realms of the shared login proxy.
func ofPortal(key *keyring.Key) bool {
	issuer, err := url.Parse(key.Settings().Issuer)
	if err != nil {
		return false
	}
	host := "." + strings.ToLower(issuer.Hostname())
	return strings.HasSuffix(host, ".loginproxy.gov.bc.ca")
}

// registrar returns where the key's client is registered, and who administers it there.
func registrar(key *keyring.Key) (provider, owner string) {
	if ofPortal(key) {
		return "the API Services Portal", "the API's owner"
	}
	return "the provider", "the provider's operators"
}

// registrationStep returns how to register the key with the provider.
func registrationStep(mount string, key *keyring.Key) string {
	provider, _ := registrar(key)
	if key.Settings().Registration == keyring.ByJWKS {
		return fmt.Sprintf("Give %s the JWKS URL (Vault's address as the provider reaches it, "+
			"followed by %s)", provider, jwksPath(mount, key))
	}
	return fmt.Sprintf("Give %s the output of `vault read -field=public_key %skeys/%s` (the "+
		"public key, not the certificate; where a key set is required, -field=jwks)",
		provider, mount, key.Name())
}

// registrationAdvice is for a key whose provider is not known yet.
func registrationAdvice(mount string, key *keyring.Key) string {
	return fmt.Sprintf("%s; the BC Government's API Services Portal asks for it when you request "+
		"access to an API. Then write the values that the provider shows: vault write "+
		"%skeys/%s client_id=… issuer=… token_endpoint=…",
		registrationStep(mount, key), mount, key.Name())
}

func unregistered(key *keyring.Key) string {
	missing := "client_id and no issuer"
	switch settings := key.Settings(); {
	case settings.ClientID != "":
		missing = "issuer"
	case settings.Issuer != "":
		missing = "client_id"
	}
	return fmt.Sprintf("key %q has no %s yet", key.Name(), missing)
}

func missingTokenEndpoint(mount, name string) error {
	return fmt.Errorf("key %q has no token_endpoint, which is required because its audience is "+
		"not the issuer; set it with: vault write %skeys/%[1]s token_endpoint=…", name, mount)
}

func noRevocationEndpoint(mount, name string) string {
	return fmt.Sprintf("revoke_tokens has no effect, because key %q has no revocation_endpoint; "+
		"set it with: vault write %skeys/%[1]s revocation_endpoint=…", name, mount)
}

// urlError names the field of a rejected URL and, if possible, how to allow its host.
func urlError(mount, field string, err error) error {
	rejection, ok := errors.AsType[*netguard.Error](err)
	if !ok || !rejection.Unlisted {
		return userErrorf("%s: %w", field, err)
	}
	return userErrorf("%s: %w; to allow it, write the complete list: vault write %sconfig "+
		"allowed_hosts=…", field, err, mount)
}

func unknownVersion(key *keyring.Key, number int) error {
	var numbers []string
	for _, v := range slices.Backward(key.Versions()) {
		numbers = append(numbers, strconv.Itoa(v.Number()))
	}
	return userErrorf("version: key %q has no version %d; it has %s",
		key.Name(), number, strings.Join(numbers, ", "))
}

// keyWarnings returns what needs an operator's attention, in every response about the key.
func keyWarnings(key *keyring.Key, now time.Time) []string {
	var warnings []string
	settings := key.Settings()
	if settings.Registration == keyring.ByJWKS && settings.PrepublishPeriod < jwksMaxAge {
		warnings = append(warnings, fmt.Sprintf("prepublish_period is %s, but the provider may "+
			"cache the key set for %s: it may reject a new version at first, and its predecessor "+
			"signs until then.",
			compact(settings.PrepublishPeriod), compact(jwksMaxAge)))
	}
	if key.RotationWaitsForRoom(now) {
		warnings = append(warnings, fmt.Sprintf("The key has %d versions, the maximum: automatic "+
			"rotation waits until one expires. A longer auto_rotate_period or a shorter "+
			"overlap_period makes room.",
			keyring.MaxVersions))
	}
	if key.RotationWaitsForAcceptance(now) {
		warnings = append(warnings, "Automatic rotation is due but waiting: the provider has not "+
			"accepted the newest version yet, or no token has been read on a node that can write. "+
			"Check that the provider can reach the key set: read check/<role>, then creds/<role>.")
	}
	return warnings
}

func missingScopes(mount, roleName string, token *exchange.Token) string {
	return fmt.Sprintf("The provider did not grant these scopes: %s. Have them granted to the "+
		"client, or request fewer: vault write %sroles/%s scopes=…",
		strings.Join(token.MissingScopes, ", "), mount, roleName)
}

func marginTooLong(mount, roleName string, r *role, token *exchange.Token) string {
	return fmt.Sprintf("refresh_margin is %s, but the token's lifetime is only %s: %s is used "+
		"instead. Set a shorter one, or none: vault write %sroles/%s refresh_margin=0",
		compact(r.RefreshMargin), compact(token.Lifetime), compact(r.margin(token.Lifetime)),
		mount, roleName)
}
