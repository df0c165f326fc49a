package tokenendpoint

import (
	"net/http"
	"strings"
)

// Reason is why a call failed, as far as the answer tells. Its Kind and whether the key was
// rejected follow from it.
type Reason string

// The provider rejected the key itself.
const (
	// No public key with the assertion's kid is registered.
	UnknownKey Reason = "unknown_key"
	// What is registered cannot be used as a key, or the JWKS URL cannot be fetched.
	UnusableKeys Reason = "unusable_keys"
	// The signature does not verify with the registered key.
	InvalidSignature Reason = "invalid_signature"
	// A bare invalid_client (RFC 6749 §5.2). The key may be the cause.
	ClientRejected Reason = "client_rejected"
)

// The provider rejected the client.
const (
	// The client is pinned to another signature algorithm.
	WrongAlgorithm Reason = "wrong_algorithm"
	// The client authenticates with a secret.
	SecretClient Reason = "secret_client"
	// The client does not exist or is disabled.
	UnknownClient Reason = "unknown_client"
	// client_id is not the assertion's subject.
	ClientIDMismatch Reason = "client_id_mismatch"
	// The client credentials grant is not enabled for the client.
	NoServiceAccount Reason = "no_service_account"
	// A public client cannot use the grant.
	PublicClient Reason = "public_client"
	// A bearer-only client cannot use the grant.
	BearerOnlyClient Reason = "bearer_only_client"
	// The client's service account was deleted.
	ServiceAccountMissing Reason = "service_account_missing"
	// The client's service account is disabled.
	ServiceAccountDisabled Reason = "service_account_disabled"
	// The provider's setup of the client's authentication is incomplete.
	ClientSetupIncomplete Reason = "client_setup_incomplete"
	// The provider failed while it authenticated the client.
	ClientCheckFailed Reason = "client_check_failed"
	// invalid_client for a cause that none of the above describes.
	InvalidClient Reason = "invalid_client"
	// unauthorized_client (RFC 6749 §5.2).
	UnauthorizedClient Reason = "unauthorized_client"
	// unsupported_grant_type (RFC 6749 §5.2).
	UnsupportedGrantType Reason = "unsupported_grant_type"
	// The client's tokens are sender-constrained (RFC 9449).
	DPoPRequired Reason = "dpop_required"
)

// The provider rejected the assertion.
const (
	// aud is not what the provider expects.
	WrongAudience Reason = "wrong_audience"
	// More than one aud arrived.
	MultipleAudiences Reason = "multiple_audiences"
	// iat is ahead of the provider's clock.
	IssuedInFuture Reason = "issued_in_future"
	// iat is too far behind the provider's clock.
	IssuedTooLongAgo Reason = "issued_too_long_ago"
	// The assertion has expired or is not valid yet.
	NotActive Reason = "not_active"
	// The jti was used before, which proves that the signature is valid.
	Replayed Reason = "replayed"
	// No iat arrived.
	IssuedAtMissing Reason = "issued_at_missing"
	// Another required claim did not arrive.
	ClaimMissing Reason = "claim_missing"
	// client_assertion or client_assertion_type did not arrive as sent.
	AssertionMissing Reason = "assertion_missing"
)

// The provider rejected the request.
const (
	// A form parameter was sent twice.
	DuplicateParameter Reason = "duplicate_parameter"
	// invalid_scope (RFC 6749 §5.2).
	InvalidScope Reason = "invalid_scope"
	// invalid_target (RFC 8707 §2).
	InvalidTarget Reason = "invalid_target"
	// invalid_request (RFC 6749 §5.2).
	InvalidRequest Reason = "invalid_request"
	// The token to revoke was issued to another client.
	ForeignToken Reason = "foreign_token"
	// The discovery document is another issuer's (RFC 8414 §3.3).
	OtherIssuer Reason = "other_issuer"
	// HTTP 404 for the discovery document.
	NoSuchIssuer Reason = "no_such_issuer"
	// HTTP 404.
	NoSuchEndpoint Reason = "no_such_endpoint"
	// HTTP 401 without an OAuth error.
	Unauthorized Reason = "unauthorized"
	// HTTP 403.
	Forbidden Reason = "forbidden"
	// HTTP 405.
	MethodNotAllowed Reason = "method_not_allowed"
	// HTTP 407 in place of the provider's answer.
	ProxyUnauthorized Reason = "proxy_unauthorized"
	// HTTP 413.
	RequestTooLarge Reason = "request_too_large"
	// Any other 4xx.
	ClientError Reason = "client_error"
)

