package backend

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/netguard"
)

// nextAfterCreation tells a newcomer the order of things at the portal: public key first, then the credentials.
func nextAfterCreation(mount string, key *keyring.Key) string {
	if registered(key) {
		return registrationStep(mount, key) + "."
	}
	return registrationAdvice(mount, key)
}

func nextAfterImport(mount, name string) string {
	return fmt.Sprintf("Delete every other copy of this private key: whoever has one can sign as this client. Next: vault write %skeys/%s client_id=… issuer=… token_endpoint=…, "+
		"as the portal shows them. Where the portal lets you replace the public key, rotate to one that was never outside Vault: vault write -f %skeys/%s/rotate",
		mount, name, mount, name)
}

// nextAfterRotation tells what to do with the staged version.
func nextAfterRotation(mount string, key *keyring.Key, now time.Time) string {
	staged := key.Staged(now)
	switch {
	case staged == nil: // with jwks and no delay
		return fmt.Sprintf("Version %d is published, and signs from now on.", key.Active(now).Number())
	case key.Settings().Registration == keyring.ByJWKS:
		return fmt.Sprintf("Version %d is published at %s, and signs from %s on. There is nothing to do.",
			staged.Number(), jwksPath(mount, key), timestamp(staged.ActivationTime()))
	default:
		return fmt.Sprintf("Next: replace the public key in the API Services Portal with public_key of version %d (not certificate); "+
			"vault read -field=public_key %skeys/%s prints it alone. The next read of creds after that switches over by itself; until then version %d signs.",
			staged.Number(), mount, key.Name(), versionNumber(key.Active(now)))
	}
}

func afterDestruction(key *keyring.Key, doomed int) string {
	until := "its public key is replaced there too, if it was registered"
	if key.Settings().Registration == keyring.ByJWKS {
		until = "it reads the key set again, which Keycloak does when it meets a version that it does not know"
	}
	return fmt.Sprintf("Version %d is gone here. The provider goes on accepting that key until %s.", doomed, until)
}

// registering is how the provider gets to know the key.
func registrationStep(mount string, key *keyring.Key) string {
	if key.Settings().Registration == keyring.ByJWKS {
		return fmt.Sprintf("Give the API Services Portal the JWKS URL: Vault's address, as the provider reaches it, and %s", jwksPath(mount, key))
	}
	return fmt.Sprintf("Paste into the API Services Portal what `vault read -field=public_key %skeys/%s` prints (the public key, not the certificate, although the portal calls it one in places)", mount, key.Name())
}

func registrationAdvice(mount string, key *keyring.Key) string {
	return fmt.Sprintf("%s, where access to the API is requested; then write what the portal shows: vault write %skeys/%s client_id=… issuer=… token_endpoint=…",
		registrationStep(mount, key), mount, key.Name())
}

// unregistered says what a key's registration lacks.
func unregistered(key *keyring.Key) string {
	var lacking []string
	if key.Settings().ClientID == "" {
		lacking = append(lacking, "client_id")
	}
	if key.Settings().Issuer == "" {
		lacking = append(lacking, "issuer")
	}
	return fmt.Sprintf("key %q has no %s yet", key.Name(), strings.Join(lacking, " and no "))
}

// listingAdvice returns how to allow a host, where that can be done.
func listingAdvice(mount string, err error) string {
	if rejection, ok := errors.AsType[*netguard.Error](err); !ok || !rejection.Unlisted {
		return ""
	}
	return fmt.Sprintf("; to list it together with those that are: vault write %sconfig allowed_hosts=…", mount)
}

func noSuchVersion(key *keyring.Key, number int) error {
	var numbers []string
	for _, v := range slices.Backward(key.Versions()) {
		numbers = append(numbers, strconv.Itoa(v.Number()))
	}
	return userErrorf("version: key %q has no version %d; it has %s", key.Name(), number, strings.Join(numbers, ", "))
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

func missingScopes(mount, roleName string, token *exchange.Token) string {
	return fmt.Sprintf("The provider did not grant %s. Ask the API's owner to grant it to the client, or ask for less: vault write %sroles/%s scopes=…",
		strings.Join(token.MissingScopes, ", "), mount, roleName)
}

func marginTooLong(mount, roleName string, r *role, token *exchange.Token) string {
	return fmt.Sprintf("refresh_margin is %s, and the token's whole life only %s: %s is kept instead. Set a shorter one, or none: vault write %sroles/%s refresh_margin=0",
		compact(r.RefreshMargin), compact(token.Lifetime), compact(r.margin(token.Lifetime)), mount, roleName)
}

// jwksPath is where a key's public keys are fetched, below Vault's address; empty for a key that does not publish.
func jwksPath(mount string, key *keyring.Key) string {
	if key.Settings().Registration != keyring.ByJWKS {
		return ""
	}
	return "/v1/" + mount + "jwks/" + key.ID()
}
