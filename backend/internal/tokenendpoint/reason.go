package tokenendpoint

import (
	_ "embed" // for the tables
	"net/http"
	"strconv"
	"strings"
)

// Reason is why a call failed, as far as the response tells. Its Kind follows from it, and with
// status and code also whether the key was rejected (Error.KeyRejected).
type Reason string

// The reasons that the code treats specially; reasons.txt explains all.
const (
	UnknownKey          Reason = "unknown_key"
	UnusableKeys        Reason = "unusable_keys"
	InvalidSignature    Reason = "invalid_signature"
	WrongAlgorithm      Reason = "wrong_algorithm"
	SecretClient        Reason = "secret_client"
	UnknownClient       Reason = "unknown_client"
	InvalidClient       Reason = "invalid_client"
	MethodNotOffered    Reason = "method_not_offered"
	AlgorithmNotOffered Reason = "algorithm_not_offered"
	DPoPRequired        Reason = "dpop_required"
	OtherIssuer         Reason = "other_issuer"
	NoSuchIssuer        Reason = "no_such_issuer"
	ClientError         Reason = "client_error"
	HostNotListed       Reason = "host_not_listed"
	URLNotAllowed       Reason = "url_not_allowed"
	NoSuchHost          Reason = "no_such_host"
	ResolutionFailed    Reason = "resolution_failed"
	ConnectionRefused   Reason = "connection_refused"
	Unreachable         Reason = "unreachable"
	ConnectionClosed    Reason = "connection_closed"
	ResponseTruncated   Reason = "response_truncated"
	UnknownAuthority    Reason = "unknown_authority"
	WrongHostName       Reason = "wrong_host_name"
	CertificateExpired  Reason = "certificate_expired"
	InvalidCertificate  Reason = "invalid_certificate"
	PlainHTTP           Reason = "plain_http"
	HandshakeFailed     Reason = "handshake_failed"
	ProxyAuthentication Reason = "proxy_authentication"
	ProxyRejected       Reason = "proxy_rejected"
	NetworkFailure      Reason = "network_failure"
	RequestTimeout      Reason = "request_timeout"
	InternalServerError Reason = "internal_server_error"
	UnrecognizableError Reason = "unrecognizable_error"
	ServerError         Reason = "server_error"
	Redirected          Reason = "redirected"
	NotJSON             Reason = "not_json"
	ResponseTooLarge    Reason = "response_too_large"
	InvalidResponse     Reason = "invalid_response"
	TokenExpired        Reason = "token_expired"
	Timeout             Reason = "timeout"
	NoConnection        Reason = "no_connection"
	Canceled            Reason = "canceled"
)

//go:embed reasons.txt
var reasonsText string

// reasonRow is a line of reasons.txt.
type reasonRow struct {
	reason Reason
	kind   Kind
	status string
}

// reasonRows returns the table of reasons.txt, which explains itself.
func reasonRows() []reasonRow {
	var rows []reasonRow
	for line := range strings.SplitSeq(reasonsText, "\n") {
		if words := strings.SplitN(line, " ", 4); len(words) == 4 && words[0] != "#" {
			kind := Kind(strings.ReplaceAll(words[1], "_", " "))
			rows = append(rows, reasonRow{Reason(words[0]), kind, words[2]})
		}
	}
	return rows
}

// Kind returns who can fix a failure of this reason.
func (r Reason) Kind() Kind {
	for _, row := range reasonRows() {
		if row.reason == r {
			return row.kind
		}
	}
	return KindRejected
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
	for _, row := range reasonRows() {
		if row.status == strconv.Itoa(status) {
			return row.reason
		}
	}
	if status >= 500 {
		return ServerError
	}
	return ClientError
}