// The guard rejected the URL. Nothing was sent.
const (
	// Listing the host in allowed_hosts would allow it.
	HostNotListed Reason = "host_not_listed"
	// The URL, host or address is never allowed.
	URLNotAllowed Reason = "url_not_allowed"
)

// The provider is unavailable.
const (
	// The host name does not exist.
	NoSuchHost Reason = "no_such_host"
	// The host name could not be resolved.
	ResolutionFailed Reason = "resolution_failed"
	// Nothing listens at the port.
	ConnectionRefused Reason = "connection_refused"
	// No route to the host.
	Unreachable Reason = "unreachable"
	// The connection ended before an answer.
	ConnectionClosed Reason = "connection_closed"
	// The connection ended within the answer.
	AnswerTruncated Reason = "answer_truncated"
	// The certificate is signed by an unknown authority.
	UnknownAuthority Reason = "unknown_authority"
	// The certificate is for another host name.
	WrongHostName Reason = "wrong_host_name"
	// The certificate is outside its validity period.
	CertificateExpired Reason = "certificate_expired"
	// The certificate or its chain is invalid otherwise.
	InvalidCertificate Reason = "invalid_certificate"
	// The port does not speak TLS.
	PlainHTTP Reason = "plain_http"
	// The TLS handshake failed otherwise.
	HandshakeFailed Reason = "handshake_failed"
	// The proxy answered CONNECT with HTTP 407.
	ProxyAuthentication Reason = "proxy_authentication"
	// The proxy answered CONNECT with another error.
	ProxyRejected Reason = "proxy_rejected"
	// Any other failure of the connection.
	NetworkFailure Reason = "network_failure"
	// HTTP 408.
	RequestTimeout Reason = "request_timeout"
	// HTTP 429.
	RateLimited Reason = "rate_limited"
	// HTTP 500.
	InternalServerError Reason = "internal_server_error"
	// HTTP 502.
	BadGateway Reason = "bad_gateway"
	// HTTP 503.
	ServiceUnavailable Reason = "service_unavailable"
	// HTTP 504.
	GatewayTimeout Reason = "gateway_timeout"
	// Any other 5xx.
	ServerError Reason = "server_error"
)

// The answer cannot be used.
const (
	// The answer is a redirect, which is never followed.
	Redirected Reason = "redirected"
	// The answer is not JSON by its media type.
	NotJSON Reason = "not_json"
	// The answer is larger than maxAnswer.
	AnswerTooLarge Reason = "answer_too_large"
	// The answer violates OAuth 2.0 or OpenID Connect.
	InvalidAnswer Reason = "invalid_answer"
	// The token has already expired by this machine's clock.
	TokenExpired Reason = "token_expired"
)

// There was no complete answer.
const (
	// The time ran out.
	Timeout Reason = "timeout"
	// The time ran out before there was a connection.
	NoConnection Reason = "no_connection"
	// The caller canceled the request.
	Canceled Reason = "canceled"
)

// Kind returns who can fix a failure of this reason.
func (r Reason) Kind() Kind {
	switch r {
	case HostNotListed, URLNotAllowed:
		return KindBlocked
	case NoSuchHost, ResolutionFailed, ConnectionRefused, Unreachable, ConnectionClosed,
		AnswerTruncated, UnknownAuthority, WrongHostName, CertificateExpired, InvalidCertificate,
		PlainHTTP, HandshakeFailed, ProxyAuthentication, ProxyRejected, NetworkFailure,
		RequestTimeout, RateLimited, InternalServerError, BadGateway, ServiceUnavailable,
		GatewayTimeout, ServerError:
		return KindUnavailable
	case Redirected, NotJSON, AnswerTooLarge, InvalidAnswer, TokenExpired:
		return KindMalformed
	case Timeout, NoConnection:
		return KindTimedOut
	case Canceled:
		return KindCanceled
	default:
		return KindRejected
	}
}

// KeyRejected reports whether the provider rejected the key and nothing else: it may accept another
// version.
func (r Reason) KeyRejected() bool {
	switch r {
	case UnknownKey, UnusableKeys, InvalidSignature, ClientRejected:
		return true
	}
	return false
}

