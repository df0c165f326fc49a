package tokenendpoint

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Keycloak's responses, verbatim, and the reason of each.
func TestError_KeycloakErrorsHaveReasons(t *testing.T) {
	t.Parallel()
	const signed = "Client authentication with signed JWT failed: "
	for _, c := range []struct {
		status      int
		code, words string
		reason      Reason
	}{
		{400, "invalid_client", signed + "Unable to load public key", UnknownKey},
		{401, "invalid_client", "unable to load PUBLIC key", UnknownKey},
		{400, "invalid_client", signed + "Signature on JWT token failed validation", InvalidSignature},
		{400, "invalid_client", "", InvalidClient},
		{400, "invalid_client", signed + "Error when loading public keys: Bad sequence size: 3", UnusableKeys},
		{400, "invalid_client", "Parameter client_assertion_type is missing", Reason("assertion_missing")},
		{400, "invalid_client", "Parameter client_assertion_type has value 'x' but expected is 'y'", Reason("assertion_missing")},
		{400, "invalid_client", "client_assertion parameter missing", Reason("assertion_missing")},
		{400, "invalid_client", "client_id parameter does not match sub claim", Reason("client_id_mismatch")},
		{401, "invalid_client", "Invalid client or Invalid client credentials", UnknownClient},
		{401, "unauthorized_client", "Invalid client or Invalid client credentials", SecretClient},
		{400, "invalid_client", signed + "Invalid signature algorithm", WrongAlgorithm},
		{400, "invalid_client", "Invalid token audience", Reason("wrong_audience")},
		{400, "invalid_client", "Multiple audiences not allowed", Reason("multiple_audiences")},
		{400, "invalid_client", "Token is not active", Reason("not_active")},
		{400, "invalid_client", "Token was issued in the future", Reason("issued_in_future")},
		{400, "invalid_client", "Token was issued too far in the past to be used now", Reason("issued_too_long_ago")},
		{400, "invalid_client", "Token expiration is too far in the future and iat claim not present in token", Reason("issued_at_missing")},
		{400, "invalid_client", "Token exp claim is required", Reason("claim_missing")},
		{400, "invalid_client", "Token jti claim is required", Reason("claim_missing")},
		{400, "invalid_client", "Token sub claim is required", Reason("claim_missing")},
		{400, "invalid_client", "Token reuse detected", Reason("replayed")},
		{400, "unauthorized_client", "Client credentials setup required", Reason("client_setup_incomplete")},
		{400, "unauthorized_client", "Unexpected error when authenticating", Reason("client_check_failed")},
		{401, "unauthorized_client", "Client not enabled to retrieve service account", Reason("no_service_account")},
		{401, "unauthorized_client", "Public client not allowed to retrieve service account", Reason("public_client")},
		{401, "unauthorized_client", "Bearer-only client not allowed to retrieve service account", Reason("bearer_only_client")},
		{401, "invalid_request", "The associated service account for the client does not exist", Reason("service_account_missing")},
		{401, "invalid_request", "User 'service-account-x' disabled", Reason("service_account_disabled")},
		{400, "invalid_scope", "Invalid scopes: nope", Reason("invalid_scope")},
		{400, "invalid_request", "duplicated parameter", Reason("duplicate_parameter")},
		{400, "invalid_request", "", Reason("invalid_request")},
		{400, "invalid_target", "", Reason("invalid_target")},
		{400, "unsupported_grant_type", "", Reason("unsupported_grant_type")},
		{400, "unauthorized_client", "", Reason("unauthorized_client")},
		{400, "invalid_dpop_proof", "DPoP proof is missing", DPoPRequired},
		{400, "use_dpop_nonce", "", DPoPRequired},
		{400, "invalid_client", "Something else", InvalidClient},
		{403, "invalid_client", "", InvalidClient},
		{400, "unauthorized_client", signed + "Unable to load public key", UnknownKey},
		{403, "invalid_client", signed + "Unable to load public key", UnknownKey},
		{404, "Realm does not exist", "For more on this error consult the server log.", Reason("no_such_endpoint")},
	} {
		server := serve(t, jsonHandler(c.status, errorBody(c.code, c.words)))
		_, err := clientFor(t, server, retries(2)).RequestToken(t.Context(), server.URL+"/token", emptyForm)
		e := requireError(t, err, KindRejected)
		require.Equal(t, 1, e.Attempts)
		require.Equal(t, c.reason, e.Reason, "%s", err)
		require.Equal(t, c.code, e.Code)
		require.Equal(t, c.words, e.Description)
		line := fmt.Sprintf("token request at %s/token: HTTP %d %s", server.URL, c.status, c.code)
		if c.words != "" {
			line += ": " + c.words
		}
		require.Equal(t, line, e.Error())
	}
}

