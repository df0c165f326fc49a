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
	"github.com/hashicorp/go-secure-stdlib/strutil"
)

// nextStep returns what to do next with a key; empty if there is nothing to do.
func nextStep(mount string, key *keyring.Key, roles []string, now time.Time) string {
	state := stateOf(key.Summary(now))
	provider, _ := registrar(key)
	public := "public_key"
	if key.Settings().Registration == keyring.ByJWKS {
		public = "the JWKS URL (Vault's address and jwks_path)"
	}
	switch {
	case state == keyDisabled:
		return fmt.Sprintf("Let the key sign again with: vault write %skeys/%s disabled=false",
			mount, key.Name())
	case state == keyUnregistered:
		return registrationAdvice(mount, key)
	case state == keyStaged && key.Settings().Registration == keyring.Manual:
		return fmt.Sprintf("At %s, replace the registered public key with the output of `vault "+
			"read -field=public_key %skeys/%s`. The next read of creds then switches to version "+
			"%d.", provider, mount, key.Name(), key.Staged(now).Number())
	}
	next := ""
	if len(roles) == 0 {
		next = fmt.Sprintf("create a role with: vault write -f %sroles/%s", mount, key.Name())
	} else if state == keyWaiting {
		next = fmt.Sprintf("read a first token with: vault read %screds/%s", mount, roles[0])
	}
	if state == keyWaiting {
		next = fmt.Sprintf("if not done yet, give %s %s. Then %s", provider, public, next)
	}
	return capitalized(next)
}

func importWarning(mount, name string) string {
	return fmt.Sprintf("Anyone who has a copy of this private key can sign as this client: delete "+
		"every other copy. If the public key can be replaced at the provider, rotate to one that "+
		"was never outside Vault: vault write -f %skeys/%s/rotate", mount, name)
}

func afterDestruction(key *keyring.Key, number int) string {
	effect := "If its public key is registered, the provider accepts it until it is replaced there."
	if key.Settings().Registration == keyring.ByJWKS {
		effect = "The provider accepts its public key until it next fetches the key set; " +
			"Keycloak does so on an unknown kid."
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
		return fmt.Sprintf("Give %s the JWKS URL: Vault's address, followed by the output of "+
			"`vault read -field=jwks_path %skeys/%s`", provider, mount, key.Name())
	}
	return fmt.Sprintf("Give %s the output of `vault read -field=public_key %skeys/%s` (where a "+
		"key set is required, of `vault read -field=jwks %[2]skeys/%[3]s/jwks`)",
		provider, mount, key.Name())
}

// registrationAdvice is for a key that does not know its client yet.
func registrationAdvice(mount string, key *keyring.Key) string {
	settings := key.Settings()
	command := fmt.Sprintf("vault write %skeys/%s", mount, key.Name())
	if settings.ClientID == "" {
		command += " client_id=…"
	}
	if settings.Issuer == "" {
		command += " issuer=…"
	}
	if settings.ClientID != settings.Issuer { // one of them is written
		return "Set what the provider shows with: " + command
	}
	public := fmt.Sprintf("the output of `vault read -field=public_key %skeys/%s`",
		mount, key.Name())
	if settings.Registration == keyring.ByJWKS {
		public = "the JWKS URL (Vault's address, followed by jwks_path)"
	}
	return fmt.Sprintf("Register %s with the provider (in the API Services Portal, when you "+
		"request access). Then set what it shows with: %s", public, command)
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
func keyWarnings(key *keyring.Key, roles []string, now time.Time) []string {
	var warnings []string
	settings := key.Settings()
	if settings.Registration == keyring.ByJWKS && settings.PrepublishPeriod < jwksMaxAge {
		warnings = append(warnings, fmt.Sprintf("prepublish_period is %s, but the provider may "+
			"cache the key set for %s and reject a new version at first. Set at least %[2]s.",
			compact(settings.PrepublishPeriod), compact(jwksMaxAge)))
	}
	if shut := slices.DeleteFunc(slices.Clone(roles), func(role string) bool {
		return strutil.StrListContainsGlob(settings.AllowedRoles, role)
	}); len(shut) > 0 {
		warnings = append(warnings, "allowed_roles does not include these roles, which return no "+
			"tokens: "+abbreviate(shut)+".")
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
		"instead. Set a shorter one, or 0 for the default: vault write %sroles/%s refresh_margin=0",
		compact(r.RefreshMargin), compact(token.Lifetime), compact(r.margin(token.Lifetime)),
		mount, roleName)
}
