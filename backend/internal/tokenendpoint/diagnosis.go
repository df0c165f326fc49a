package tokenendpoint

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// diagnosis is one row of the table of meanings. A row applies if all that it names fits; the first that applies is used.
type diagnosis struct {
	fault  fault
	status int
	code   string // the answer's `error`
	text   string // part of the answer's `error_description`, in any letter case
	op     Operation
	detail string // part of the Error's Detail

	meaning, remedy string
}

// Remedies that more than one row gives.
const (
	register      = "{register}, then read again."
	askOwner      = "Ask the API's owner to enable the client's service account (client credentials grant)."
	compareClient = "Compare client_id, issuer and token_endpoint in `vault read {mount}keys/{key}` with what the portal shows."
	reportBug     = "If nothing between Vault and the provider changes requests, report this line to the plugin's maintainers."
	checkURLs     = "Compare issuer and token_endpoint in `vault read {mount}keys/{key}` with what the portal shows, then run `vault read {mount}check/{role}`."
	syncClock     = "Synchronise the clock of every Vault node (NTP): Keycloak takes an assertion from 15 s before its own time until assertion_ttl is over, at most 60 s."
	tryLater      = "Read again in a minute; if it lasts, ask the provider's operators."
	checkNetwork  = "Check from the Vault node that the host and port can be reached (firewall, DNS, proxy_url in `vault read {mount}config`), then run `vault read {mount}check/{role}`."
)

