package tokenendpoint

import (
	_ "embed" // for the table
	"net/http"
	"strings"
)

// Reason is why a call failed, as far as the response tells. Its Kind follows from it, and with
// status and code also whether the key was rejected (Error.KeyRejected).
type Reason string

// The provider rejected the key itself.
const (
	UnknownKey       Reason = "unknown_key"       // no public key with this kid is registered
	UnusableKeys     Reason = "unusable_keys"     // what is registered is no key, or its URL fails
	InvalidSignature Reason = "invalid_signature" // the registered key does not verify it
)

// The provider rejected the client.
const (
	WrongAlgorithm         Reason = "wrong_algorithm"          // it is pinned to a different one
	SecretClient           Reason = "secret_client"            // it authenticates with a secret
	UnknownClient          Reason = "unknown_client"           // it does not exist or is disabled
	ClientIDMismatch       Reason = "client_id_mismatch"       // client_id is not the sub
	NoServiceAccount       Reason = "no_service_account"       // the grant is not enabled
	PublicClient           Reason = "public_client"            // it cannot use the grant
	BearerOnlyClient       Reason = "bearer_only_client"       // it cannot use the grant
	ServiceAccountMissing  Reason = "service_account_missing"  // its service account was deleted
	ServiceAccountDisabled Reason = "service_account_disabled" // its service account is disabled
	ClientSetupIncomplete  Reason = "client_setup_incomplete"  // its authentication is not set up
	ClientCheckFailed      Reason = "client_check_failed"      // the provider failed to check it
	InvalidClient          Reason = "invalid_client"           // invalid_client, of unknown cause
	MethodNotOffered       Reason = "method_not_offered"       // by discovery: no private_key_jwt
	AlgorithmNotOffered    Reason = "algorithm_not_offered"    // by discovery
	UnauthorizedClient     Reason = "unauthorized_client"      // RFC 6749 §5.2
	UnsupportedGrantType   Reason = "unsupported_grant_type"   // RFC 6749 §5.2
	DPoPRequired           Reason = "dpop_required"            // its tokens are bound, RFC 9449
)

// The provider rejected the assertion.
const (
	WrongAudience     Reason = "wrong_audience"      // aud is not what it expects
	MultipleAudiences Reason = "multiple_audiences"  // more than one aud arrived
	IssuedInFuture    Reason = "issued_in_future"    // iat is ahead of its clock
	IssuedTooLongAgo  Reason = "issued_too_long_ago" // iat is too far behind its clock
	NotActive         Reason = "not_active"          // expired, or not valid yet
	Replayed          Reason = "replayed"            // jti was used before: the signature is valid
	IssuedAtMissing   Reason = "issued_at_missing"   // no iat arrived
	ClaimMissing      Reason = "claim_missing"       // another required claim did not arrive
	AssertionMissing  Reason = "assertion_missing"   // it did not arrive as sent
)

// The provider rejected the request.
const (
	DuplicateParameter Reason = "duplicate_parameter" // a form parameter was sent twice
	InvalidScope       Reason = "invalid_scope"       // RFC 6749 §5.2
	InvalidTarget      Reason = "invalid_target"      // RFC 8707 §2
	InvalidRequest     Reason = "invalid_request"     // RFC 6749 §5.2
	ForeignToken       Reason = "foreign_token"       // to revoke: another client's token
	OtherIssuer        Reason = "other_issuer"        // another issuer's document, RFC 8414 §3.3
	NoSuchIssuer       Reason = "no_such_issuer"      // HTTP 404 for the discovery document
	NoSuchEndpoint     Reason = "no_such_endpoint"    // HTTP 404
	Unauthorized       Reason = "unauthorized"        // HTTP 401 without an OAuth error
	Forbidden          Reason = "forbidden"           // HTTP 403
	MethodNotAllowed   Reason = "method_not_allowed"  // HTTP 405
	ProxyUnauthorized  Reason = "proxy_unauthorized"  // HTTP 407 in place of the response
	RequestTooLarge    Reason = "request_too_large"   // HTTP 413
	ClientError        Reason = "client_error"        // any other 4xx
)

// The guard rejected the URL. Nothing was sent.
const (
	HostNotListed Reason = "host_not_listed" // allowed if listed in allowed_hosts
	URLNotAllowed Reason = "url_not_allowed" // never allowed
)