func errorBody(code, description string) string {
	if description == "" {
		return fmt.Sprintf(`{"error":%q}`, code)
	}
	return fmt.Sprintf(`{"error":%q,"error_description":%q}`, code, description)
}

// The responses of Ory Hydra 2.3 and of panva's oidc-provider, of Spring Authorization Server and of
// Keycloak 26.7's federated clients. KeyRejected means that another version is tried.
func TestError_OtherProvidersErrorsHaveReasons(t *testing.T) {
	t.Parallel()
	const hydraPrefix = "Client authentication failed (e.g., unknown client, no client authentication included, " +
		"or unsupported authentication method). "
	for _, c := range []struct {
		status      int
		code, words string
		reason      Reason
		keyRejected bool
	}{
		{401, "invalid_client", "client authentication failed", InvalidClient, true},
		{401, "invalid_client", "", InvalidClient, true},
		{401, "invalid_client", "Invalid client or Invalid client credentials", UnknownClient, true},
		{400, "invalid_request", "The JSON Web Token uses signing key with kid 'x', which could not be found.", UnknownKey, true},
		{400, "invalid_request", "Unable to find RSA public key with use='sig' for kid 'x' in JSON Web Key Set.", UnknownKey, true},
		{400, "invalid_request", "The retrieved JSON Web Key Set does not contain any key.", UnknownKey, true},
		{401, "invalid_client", hydraPrefix + "The OAuth 2.0 Client has no JSON Web Keys set registered, but they are needed to complete the request.", UnknownKey, true},
		{401, "invalid_client", hydraPrefix + "Unable to verify the integrity of the 'client_assertion' value.", InvalidSignature, true},
		{401, "invalid_client", hydraPrefix + "The 'client_assertion' uses signing algorithm 'RS256' but the requested OAuth 2.0 Client enforces signing algorithm 'ES256'.", WrongAlgorithm, false},
		{401, "invalid_client", hydraPrefix + "This requested OAuth 2.0 client only supports client authentication method 'client_secret_basic', however 'client_assertion' was provided in the request.", SecretClient, false},
		{401, "invalid_client", hydraPrefix + "Claim 'audience' from 'client_assertion' must match the authorization server's token endpoint 'https://idp.example/oauth2/token'.", Reason("wrong_audience"), false},
		{401, "invalid_client", hydraPrefix + "Unable to verify the request object because its claims could not be validated, check if the expiry time is set correctly.", Reason("not_active"), false},
		{400, "jti_known", "The jti was already used.", Reason("replayed"), false},
		{401, "invalid_client", hydraPrefix + "The 'client_assertion' request parameter uses unsupported signing algorithm 'RS257'.", WrongAlgorithm, false},
		{401, "invalid_client", "The client_assertion JWT kid is invalid.", InvalidClient, true}, // Okta
		{500, "server_error", "Unable to fetch JSON Web Keys from location 'https://a/jwks.json'. Check for typos or other network issues.", UnusableKeys, true},
		{500, "server_error", "out of memory", InternalServerError, false},
		{400, "invalid_request", "The request is missing a required parameter", Reason("invalid_request"), false},
	} {
		server := serve(t, jsonHandler(c.status, errorBody(c.code, c.words)))
		_, err := clientFor(t, server).RequestToken(t.Context(), server.URL, emptyForm)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, c.reason, e.Reason, "%s", err)
		require.Equal(t, c.keyRejected, e.KeyRejected(), "%s", err)
	}
}