// diagnoses returns the table. {clock} stands for the measured difference between the clocks.
func diagnoses() []diagnosis { //nolint:funlen // a table
	return []diagnosis{
		// The key.
		{
			text:    "Unable to load public key",
			meaning: "The provider knows no public key with this key's id: it is not registered yet, another one is, or a certificate was pasted in its place.",
			remedy:  register,
		},
		{
			text:    "Error when loading public keys",
			meaning: "What is registered as the client's key cannot be used: a certificate, a private key or a damaged PEM was pasted, or the provider cannot fetch the registered JWKS URL.",
			remedy:  "{register}, and see that the provider can fetch a registered JWKS URL within 2 s.",
		},
		{
			text:    "Signature on JWT token failed validation",
			meaning: "The provider checked the signature with another public key, or its JWKS entry has another `alg` or curve.",
			remedy:  register,
		},
		{
			text:    "Invalid signature algorithm",
			meaning: "The client is pinned to another signature algorithm at the provider.",
			remedy:  "Set the algorithm that is registered there: `vault write {mount}keys/{key} algorithm=<algorithm>`.",
		},

		// The client.
		{
			code: "unauthorized_client", text: "Invalid client or Invalid client credentials",
			meaning: "The client is registered to log in with a secret, not with a signed JWT.",
			remedy:  "Ask the API's owner to set the client's authentication to signed JWT.",
		},
		{
			text:    "Invalid client or Invalid client credentials",
			meaning: "Access not approved yet? The portal shows credentials before the API's owner approves and keeps the client disabled until then; otherwise client_id or the realm in the issuer is wrong.",
			remedy:  "Ask the API's owner to approve the access request; if it is approved, compare client_id and issuer in `vault read {mount}keys/{key}` with what the portal shows.",
		},
		{
			text:    "client_id parameter does not match",
			meaning: "The client_id that arrived is not the assertion's subject, so something on the way changed the form.",
			remedy:  reportBug,
		},
		{
			text:    "Client not enabled to retrieve service account",
			meaning: "The client may not use the client credentials grant: its service account is off.",
			remedy:  askOwner,
		},
		{
			text:    "Public client",
			meaning: "The client is registered as a public client, which cannot use the client credentials grant.",
			remedy:  askOwner,
		},
		{
			text:    "Bearer-only",
			meaning: "The client is registered as bearer-only, which cannot use the client credentials grant.",
			remedy:  askOwner,
		},
		{
			text:    "associated service account for the client does not exist",
			meaning: "The client's service account was deleted at the provider.",
			remedy:  askOwner,
		},
		{
			code: "invalid_request", text: "' disabled",
			meaning: "The client's service account is disabled at the provider.",
			remedy:  askOwner,
		},
		{
			text:    "Client credentials setup required",
			meaning: "The client's authentication is not completely set up at the provider.",
			remedy:  "Ask the provider's operators; their server log says what is missing.",
		},
		{
			code: "unauthorized_client", text: "Unexpected error",
			meaning: "The provider failed while it checked the client.",
			remedy:  "Ask the provider's operators; their server log says why.",
		},

		// The assertion.
		{
			text:    "Invalid token audience",
			meaning: "The assertion's audience is not the issuer to the letter; a trailing slash is enough.",
			remedy:  "Copy the issuer exactly as the portal shows it: `vault write {mount}keys/{key} issuer=<issuer> audience=\"\"`.",
		},
		{
			text:    "Multiple audiences not allowed",
			meaning: "The provider saw more than one audience in the assertion, which is always sent with one.",
			remedy:  "Check that audience in `vault read {mount}keys/{key}` is one value, best the issuer.",
		},
		{
			text:    "Token was issued in the future",
			meaning: "The clocks differ too much: to the provider the assertion is from the future ({clock}).",
			remedy:  syncClock,
		},
		{
			text:    "Token was issued too far in the past",
			meaning: "The clocks differ too much, or the request was held up on its way: to the provider the assertion is too old ({clock}).",
			remedy:  syncClock,
		},
		{
			text:    "Token is not active",
			meaning: "The clocks differ too much, or the request was held up on its way: to the provider the assertion has expired or is not valid yet ({clock}).",
			remedy:  syncClock,
		},
		{
			text:    "Token reuse detected",
			meaning: "The provider saw the same assertion twice although each is sent once: something on the way repeats requests. The signing key itself was accepted.",
			remedy:  "Turn off retries of POST requests in the proxy or load balancer between Vault and the provider.",
		},
		{
			text:    "Token expiration is too far in the future",
			meaning: "The provider found no `iat` in the assertion, which is always sent with one.",
			remedy:  reportBug,
		},
		{
			text:    "claim is required",
			meaning: "The provider misses a claim that is always sent.",
			remedy:  reportBug,
		},
		{
			text:    "client_assertion",
			meaning: "The client authentication did not arrive as it was sent: a proxy changed the form.",
			remedy:  reportBug,
		},
		{
			text:    "duplicated parameter",
			meaning: "The provider refuses a form parameter that was sent twice.",
			remedy:  "Remove the repetition from parameters in `vault read {mount}roles/{role}`.",
		},
		{
			text:    "Unmatching clients",
			meaning: "The token to revoke was issued to another client: the key's client_id has changed since.",
			remedy:  "Nothing to do: the token ends with its own life.",
		},

		// What was asked for.
		{
			code:    "invalid_scope",
			meaning: "A scope that the role asks for does not exist or is not granted to the client.",
			remedy:  "Remove it from scopes in `vault read {mount}roles/{role}`, or ask the API's owner to grant it.",
		},
		{
			code:    "invalid_target",
			meaning: "The provider does not know the resource or audience that the role asks for (RFC 8707).",
			remedy:  "Correct parameters in `vault read {mount}roles/{role}`.",
		},
		{
			code:    "unsupported_grant_type",
			meaning: "The provider does not offer the client credentials grant at this endpoint.",
			remedy:  askOwner,
		},
		{
			code:    "unauthorized_client",
			meaning: "The client may not use the client credentials grant.",
			remedy:  askOwner,
		},
		{
			code:    "invalid_client",
			meaning: "The provider did not accept the client's authentication: client_id is unknown there, the access is not approved yet, or another public key is registered.",
			remedy:  "Compare client_id, issuer and public_key in `vault read {mount}keys/{key}` with what is registered at the provider.",
		},
		{
			code:    "invalid_request",
			meaning: "The provider does not understand the request: a form parameter is missing, unknown or malformed.",
			remedy:  "Compare parameters in `vault read {mount}roles/{role}` with the provider's documentation.",
		},
		{
			code:    "invalid_dpop_proof",
			meaning: "The provider binds this client's tokens to a proof of possession (DPoP, RFC 9449), which is not supported.",
			remedy:  "Ask the API's owner to allow Bearer tokens for the client.",
		},
		{
			code:    "use_dpop_nonce",
			meaning: "The provider binds this client's tokens to a proof of possession (DPoP, RFC 9449), which is not supported.",
			remedy:  "Ask the API's owner to allow Bearer tokens for the client.",
		},

		// The network.
		{
			fault:   faultGuard,
			detail:  "allowed_hosts",
			meaning: "Nothing was sent: config does not let Vault connect there.",
			remedy:  "If the host is to be trusted, list it together with those that are: `vault write {mount}config allowed_hosts=<host>,…` (a port other than 443 as host:port); otherwise correct the URL in `vault read {mount}keys/{key}`.",
		},
		{
			fault:   faultGuard,
			meaning: "Nothing was sent.",
			remedy:  "Correct the URL in `vault read {mount}keys/{key}`.",
		},
		{
			fault:   faultNoSuchHost,
			meaning: "The name is misspelt, or the Vault node's DNS does not know it.",
			remedy:  checkURLs,
		},
		{
			fault:   faultDNS,
			meaning: "The Vault node's DNS server does not answer as it should.",
			remedy:  checkNetwork,
		},
		{
			fault:   faultConnRefused,
			meaning: "Nothing listens at this host and port, or a firewall refuses.",
			remedy:  checkNetwork,
		},
		{
			fault:   faultUnreachable,
			meaning: "The Vault node has no network route to the provider.",
			remedy:  checkNetwork,
		},
		{
			fault:   faultClosed,
			meaning: "The provider, or a firewall or load balancer before it, cut the connection.",
			remedy:  tryLater,
		},
		{
			fault:   faultBodyBroken,
			meaning: "The provider, or a firewall or load balancer before it, cut the connection.",
			remedy:  tryLater,
		},
		{
			fault:   faultUnknownCA,
			meaning: "The provider's certificate comes from a private authority, a TLS-inspecting proxy replaces it, or the server does not send its intermediate certificate.",
			remedy:  "If that authority is to be trusted: `vault write {mount}config ca_cert=@ca.pem` (it replaces the system's roots).",
		},
		{
			fault:   faultHostname,
			meaning: "Another server answers under this name, or the URL names the host differently from its certificate.",
			remedy:  checkURLs,
		},
		{
			fault:   faultExpired,
			meaning: "The provider has not renewed its certificate, or the Vault node's clock is wrong.",
			remedy:  "Check the Vault node's clock; if it is right, tell the provider's operators to renew the certificate.",
		},
		{
			fault:   faultCertificate,
			meaning: "The provider's certificate may not be used for a server, or its chain is broken.",
			remedy:  "Tell the provider's operators; with a private authority, check ca_cert in `vault read {mount}config`.",
		},
		{
			fault:   faultPlainHTTP,
			meaning: "The URL says https, but the port is a plain HTTP one.",
			remedy:  "Correct the port in the URL: `vault read {mount}keys/{key}` shows it.",
		},
		{
			fault:   faultTLS,
			meaning: "The server does not speak TLS 1.2 or later, demands a client certificate, or the port is not a TLS one.",
			remedy:  checkNetwork,
		},
		{
			fault:   faultProxyAuth,
			meaning: "The forward proxy wants a user name and password.",
			remedy:  "Let the proxy accept the Vault node without a login, or put the login into HTTPS_PROXY of the Vault process and run `vault write {mount}config proxy_url=environment`.",
		},
		{
			fault:   faultProxyRefusal,
			meaning: "The forward proxy does not let Vault connect to this host, or cannot reach it.",
			remedy:  "Ask the proxy's operators to allow the host and port; proxy_url in `vault read {mount}config` says which proxy.",
		},
		{
			fault:   faultNetwork,
			meaning: "Something other than a web server answers there, or the connection was disturbed.",
			remedy:  checkNetwork,
		},
		{
			fault:   faultTimeout,
			meaning: "The provider is slow or hangs.",
			remedy:  "Read again in a minute; if the provider is slow as a rule, allow it more time: `vault write {mount}config request_timeout=30s`.",
		},
		{
			fault:   faultNoConnection,
			meaning: "A firewall drops the packets silently, the host is down or hangs, or the DNS server does not answer.",
			remedy:  checkNetwork,
		},

		// What came back instead.
		{
			fault:   faultRedirect,
			meaning: "The URL is not the endpoint itself, or a login page or gateway stands before it.",
			remedy:  "Set the URL that the provider documents; `vault read {mount}keys/{key}` shows the present one.",
		},
		{
			fault:   faultOtherIssuer,
			meaning: "The issuer is not written exactly as the provider writes it (scheme, host, path, trailing slash), or another server answers (mix-up, RFC 8414 §3.3).",
			remedy:  "Copy the issuer exactly as the portal shows it: `vault write {mount}keys/{key} issuer=<issuer>`.",
		},
		{
			fault:   faultExpiredAnswer,
			meaning: "The token's own `exp` is not after this machine's time, so the clocks differ too much ({clock}).",
			remedy:  syncClock,
		},
		{
			fault: faultNotJSON, status: http.StatusOK,
			meaning: "A web page or gateway answers in the endpoint's place; the URL is probably wrong.",
			remedy:  checkURLs,
		},
		{
			fault:   faultTooLarge,
			meaning: "What answers there is hardly a token endpoint; the URL is probably wrong.",
			remedy:  checkURLs,
		},
		{
			fault:   faultAnswer,
			meaning: "The provider, or something in its place, does not answer as OAuth 2.0 and OpenID Connect demand.",
			remedy:  checkURLs,
		},

		// Statuses without words.
		{
			status:  http.StatusUnauthorized,
			meaning: "A gateway before the provider demands a login, or the URL is not the token endpoint.",
			remedy:  checkURLs,
		},
		{
			status:  http.StatusForbidden,
			meaning: "A firewall before the provider refuses Vault's address or request.",
			remedy:  "Ask the provider's operators to let the Vault node's address through.",
		},
		{
			op: OpDiscovery, status: http.StatusNotFound,
			meaning: "There is no such realm at this host: the issuer is wrong.",
			remedy:  "Compare issuer in `vault read {mount}keys/{key}` with what the portal shows.",
		},
		{
			status:  http.StatusNotFound,
			meaning: "There is no such realm or endpoint at this host: the URL is wrong.",
			remedy:  compareClient,
		},
		{
			status:  http.StatusMethodNotAllowed,
			meaning: "The URL exists but is not the token endpoint: it takes no POST.",
			remedy:  compareClient,
		},
		{
			status:  http.StatusRequestTimeout,
			meaning: "The provider did not receive the request in time.",
			remedy:  tryLater,
		},
		{
			status:  http.StatusRequestEntityTooLarge,
			meaning: "The request is too large for the provider or a gateway before it.",
			remedy:  "Shorten scopes and parameters in `vault read {mount}roles/{role}`, or ask the provider's operators for a higher limit.",
		},
		{
			status:  http.StatusProxyAuthRequired,
			meaning: "The forward proxy wants a user name and password.",
			remedy:  "Let the proxy accept the Vault node without a login, or put the login into HTTPS_PROXY of the Vault process and run `vault write {mount}config proxy_url=environment`.",
		},
		{
			status:  http.StatusTooManyRequests,
			meaning: "The provider limits how often it is asked.",
			remedy:  "Read less often, or ask the provider's operators for a higher limit.",
		},
		{
			status:  http.StatusInternalServerError,
			meaning: "The provider failed while it answered.",
			remedy:  tryLater,
		},
		{
			status:  http.StatusBadGateway,
			meaning: "The load balancer before the provider cannot reach it.",
			remedy:  tryLater,
		},
		{
			status:  http.StatusServiceUnavailable,
			meaning: "The provider is down for maintenance, starting or overloaded.",
			remedy:  tryLater,
		},
		{
			status:  http.StatusGatewayTimeout,
			meaning: "The load balancer before the provider waited for it in vain.",
			remedy:  tryLater,
		},
	}
}

