package backend

import (
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

// diagnosis is what a failure most likely means and what to do about it, each as sentences.
// {mount} (with a final slash), {key} and {role} stand for names, {register} for how the provider
// gets the key, and {clock} for the measured difference between the clocks.
type diagnosis struct {
	reason          tokenendpoint.Reason
	meaning, remedy string
}

// Texts of more than one reason.
const (
	rejectedClient = "The provider did not accept the client's authentication: client_id is " +
		"unknown there, access is not approved yet, or a different public key is registered."
	cutConnection = "The provider, a firewall or a load balancer cut the connection."
	askOwner      = "Ask the API's owner to enable the client's service account."
	reportBug     = "If nothing between Vault and the provider changes requests, report this " +
		"line to the plugin's maintainers."
	checkURLs = "Compare issuer and token_endpoint in `vault read {mount}keys/{key}` with what " +
		"the portal shows, then run `vault read {mount}check/{role}`."
	compareRegistration = "Compare client_id, issuer and public_key in `vault read " +
		"{mount}keys/{key}` with what is registered at the provider."
	setURL    = "`vault write {mount}keys/{key} token_endpoint=…` (or issuer, revocation_endpoint)."
	syncClock = "Synchronize the clock of every Vault node (NTP): Keycloak rejects an assertion " +
		"from more than 15 s in the future, and one older than assertion_ttl or 60 s."
	proxyLogin = "The forward proxy requires a user name and password."
	passProxy  = "Allow the Vault node through the proxy without authentication, or set " +
		"HTTPS_PROXY with credentials for the Vault process and run `vault write {mount}config " +
		"proxy_url=environment`."
	tryLater     = "Read again in a minute; if it persists, ask the provider's operators."
	checkNetwork = "Check from the Vault node that the host and port can be reached (firewall, " +
		"DNS, proxy_url in `vault read {mount}config`), then run `vault read " +
		"{mount}check/{role}`."
)

// diagnoses returns the table, which docs/troubleshooting.md is generated from.
func diagnoses() []diagnosis { //nolint:funlen // a table
	row := func(reason tokenendpoint.Reason, meaning, remedy string) diagnosis {
		return diagnosis{reason, meaning, remedy}
	}
	return []diagnosis{
		// The key is rejected.
		row(tokenendpoint.UnknownKey,
			"The provider has no public key with this key's id: it is not registered yet, a "+
				"different one is, or a certificate was pasted in its place.",
			"{register}, then read again."),
		row(tokenendpoint.UnusableKeys,
			"What is registered cannot be used as a key: a certificate, a private key or a "+
				"damaged PEM was pasted, or the provider cannot fetch the registered JWKS URL.",
			"{register}; the provider must be able to fetch a registered JWKS URL within 2 s."),
		row(tokenendpoint.InvalidSignature,
			"The provider verified the signature with a different public key, or its JWKS entry "+
				"has a different `alg` or curve.",
			"{register}, then read again."),
		row(tokenendpoint.WrongAlgorithm,
			"The client is pinned to a different signature algorithm at the provider.",
			"Set the registered algorithm: `vault write {mount}keys/{key} algorithm=<algorithm>`."),

		// The client is rejected.
		row(tokenendpoint.UnknownClient,
			"The API's owner has probably not approved the access yet: the portal shows "+
				"credentials before approval, and the client stays disabled until then. "+
				"Otherwise client_id or the realm in the issuer is wrong.",
			"Ask the API's owner to approve the access request; if it is approved, compare "+
				"client_id and issuer in `vault read {mount}keys/{key}` with the portal's."),
		row(tokenendpoint.SecretClient,
			"The client is registered to authenticate with a secret, not with a signed JWT.",
			"Ask the API's owner to set the client's authentication to signed JWT."),
		row(tokenendpoint.ClientRejected, rejectedClient, compareRegistration),
		row(tokenendpoint.InvalidClient, rejectedClient, compareRegistration),
		row(tokenendpoint.ClientIDMismatch,
			"The client_id that arrived is not the assertion's subject: a proxy changed the form.",
			reportBug),
		row(tokenendpoint.NoServiceAccount,
			"The client cannot use the client credentials grant: its service account is disabled.",
			askOwner),
		row(tokenendpoint.PublicClient,
			"A public client cannot use the client credentials grant.",
			askOwner),
		row(tokenendpoint.BearerOnlyClient,
			"A bearer-only client cannot use the client credentials grant.",
			askOwner),
		row(tokenendpoint.ServiceAccountMissing,
			"The client's service account was deleted at the provider.",
			askOwner),
		row(tokenendpoint.ServiceAccountDisabled,
			"The client's service account is disabled at the provider.",
			askOwner),
		row(tokenendpoint.UnauthorizedClient,
			"The client is not allowed to use the client credentials grant.",
			askOwner),
		row(tokenendpoint.UnsupportedGrantType,
			"The provider does not offer the client credentials grant at this endpoint.",
			askOwner),
		row(tokenendpoint.ClientSetupIncomplete,
			"The client's authentication is not completely set up at the provider.",
			"Ask the provider's operators; their server log says what is missing."),
		row(tokenendpoint.ClientCheckFailed,
			"The provider failed while it authenticated the client.",
			"Ask the provider's operators; their server log says why."),
		row(tokenendpoint.DPoPRequired,
			"The provider binds this client's tokens to a proof of possession (DPoP, RFC 9449), "+
				"which is not supported.",
			"Ask the API's owner to allow Bearer tokens for the client."),

		// The assertion is rejected.
		row(tokenendpoint.WrongAudience,
			"The assertion's audience is not exactly the issuer; a trailing slash is enough.",
			"Copy the issuer exactly as the portal shows it: `vault write {mount}keys/{key} "+
				"issuer=<issuer> audience=\"\"`."),
		row(tokenendpoint.MultipleAudiences,
			"The provider saw more than one audience in the assertion, which always has one.",
			"Restore the default, the issuer: `vault write {mount}keys/{key} audience=\"\"`."),
		row(tokenendpoint.IssuedInFuture,
			"The clocks differ: to the provider the assertion is from the future ({clock}).",
			syncClock),
		row(tokenendpoint.IssuedTooLongAgo,
			"The clocks differ too much, or the request was delayed on its way: to the provider "+
				"the assertion is too old ({clock}).",
			syncClock),
		row(tokenendpoint.NotActive,
			"The clocks differ too much, or the request was delayed on its way: to the provider "+
				"the assertion has expired or is not valid yet ({clock}).",
			syncClock),
		row(tokenendpoint.Replayed,
			"The provider saw the same assertion twice although each is sent once: something on "+
				"the way repeats requests. The signing key itself was accepted.",
			"Turn off retries of POST requests in any proxy or load balancer on the way."),
		row(tokenendpoint.IssuedAtMissing,
			"The provider found no `iat` in the assertion, which always has one.",
			reportBug),
		row(tokenendpoint.ClaimMissing,
			"The provider did not find a claim that is always sent.",
			reportBug),
		row(tokenendpoint.AssertionMissing,
			"The client authentication did not arrive as it was sent: a proxy changed the form.",
			reportBug),

		// The request is rejected.
		row(tokenendpoint.InvalidScope,
			"A scope that the role requests does not exist or is not granted to the client.",
			"Remove it: `vault write {mount}roles/{role} scopes=<scopes>`, or ask the API's "+
				"owner to grant it."),
		row(tokenendpoint.InvalidTarget,
			"The provider does not know the resource or audience the role requests (RFC 8707).",
			"Correct it: `vault write {mount}roles/{role} parameters=<name=value>`."),
		row(tokenendpoint.InvalidRequest,
			"The provider does not understand the request: a form parameter is missing, unknown "+
				"or malformed.",
			"Compare parameters in `vault read {mount}roles/{role}` with the provider's docs."),
		row(tokenendpoint.DuplicateParameter,
			"The provider does not accept a form parameter twice.",
			"Remove the duplicate: `vault write {mount}roles/{role} parameters=<name=value>`."),
		row(tokenendpoint.ForeignToken,
			"The token to revoke was issued to a different client: the key's client_id changed.",
			"Nothing to do: the token expires on its own."),

		// Before anything is sent.
		row(tokenendpoint.HostNotListed,
			"Nothing was sent: the mount's configuration does not allow this host.",
			"If the host is to be trusted, list it together with those that are: `vault write "+
				"{mount}config allowed_hosts=<host>,…` (a port other than 443 as host:port); "+
				"otherwise correct the URL: "+setURL),
		row(tokenendpoint.URLNotAllowed,
			"Nothing was sent.",
			"Correct the URL: "+setURL),

		// No connection.
		row(tokenendpoint.NoSuchHost,
			"The name is misspelled, or the Vault node's DNS does not know it.",
			checkURLs),
		row(tokenendpoint.ResolutionFailed,
			"The Vault node's DNS server does not answer properly.",
			checkNetwork),
		row(tokenendpoint.ConnectionRefused,
			"Nothing listens at this host and port, or a firewall rejects the connection.",
			checkNetwork),
		row(tokenendpoint.Unreachable,
			"The Vault node has no network route to the provider.",
			checkNetwork),
		row(tokenendpoint.ConnectionClosed, cutConnection, tryLater),
		row(tokenendpoint.ResponseTruncated, cutConnection, tryLater),
		row(tokenendpoint.Timeout,
			"The provider is slow or hangs.",
			"Read again in a minute; if the provider is usually slow, allow it more time: `vault "+
				"write {mount}config request_timeout=30s`."),
		row(tokenendpoint.NoConnection,
			"A firewall drops the packets, the host is down or hangs, or DNS does not answer.",
			checkNetwork),
		row(tokenendpoint.UnknownAuthority,
			"The provider's certificate comes from a private authority, a TLS-inspecting proxy "+
				"replaces it, or the server does not send its intermediate certificate.",
			"If that authority is to be trusted: `vault write {mount}config ca_cert=@ca.pem` (it "+
				"replaces the system's roots)."),
		row(tokenendpoint.WrongHostName,
			"A different server answers under this name, or the URL names the host differently "+
				"from its certificate.",
			checkURLs),
		row(tokenendpoint.CertificateExpired,
			"The provider has not renewed its certificate, or the Vault node's clock is wrong.",
			"Check the Vault node's clock; if it is right, tell the provider's operators to "+
				"renew the certificate."),
		row(tokenendpoint.InvalidCertificate,
			"The provider's certificate cannot be used for a server, or its chain is broken.",
			"Tell the provider's operators; with a private authority, check ca_cert in `vault "+
				"read {mount}config`."),
		row(tokenendpoint.PlainHTTP,
			"The URL says https, but the port speaks plain HTTP.",
			"Correct the port: "+setURL),
		row(tokenendpoint.HandshakeFailed,
			"The server does not speak TLS 1.2 or later, requires a client certificate, or the "+
				"port does not speak TLS.",
			checkNetwork),
		row(tokenendpoint.NetworkFailure,
			"Something other than a web server answers there, or the connection was interrupted.",
			checkNetwork),
		row(tokenendpoint.ProxyAuthentication, proxyLogin, passProxy),
		row(tokenendpoint.ProxyUnauthorized, proxyLogin, passProxy),
		row(tokenendpoint.ProxyRejected,
			"The forward proxy does not let Vault connect to this host, or cannot reach it.",
			"Ask the proxy's operators to allow the host and port; proxy_url in `vault read "+
				"{mount}config` says which proxy."),

		// The response cannot be used.
		row(tokenendpoint.OtherIssuer,
			"The issuer is not written exactly as the provider writes it (scheme, host, path, "+
				"trailing slash), or a different server answers (mix-up, RFC 8414 §3.3).",
			"Copy the portal's issuer exactly: `vault write {mount}keys/{key} issuer=<issuer>`."),
		row(tokenendpoint.Redirected,
			"The URL is not the endpoint itself, or a login page or gateway is in front of it.",
			"Set the URL that the provider documents: "+setURL),
		row(tokenendpoint.NotJSON,
			"A web page or gateway answers in the endpoint's place; the URL is probably wrong.",
			checkURLs),
		row(tokenendpoint.ResponseTooLarge,
			"A provider does not return this much; the URL is probably wrong.",
			checkURLs),
		row(tokenendpoint.TokenExpired,
			"The token's own `exp` is in this machine's past: the clocks differ too much "+
				"({clock}).",
			syncClock),
		row(tokenendpoint.InvalidResponse,
			"The provider, or something in its place, violates OAuth 2.0 or OpenID Connect.",
			checkURLs),

		// Only an HTTP status.
		row(tokenendpoint.Unauthorized,
			"A gateway on the way requires authentication, or the URL is not the token endpoint.",
			checkURLs),
		row(tokenendpoint.Forbidden,
			"A firewall in front of the provider rejects Vault's address or request.",
			"Ask the provider's operators to let the Vault node's address through."),
		row(tokenendpoint.NoSuchIssuer,
			"No such realm exists at this host: the issuer is wrong.",
			"Compare issuer in `vault read {mount}keys/{key}` with what the portal shows."),
		row(tokenendpoint.NoSuchEndpoint,
			"No such realm or endpoint exists at this host: the URL is wrong.",
			checkURLs),
		row(tokenendpoint.MethodNotAllowed,
			"The URL exists but is not the token endpoint: it does not accept POST.",
			checkURLs),
		row(tokenendpoint.RequestTimeout,
			"The provider did not receive the request in time.",
			tryLater),
		row(tokenendpoint.RequestTooLarge,
			"The request is too large for the provider or a gateway in front of it.",
			"Request less: `vault write {mount}roles/{role} scopes=<scopes> "+
				"parameters=<name=value>`, or ask the provider's operators for a higher limit."),
		row(tokenendpoint.RateLimited,
			"The provider limits the request rate.",
			"Read less often, or ask the provider's operators for a higher limit."),
		row(tokenendpoint.InternalServerError,
			"The provider failed while processing the request.",
			tryLater),
		row(tokenendpoint.BadGateway,
			"The load balancer in front of the provider cannot reach it.",
			tryLater),
		row(tokenendpoint.ServiceUnavailable,
			"The provider is unavailable.",
			tryLater),
		row(tokenendpoint.GatewayTimeout,
			"The load balancer in front of the provider timed out waiting for it.",
			tryLater),
	}
}

// diagnose returns the diagnosis of a reason; the zero value if there is none.
func diagnose(reason tokenendpoint.Reason) diagnosis {
	for _, row := range diagnoses() {
		if row.reason == reason {
			return row
		}
	}
	return diagnosis{}
}

// advice returns a failure's meaning and remedy, with names filled in; empty if unknown.
func advice(failure *tokenendpoint.Error, mount string, key *keyring.Key, role string) string {
	found := diagnose(failure.Reason)
	return strings.NewReplacer(
		"{mount}", mount, "{key}", key.Name(), "{role}", role,
		"{register}", registrationStep(mount, key), "{clock}", describeClock(failure),
	).Replace(strings.TrimSpace(found.meaning + " " + found.remedy))
}

func describeClock(failure *tokenendpoint.Error) string {
	ahead, known := failure.ClockDifference()
	switch {
	case !known:
		return "the response has no Date header to compare with"
	case ahead.Abs() <= 2*time.Second:
		return "by its Date header the clocks agree to within 2s"
	}
	return "by its Date header " + clockOffset(ahead)
}