// Ory Hydra responds so to an assertion outside its times. Other errors 500 have no known cause.
func TestError_HydrasUnrecognizableErrorHasReason(t *testing.T) {
	t.Parallel()
	for words, reason := range map[string]Reason{
		"The error is unrecognizable": UnrecognizableError,
		"out of memory":               InternalServerError,
	} {
		server := serve(t, jsonHandler(500, errorBody("error", words)))
		_, err := clientFor(t, server, retries(2)).RequestToken(t.Context(), server.URL, emptyForm)
		e := requireError(t, err, KindUnavailable)
		require.Equal(t, reason, e.Reason)
		require.Equal(t, 1, e.Attempts)
		require.False(t, e.KeyRejected())
	}
}

// Any other response might be another server's, and must not make us sign with another key.
func TestError_OnlyExactResponseRejectsKey(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"another status":          jsonHandler(403, `{"error":"invalid_client"}`),
		"a server error":          jsonHandler(500, `{"error":"invalid_client"}`),
		"another code":            jsonHandler(401, `{"error":"unauthorized_client"}`),
		"another code, the words": jsonHandler(401, `{"error":"unauthorized_client","error_description":"Unable to load public key"}`),
		"a miscased name":         jsonHandler(401, `{"Error":"invalid_client"}`),
		"a miscased code":         jsonHandler(401, `{"error":"Invalid_Client"}`),
		"a name twice":            jsonHandler(401, `{"error":"invalid_client","error":"invalid_client"}`),
		"a bad algorithm":         jsonHandler(400, `{"error":"invalid_client","error_description":"Invalid signature algorithm"}`),
		"not JSON by its type": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":"invalid_client"}`)
		},
	} {
		server := serve(t, handler)
		_, err := clientFor(t, server).RequestToken(t.Context(), server.URL, emptyForm)
		var e *Error
		require.ErrorAs(t, err, &e)
		require.False(t, e.KeyRejected(), name)
	}
}

func TestError_BareStatusesHaveReasons(t *testing.T) {
	t.Parallel()
	for status, c := range map[int]struct {
		kind   Kind
		reason Reason
	}{
		400: {KindRejected, ClientError},
		401: {KindRejected, Reason("unauthorized")},
		403: {KindRejected, Reason("forbidden")},
		404: {KindRejected, Reason("no_such_endpoint")},
		405: {KindRejected, Reason("method_not_allowed")},
		407: {KindRejected, Reason("proxy_unauthorized")},
		408: {KindUnavailable, RequestTimeout},
		413: {KindRejected, Reason("request_too_large")},
		429: {KindUnavailable, Reason("rate_limited")},
		451: {KindRejected, ClientError},
		500: {KindUnavailable, InternalServerError},
		502: {KindUnavailable, Reason("bad_gateway")},
		503: {KindUnavailable, Reason("service_unavailable")},
		504: {KindUnavailable, Reason("gateway_timeout")},
		599: {KindUnavailable, ServerError},
	} {
		server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html; charset=utf-8")
			w.WriteHeader(status)
			fmt.Fprint(w, "<html><title>secret page</title></html>")
		})
		client := clientFor(t, server)
		_, tokenErr := client.RequestToken(t.Context(), server.URL, emptyForm)
		for _, err := range []error{tokenErr, client.Revoke(t.Context(), server.URL, emptyForm)} {
			e := requireError(t, err, c.kind)
			require.Equal(t, c.reason, e.Reason)
			require.Contains(t, e.Error(), fmt.Sprintf("HTTP %d: the response has no OAuth error code (it is text/html)", status))
			require.NotContains(t, e.Error(), "secret")
		}
	}
}