func (d *diagnosis) fits(f fault, e *Error) bool {
	return (d.fault == "" || d.fault == f) &&
		(d.status == 0 || d.status == e.Status) &&
		(d.code == "" || d.code == e.Code) &&
		(d.op == "" || d.op == e.Operation) &&
		strings.Contains(e.Detail, d.detail) &&
		(d.text == "" || containsFold(e.Description, d.text))
}

// explain fills in Meaning and Remedy.
func explain(f fault, e *Error) *Error {
	for _, d := range diagnoses() {
		if d.fits(f, e) {
			e.Meaning = strings.ReplaceAll(d.meaning, "{clock}", describeClock(e))
			e.Remedy = d.remedy
			break
		}
	}
	return e
}

func containsFold(text, part string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(part))
}

// blocked is a refusal by the guard before anything was sent.
func blocked(op Operation, endpoint string, err error) *Error {
	return explain(faultGuard, &Error{Kind: Blocked, Operation: op, URL: redactURL(endpoint), Detail: "the URL " + err.Error()})
}

// blockedByAnswer is a refusal by the guard of an endpoint that a discovery document names.
func (v *conversation) blockedByAnswer(a *answer, err error) *Error {
	e := v.answered(a)
	e.Kind, e.Detail = Blocked, "`token_endpoint` in the discovery document "+err.Error()
	return explain(faultGuard, e)
}