// The provider is unavailable.
const (
	NoSuchHost          Reason = "no_such_host"          // the host name does not exist
	ResolutionFailed    Reason = "resolution_failed"     // the host name could not be resolved
	ConnectionRefused   Reason = "connection_refused"    // nothing listens at the port
	Unreachable         Reason = "unreachable"           // no route to the host
	ConnectionClosed    Reason = "connection_closed"     // the connection ended before a response
	ResponseTruncated   Reason = "response_truncated"    // the connection ended within the response
	UnknownAuthority    Reason = "unknown_authority"     // certificate: unknown authority
	WrongHostName       Reason = "wrong_host_name"       // certificate: for a different name
	CertificateExpired  Reason = "certificate_expired"   // certificate: outside its validity
	InvalidCertificate  Reason = "invalid_certificate"   // certificate: invalid otherwise
	PlainHTTP           Reason = "plain_http"            // the port does not speak TLS
	HandshakeFailed     Reason = "handshake_failed"      // TLS failed otherwise
	ProxyAuthentication Reason = "proxy_authentication"  // CONNECT: HTTP 407
	ProxyRejected       Reason = "proxy_rejected"        // CONNECT: another error
	NetworkFailure      Reason = "network_failure"       // any other failure of the connection
	RequestTimeout      Reason = "request_timeout"       // HTTP 408
	RateLimited         Reason = "rate_limited"          // HTTP 429
	InternalServerError Reason = "internal_server_error" // HTTP 500
	UnrecognizableError Reason = "unrecognizable_error"  // HTTP 500 from Ory Hydra: maybe the clock
	BadGateway          Reason = "bad_gateway"           // HTTP 502
	ServiceUnavailable  Reason = "service_unavailable"   // HTTP 503
	GatewayTimeout      Reason = "gateway_timeout"       // HTTP 504
	ServerError         Reason = "server_error"          // any other 5xx
)

// The response cannot be used.
const (
	Redirected       Reason = "redirected"         // redirects are never followed
	NotJSON          Reason = "not_json"           // by its media type
	ResponseTooLarge Reason = "response_too_large" // larger than maxBody or maxDocument
	InvalidResponse  Reason = "invalid_response"   // violates OAuth 2.0 or OpenID Connect
	TokenExpired     Reason = "token_expired"      // by this machine's clock
)

// There was no complete response.
const (
	Timeout      Reason = "timeout"       // the time ran out
	NoConnection Reason = "no_connection" // the time ran out before there was a connection
	Canceled     Reason = "canceled"      // the caller canceled the request
)

// Kind returns who can fix a failure of this reason.
func (r Reason) Kind() Kind {
	switch r {
	case HostNotListed, URLNotAllowed:
		return KindBlocked
	case NoSuchHost, ResolutionFailed, ConnectionRefused, Unreachable, ConnectionClosed,
		ResponseTruncated, UnknownAuthority, WrongHostName, CertificateExpired, InvalidCertificate,
		PlainHTTP, HandshakeFailed, ProxyAuthentication, ProxyRejected, NetworkFailure,
		RequestTimeout, RateLimited, InternalServerError, UnrecognizableError, BadGateway,
		ServiceUnavailable, GatewayTimeout, ServerError:
		return KindUnavailable
	case Redirected, NotJSON, ResponseTooLarge, InvalidResponse, TokenExpired:
		return KindMalformed
	case Timeout, NoConnection:
		return KindTimedOut
	case Canceled:
		return KindCanceled
	default:
		return KindRejected
	}
}

// reasonOf returns the reason of a response that is not a success. A server error is not explained
// by its words, except Hydra's.
func reasonOf(e *Error) Reason {
	byStatus := reasonOfStatus(e.Operation, e.Status)
	switch {
	case byStatus == InternalServerError && e.Description == unrecognizable:
		return UnrecognizableError
	case byStatus == InternalServerError && strings.Contains(e.Description, jwksUnavailable):
		return UnusableKeys
	case byStatus.Kind() == KindUnavailable:
		return byStatus
	}
	words := strings.ToLower(e.Description)
	for _, d := range descriptions() {
		if (d.code == "" || d.code == e.Code) && strings.Contains(words, strings.ToLower(d.text)) {
			return d.reason
		}
	}
	if reason := reasonOfCode(e.Code); reason != "" {
		return reason
	}
	return byStatus
}

// description is a provider's error_description, as far as it identifies a reason.
type description struct {
	code   string // the response's `error`; empty: any
	text   string // part of the description, in any letter case
	reason Reason
}

// How Ory Hydra describes errors that it does not classify, such as an assertion's times (fosite's
// ErrUnknown), and a JWKS URL that it cannot fetch (its DefaultJWKSFetcherStrategy).
const (
	unrecognizable  = "The error is unrecognizable"
	jwksUnavailable = "from location '"
)

//go:embed descriptions.txt
var descriptionsText string

// descriptions returns the table of descriptions.txt, which explains itself.
func descriptions() []description {
	var rows []description
	for line := range strings.SplitSeq(descriptionsText, "\n") {
		if words := strings.SplitN(line, " ", 3); len(words) == 3 && words[0] != "#" {
			code := strings.Trim(words[1], "-")
			rows = append(rows, description{code, words[2], Reason(words[0])})
		}
	}
	return rows
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