func TestError_WithoutCodeNamesOtherMediaTypes(t *testing.T) {
	t.Parallel()
	for mediaType, says := range map[string]string{
		"":                                  "",
		"application/json":                  "",
		"application/problem+json":          "",
		"text/html; charset=utf-8":          " (it is text/html)",
		"text/x-" + strings.Repeat("a", 61): " (it is text/[redacted])",
	} {
		server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{mediaType}
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"message":"secret"}`)
		})
		e := requireError(t, perform(t.Context(), clientFor(t, server), OpToken, server.URL), KindRejected)
		require.Equal(t, "the response has no OAuth error code"+says, e.Detail)
	}
}

func TestError_MeasuresClockDifference(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ahead time.Duration // of the provider's clock
		date  bool
	}{
		{90 * time.Second, true},
		{-90 * time.Second, true},
		{time.Second, true},
		{0, false},
	} {
		now := time.Date(2026, 1, 2, 3, 4, 5, 999, time.UTC)
		server := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Date"] = nil
			if c.date {
				w.Header().Set("Date", now.Add(c.ahead).Format(http.TimeFormat))
			}
			jsonHandler(400, errorBody("invalid_client", "Token is not active"))(w, r)
		})
		opts := quick
		opts.Now = func() time.Time { return now }
		_, err := newClient(t, configFor(server), opts).RequestToken(t.Context(), server.URL, emptyForm)
		e := requireError(t, err, KindRejected)
		difference, known := e.ClockDifference()
		require.Equal(t, c.date, known)
		require.Equal(t, c.ahead, difference)
	}
}

func TestError_NetworkFailuresHaveReasons(t *testing.T) {
	t.Parallel()
	trusting := serve(t, jsonHandler(200, validToken))
	closed := serve(t, nil)
	closed.Close()
	plain := httptest.NewServer(jsonHandler(200, validToken))
	t.Cleanup(plain.Close)
	expired := serveDated(t, -2*time.Hour, -time.Hour)
	early := serveDated(t, time.Hour, 2*time.Hour)
	for name, c := range map[string]struct {
		url    string
		ca     string
		says   string
		reason Reason
	}{
		"unknown authority": {trusting.URL, "", "unknown authority", UnknownAuthority},
		"another authority": {trusting.URL, certificateOf(expired), "unknown authority", UnknownAuthority},
		"another host name": {"https://other.example.org" + portOf(trusting), certificateOf(trusting), "a different host name", WrongHostName},
		"expired":           {expired.URL, certificateOf(expired), "has expired", CertificateExpired},
		"not valid yet":     {early.URL, certificateOf(early), "not valid yet", CertificateExpired},
		"plain HTTP":        {strings.Replace(plain.URL, "http:", "https:", 1), "", "plain HTTP", PlainHTTP},
		"TLS 1.1 only":      {serveOldTLS(t), certificateOf(trusting), "TLS handshake failed", HandshakeFailed},
		"not HTTP":          {serveJunk(t), certificateOf(trusting), "does not speak HTTP", NetworkFailure},
		"refused":           {closed.URL, "", "connection refused", ConnectionRefused},
		"no such host":      {"https://missing.example.org" + portOf(trusting), "", "does not exist", NoSuchHost},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := quick
			opts.resolver = resolverFor(map[string][]string{"other.example.org": {"127.0.0.1"}})
			host := strings.TrimPrefix(c.url, "https://")
			client := newClient(t, Config{AllowedHosts: []string{host}, CACert: c.ca, RequestTimeout: 5 * time.Second}, opts)
			_, connectErr := client.Connect(t.Context(), c.url)
			for _, err := range []error{
				connectErr, perform(t.Context(), client, OpToken, c.url),
				perform(t.Context(), client, OpDiscovery, c.url), perform(t.Context(), client, OpRevocation, c.url),
			} {
				e := requireError(t, err, KindUnavailable)
				require.Contains(t, e.Detail, c.says)
				require.Equal(t, c.reason, e.Reason)
				require.NotContains(t, e.Error(), "secret")
			}
		})
	}
}

func portOf(server *httptest.Server) string {
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	return ":" + port
}

// serveJunk speaks TLS but not HTTP.
func serveJunk(t *testing.T) string {
	t.Helper()
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, "secret eyJhbGciOiJub25lIn0 junk\r\n\r\n")
			_ = conn.Close()
		}
	})
	return server.URL
}

func serveOldTLS(t *testing.T) string {
	t.Helper()
	server := httptest.NewUnstartedServer(jsonHandler(200, validToken))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS11, MaxVersion: tls.VersionTLS11}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

// serveDated has a certificate that is valid between two instants, as seen from now.
func serveDated(t *testing.T, from, to time.Duration) *httptest.Server {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "dated"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(jsonHandler(200, validToken))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// A description that contains an earlier one could never be reached.
func TestReason_EachDescriptionIsReachable(t *testing.T) {
	t.Parallel()
	for _, d := range descriptions() {
		e := &Error{Operation: OpToken, Status: http.StatusBadRequest, Code: d.code, Description: d.text}
		require.Equal(t, d.reason, reasonOf(e), d.text)
	}
}

// Errors that are hard to provoke; TestError_NetworkFailuresHaveReasons has the others.
func TestError_NetworkErrorsAreClassified(t *testing.T) {
	t.Parallel()
	dial := func(cause error) error {
		return &url.Error{Op: "Post", URL: "https://u:secret@idp.example.com", Err: &net.OpError{Op: "dial", Net: "tcp", Err: cause}}
	}
	invalid := func(cause error) error { return dial(&tls.CertificateVerificationError{Err: cause}) }
	for name, c := range map[string]struct {
		err       error
		kind      Kind
		reason    Reason
		transient bool
	}{
		"a timeout of the system":    {dial(os.NewSyscallError("connect", syscall.ETIMEDOUT)), KindTimedOut, Timeout, false},
		"DNS timeout":                {dial(&net.DNSError{IsTimeout: true}), KindTimedOut, Timeout, false},
		"DNS server failure":         {dial(&net.DNSError{IsTemporary: true}), KindUnavailable, ResolutionFailed, true},
		"no such host":               {dial(&net.DNSError{IsNotFound: true}), KindUnavailable, NoSuchHost, false},
		"host unreachable":           {dial(syscall.EHOSTUNREACH), KindUnavailable, Unreachable, true},
		"network unreachable":        {dial(syscall.ENETUNREACH), KindUnavailable, Unreachable, true},
		"reset":                      {dial(syscall.ECONNRESET), KindUnavailable, ConnectionClosed, true},
		"end of file":                {fmt.Errorf("read: %w", io.ErrUnexpectedEOF), KindUnavailable, ConnectionClosed, true},
		"an idle connection, closed": {errors.New("http: server closed idle connection"), KindUnavailable, ConnectionClosed, true},
		"a lost HTTP/2 connection":   {errors.New("http2: client connection lost"), KindUnavailable, ConnectionClosed, true},
		"TLS version":                {errors.New("tls: server selected unsupported protocol version 301"), KindUnavailable, HandshakeFailed, false},
		"an alert":                   {dial(tls.AlertError(40)), KindUnavailable, HandshakeFailed, false},
		"no TLS record":              {dial(tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}), KindUnavailable, HandshakeFailed, false},
		"a certificate of no CA":     {invalid(x509.CertificateInvalidError{Reason: x509.NotAuthorizedToSign}), KindUnavailable, InvalidCertificate, false},
		"an odd certificate":         {invalid(x509.UnhandledCriticalExtension{}), KindUnavailable, InvalidCertificate, false},
		"an expired certificate":     {invalid(x509.CertificateInvalidError{Reason: x509.Expired}), KindUnavailable, CertificateExpired, false},
		"canceled":                   {dial(context.Canceled), KindCanceled, Canceled, false},
		"deadline":                   {dial(context.DeadlineExceeded), KindTimedOut, Timeout, false},
		"unknown":                    {errors.New(`malformed HTTP response "secret"`), KindUnavailable, NetworkFailure, false},
	} {
		got := diagnoseNetwork(c.err)
		require.Equal(t, c.reason, got.reason, name)
		require.Equal(t, c.kind, got.reason.Kind(), name)
		require.Equal(t, c.transient, got.transient, name)
		require.NotContains(t, got.detail, "secret", name)
	}
}

func TestKind_NamesAreDistinct(t *testing.T) {
	t.Parallel()
	seen := map[Kind]bool{}
	for _, kind := range []Kind{
		KindRejected, KindBlocked, KindUnavailable, KindMalformed, KindTimedOut, KindCanceled,
	} {
		require.NotEmpty(t, kind)
		require.False(t, seen[kind])
		seen[kind] = true
	}
}