// failed is a conversation without an answer.
func (v *conversation) failed(ctx context.Context, err error) *Error {
	return v.unfinished(ctx, v.newError(), diagnoseNetwork(err))
}

// brokenOff is an answer whose body did not come whole.
func (v *conversation) brokenOff(ctx context.Context, a *answer, err error) *Error {
	failure := diagnoseNetwork(err)
	if failure.kind == Unavailable {
		failure = networkFailure{kind: Unavailable, fault: faultBodyBroken, detail: string(faultBodyBroken)}
	}
	return v.unfinished(ctx, v.answered(a), failure)
}

// unfinished says that the context ended the conversation if it did, and otherwise that the network did.
func (v *conversation) unfinished(ctx context.Context, e *Error, failure networkFailure) *Error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		failure, e.cause = diagnoseNetwork(context.Canceled), context.Canceled
	case ctx.Err() != nil:
		failure, e.cause = networkFailure{kind: TimedOut, fault: faultTimeout, detail: "no complete answer before the request's own deadline"}, context.DeadlineExceeded
		if own := new(timeoutCause); errors.As(context.Cause(ctx), &own) {
			failure.detail = own.Error()
		}
	}
	if failure.kind == TimedOut && v.attempts > 0 && !v.connected.Load() {
		failure.fault = faultNoConnection
		failure.detail += ": " + string(faultNoConnection)
	}
	e.Kind, e.Detail = failure.kind, failure.detail
	return explain(failure.fault, e)
}

