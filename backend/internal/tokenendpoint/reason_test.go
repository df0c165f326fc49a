package tokenendpoint

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestReason_TablesAgree: a reason that reasons.txt lacks would be the client's fault by default.
func TestReason_TablesAgree(t *testing.T) {
	t.Parallel()
	known := map[Reason]Kind{}
	for _, row := range reasonRows() {
		require.Empty(t, known[row.reason], row.reason)
		require.Contains(t, []Kind{
			KindRejected, KindBlocked, KindUnavailable, KindMalformed, KindTimedOut, KindCanceled,
		}, row.kind, row.reason)
		known[row.reason] = row.kind
	}
	for _, row := range descriptions() {
		require.Contains(t, known, row.reason, row.text)
	}
	for _, code := range []string{"invalid_client", "invalid_scope", "unauthorized_client", "use_dpop_nonce"} {
		require.Contains(t, known, reasonOfCode(code))
	}
	for _, reason := range []Reason{
		UnknownKey, UnusableKeys, InvalidSignature, WrongAlgorithm, SecretClient, UnknownClient, InvalidClient,
		MethodNotOffered, AlgorithmNotOffered, DPoPRequired, OtherIssuer, NoSuchIssuer, HostNotListed, URLNotAllowed,
		NoSuchHost, ResolutionFailed, ConnectionRefused, Unreachable, ConnectionClosed, ResponseTruncated,
		UnknownAuthority, WrongHostName, CertificateExpired, InvalidCertificate, PlainHTTP, HandshakeFailed,
		ProxyAuthentication, ProxyRejected, NetworkFailure, RequestTimeout, InternalServerError, UnrecognizableError,
		ServerError, ClientError, Redirected, NotJSON, ResponseTooLarge, InvalidResponse, TokenExpired, Timeout,
		NoConnection, Canceled,
	} {
		require.Contains(t, known, reason)
	}
	require.Equal(t, KindTimedOut, Timeout.Kind())
	require.Equal(t, KindUnavailable, Reason("rate_limited").Kind())
}