// reasonOf returns the reason of an answer that is not a success. described: it has an
// error_description. A server error is not explained by its words.
func reasonOf(e *Error, described bool) Reason {
	byStatus := reasonOfStatus(e.Operation, e.Status)
	if byStatus.Kind() == KindUnavailable {
		return byStatus
	}
	// Anything but this status and code might be another server's, and must not make us sign with
	// another key.
	keyRelated := (e.Status == http.StatusBadRequest || e.Status == http.StatusUnauthorized) &&
		e.Code == "invalid_client"
	for _, d := range descriptions() {
		if (d.code == "" || d.code == e.Code) && containsFold(e.Description, d.text) &&
			(keyRelated || !d.reason.KeyRejected()) {
			return d.reason
		}
	}
	if keyRelated && !described {
		return ClientRejected
	}
	if reason := reasonOfCode(e.Code); reason != "" {
		return reason
	}
	return byStatus
}

func containsFold(text, part string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(part))
}

// description is a provider's error_description, as far as it identifies a reason.
type description struct {
	code   string // the answer's `error`; empty: any
	text   string // part of the description, in any letter case
	reason Reason
}

// descriptions returns Keycloak's words; the first match counts. Sources: AbstractBaseJWTValidator,
// AbstractJWTClientValidator, JWTClientAuthenticator, ClientPublicKeyLoader,
// ClientCredentialsGrantType and TokenRevocationEndpoint of Keycloak 26.5.
func descriptions() []description {
	return []description{
		{"", "Unable to load public key", UnknownKey},
		// The JWKS URL does not answer; the provider may still know another key.
		{"", "Error when loading public keys", UnusableKeys},
		{"", "Signature on JWT token failed validation", InvalidSignature},
		{"", "Invalid signature algorithm", WrongAlgorithm},
		{"unauthorized_client", "Invalid client or Invalid client credentials", SecretClient},
		{"", "Invalid client or Invalid client credentials", UnknownClient},
		{"", "client_id parameter does not match", ClientIDMismatch},
		{"", "Client not enabled to retrieve service account", NoServiceAccount},
		{"", "Public client", PublicClient},
		{"", "Bearer-only", BearerOnlyClient},
		{"", "associated service account for the client does not exist", ServiceAccountMissing},
		{"invalid_request", "' disabled", ServiceAccountDisabled},
		{"", "Client credentials setup required", ClientSetupIncomplete},
		{"unauthorized_client", "Unexpected error", ClientCheckFailed},
		{"", "Invalid token audience", WrongAudience},
		{"", "Multiple audiences not allowed", MultipleAudiences},
		{"", "Token was issued in the future", IssuedInFuture},
		{"", "Token was issued too far in the past", IssuedTooLongAgo},
		{"", "Token is not active", NotActive},
		{"", "Token reuse detected", Replayed},
		{"", "Token expiration is too far in the future", IssuedAtMissing},
		{"", "claim is required", ClaimMissing},
		{"", "client_assertion", AssertionMissing},
		{"", "duplicated parameter", DuplicateParameter},
		{"", "Unmatching clients", ForeignToken},
	}
}

func reasonOfCode(code string) Reason {
	switch code {
	case "invalid_client", "invalid_request", "invalid_scope", "invalid_target",
		"unauthorized_client", "unsupported_grant_type":
		return Reason(code)
	case "invalid_dpop_proof", "use_dpop_nonce":
		return DPoPRequired
	}
	return ""
}

func reasonOfStatus(op Operation, status int) Reason {
	if op == OpDiscovery && status == http.StatusNotFound {
		return NoSuchIssuer
	}
	reason, known := map[int]Reason{
		http.StatusUnauthorized:          Unauthorized,
		http.StatusForbidden:             Forbidden,
		http.StatusNotFound:              NoSuchEndpoint,
		http.StatusMethodNotAllowed:      MethodNotAllowed,
		http.StatusProxyAuthRequired:     ProxyUnauthorized,
		http.StatusRequestTimeout:        RequestTimeout,
		http.StatusRequestEntityTooLarge: RequestTooLarge,
		http.StatusTooManyRequests:       RateLimited,
		http.StatusInternalServerError:   InternalServerError,
		http.StatusBadGateway:            BadGateway,
		http.StatusServiceUnavailable:    ServiceUnavailable,
		http.StatusGatewayTimeout:        GatewayTimeout,
	}[status]
	switch {
	case known:
		return reason
	case status >= 500:
		return ServerError
	default:
		return ClientError
	}
}