// refused is an answer with another status than success, or with an `error` in spite of it.
func (v *conversation) refused(a *answer) *Error {
	switch {
	case a.status >= 300 && a.status < 400:
		return v.malformed(a, faultRedirect, describeRedirect(a))
	case a.status < 300 && a.status != http.StatusOK:
		return v.malformed(a, faultAnswer, "only HTTP 200 is a success here")
	}
	e := v.answered(a)
	e.Kind = kindOfStatus(a.status)
	members, err := a.object()
	if err == nil {
		e.Code = sanitiseCode(members.text("error"))
		e.Description = sanitise(members.text("error_description"))
		e.KeyRefused = keyRefused(e, members)
	}
	if e.Code == "" {
		e.Detail = "the answer names no OAuth error code"
		if a.mediaType != "" && !isJSON(a.mediaType) {
			e.Detail += " (it is " + sanitiseCode(a.mediaType) + ")"
		}
	}
	if e.RetryAfter > retryAfterLimit {
		e.Detail = strings.TrimPrefix(e.Detail+fmt.Sprintf("; it asks to wait %d s", int(e.RetryAfter.Seconds())), "; ")
	}
	e = explain("", e)
	if v.op == OpRevocation { // an access token was sent, which may be of any form, and the provider may repeat it
		e.Code, e.Description = "", ""
	}
	return e
}

// describeRedirect names no more of the Location than its host: the rest may hold anything.
func describeRedirect(a *answer) string {
	location, err := url.Parse(a.header.Get("Location"))
	if err != nil {
		return string(faultRedirect)
	}
	to, err := parseTarget(location)
	if err != nil || len(to.host) > maxCode || sanitise(to.host) != to.host { // a relative one, or junk
		return string(faultRedirect)
	}
	return string(faultRedirect) + " (it leads to " + to.host + ")"
}

// kindOfStatus sorts statuses by who can mend them.
func kindOfStatus(status int) Kind {
	switch {
	case status == http.StatusRequestTimeout, status == http.StatusTooManyRequests, status >= 500:
		return Unavailable
	default: // other 4xx, and 200 with an `error`
		return Refused
	}
}

// keyRefused follows Keycloak's order of checks: with these words, and no others, it was the key that failed.
func keyRefused(e *Error, members object) bool {
	if e.Status != http.StatusBadRequest && e.Status != http.StatusUnauthorized || e.Code != "invalid_client" {
		return false
	}
	return !members.has("error_description") ||
		containsFold(e.Description, "Unable to load public key") ||
		containsFold(e.Description, "Error when loading public keys") || // its JWKS URL does not answer; it may know another key
		containsFold(e.Description, "Signature on JWT token failed validation")
}

// malformed is a success that is none.
func (v *conversation) malformed(a *answer, f fault, detail string) *Error {
	e := v.answered(a)
	e.Kind, e.Detail = Malformed, detail
	if f == faultOtherIssuer { // ours to mend
		e.Kind = Refused
	}
	return explain(f, e)
}

// answered is the part of an Error that an answer gives.
func (v *conversation) answered(a *answer) *Error {
	e := v.newError()
	e.Status, e.ServerTime, e.LocalTime = a.status, a.serverTime, a.receivedAt
	e.RetryAfter = retryAfter(a.header, a.receivedAt)
	return e
}

func (v *conversation) newError() *Error {
	return &Error{Operation: v.op, URL: redactURL(v.endpoint.String()), Attempts: v.attempts}
}

// redactURL leaves out all of a URL that may hold a secret.
func redactURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return "(no valid URL)"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// clockDifference is how far server is ahead of local, to the second, which is all that a Date header tells.
func clockDifference(server, local time.Time) time.Duration {
	return server.Sub(local.Truncate(time.Second)).Truncate(time.Second)
}

func describeClock(e *Error) string {
	difference, known := e.ClockDifference()
	switch {
	case !known:
		return "the answer has no Date header to compare with"
	case difference.Abs() <= 2*time.Second:
		return "by its Date header both clocks agree to 2 s"
	case difference > 0:
		return fmt.Sprintf("by its Date header this Vault node's clock is %d s behind the provider's", int(difference.Seconds()))
	default:
		return fmt.Sprintf("by its Date header this Vault node's clock is %d s ahead of the provider's", int(-difference.Seconds()))
	}
}
