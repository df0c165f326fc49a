package tokenendpoint

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Keycloak's answers, word for word, and what each must tell.
func TestProviderErrorsAreExplained(t *testing.T) {
	t.Parallel()
	const signed = "Client authentication with signed JWT failed: "
	for _, c := range []struct {
		status      int
		code, words string
		keyRefused  bool
		meaning     string
		remedy      string
	}{
		{400, "invalid_client", signed + "Unable to load public key", true, "knows no public key", "{register}"},
		{401, "invalid_client", "unable to load PUBLIC key", true, "knows no public key", "{register}"},
		{400, "invalid_client", signed + "Signature on JWT token failed validation", true, "another public key", "{register}"},
		{400, "invalid_client", "", true, "did not accept the client's authentication", "public_key"},
		{400, "invalid_client", signed + "Error when loading public keys: Bad sequence size: 3", true, "a certificate, a private key or a damaged PEM", "JWKS URL"},
		{400, "invalid_client", "Parameter client_assertion_type is missing", false, "a proxy changed the form", "maintainers"},
		{400, "invalid_client", "Parameter client_assertion_type has value 'x' but expected is 'y'", false, "a proxy changed the form", "maintainers"},
		{400, "invalid_client", "client_assertion parameter missing", false, "a proxy changed the form", "maintainers"},
		{400, "invalid_client", "client_id parameter does not match sub claim", false, "not the assertion's subject", "maintainers"},
		{401, "invalid_client", "Invalid client or Invalid client credentials", false, "Access not approved yet?", "approve the access request"},
		{401, "unauthorized_client", "Invalid client or Invalid client credentials", false, "with a secret", "signed JWT"},
		{400, "invalid_client", signed + "Invalid signature algorithm", false, "another signature algorithm", "algorithm=<algorithm>"},
		{400, "invalid_client", "Invalid token audience", false, "trailing slash", "issuer=<issuer>"},
		{400, "invalid_client", "Multiple audiences not allowed", false, "more than one audience", "audience"},
		{400, "invalid_client", "Token is not active", false, "clocks", "NTP"},
		{400, "invalid_client", "Token was issued in the future", false, "clocks", "NTP"},
		{400, "invalid_client", "Token was issued too far in the past to be used now", false, "clocks", "NTP"},
		{400, "invalid_client", "Token expiration is too far in the future and iat claim not present in token", false, "no `iat`", "maintainers"},
		{400, "invalid_client", "Token exp claim is required", false, "always sent", "maintainers"},
		{400, "invalid_client", "Token jti claim is required", false, "always sent", "maintainers"},
		{400, "invalid_client", "Token sub claim is required", false, "always sent", "maintainers"},
		{400, "invalid_client", "Token reuse detected", false, "repeats requests", "Turn off retries"},
		{400, "unauthorized_client", "Client credentials setup required", false, "not completely set up", "operators"},
		{400, "unauthorized_client", "Unexpected error when authenticating", false, "failed while it checked", "operators"},
		{401, "unauthorized_client", "Client not enabled to retrieve service account", false, "service account is off", "API's owner"},
		{401, "unauthorized_client", "Public client not allowed to retrieve service account", false, "public client", "API's owner"},
		{401, "unauthorized_client", "Bearer-only client not allowed to retrieve service account", false, "bearer-only", "API's owner"},
		{401, "invalid_request", "The associated service account for the client does not exist", false, "deleted", "API's owner"},
		{401, "invalid_request", "User 'service-account-x' disabled", false, "disabled", "API's owner"},
		{400, "invalid_scope", "Invalid scopes: nope", false, "scope", "{mount}roles/{role}"},
		{400, "invalid_request", "duplicated parameter", false, "sent twice", "{mount}roles/{role}"},
		{400, "invalid_request", "", false, "does not understand", "{mount}roles/{role}"},
		{400, "invalid_target", "", false, "RFC 8707", "{mount}roles/{role}"},
		{400, "unsupported_grant_type", "", false, "client credentials grant", "API's owner"},
		{400, "unauthorized_client", "", false, "client credentials grant", "API's owner"},
		{400, "invalid_dpop_proof", "DPoP proof is missing", false, "RFC 9449", "Bearer"},
		{400, "use_dpop_nonce", "", false, "RFC 9449", "Bearer"},
		{400, "invalid_client", "Something else", false, "did not accept the client's authentication", "public_key"},
		{403, "invalid_client", "", false, "did not accept the client's authentication", "public_key"},
		{404, "Realm does not exist", "For more on this error consult the server log.", false, "no such realm", "issuer"},
	} {
		server := serve(t, answers(c.status, errorAnswer(c.code, c.words)))
		_, err := clientFor(t, server, retries(2)).RequestToken(t.Context(), server.URL+"/token", emptyForm)
		e := requireError(t, err, Refused)
		require.Equal(t, 1, e.Attempts)
		require.Equal(t, c.keyRefused, e.KeyRefused, "%s", err)
		require.Contains(t, e.Meaning, c.meaning, "%s", err)
		require.Contains(t, e.Remedy, c.remedy, "%s", err)
		require.Equal(t, c.code, e.Code)
		require.Equal(t, c.words, e.Description)
		line := fmt.Sprintf("token request at %s/token: HTTP %d %s", server.URL, c.status, c.code)
		if c.words != "" {
			line += ": " + c.words
		}
		require.Equal(t, line, e.Error())
	}
}

func errorAnswer(code, description string) string {
	if description == "" {
		return fmt.Sprintf(`{"error":%q}`, code)
	}
	return fmt.Sprintf(`{"error":%q,"error_description":%q}`, code, description)
}

// Anything but the exact answer might be another server's, and must not make us sign with another key.
func TestOnlyAnExactAnswerRefusesAKey(t *testing.T) {
	t.Parallel()
	for name, handler := range map[string]http.HandlerFunc{
		"another status":        answers(403, `{"error":"invalid_client"}`),
		"a server error":        answers(500, `{"error":"invalid_client"}`),
		"another code":          answers(401, `{"error":"unauthorized_client"}`),
		"a miscased name":       answers(401, `{"Error":"invalid_client"}`),
		"a miscased code":       answers(401, `{"error":"Invalid_Client"}`),
		"a name twice":          answers(401, `{"error":"invalid_client","error":"invalid_client"}`),
		"an empty description":  answers(401, `{"error":"invalid_client","error_description":""}`),
		"description no string": answers(401, `{"error":"invalid_client","error_description":["Unable to load public key"]}`),
		"a bad algorithm":       answers(400, `{"error":"invalid_client","error_description":"Invalid signature algorithm"}`),
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
		require.False(t, e.KeyRefused, name)
	}
}

func TestStatusesWithoutWordsAreExplained(t *testing.T) {
	t.Parallel()
	for status, c := range map[int]struct {
		kind    Kind
		meaning string
	}{
		400: {Refused, ""},
		401: {Refused, "demands a login"},
		403: {Refused, "firewall"},
		404: {Refused, "no such realm"},
		405: {Refused, "takes no POST"},
		407: {Refused, "proxy"},
		408: {Unavailable, "in time"},
		413: {Refused, "too large"},
		429: {Unavailable, "how often"},
		451: {Refused, ""},
		500: {Unavailable, "failed while it answered"},
		502: {Unavailable, "cannot reach"},
		503: {Unavailable, "maintenance"},
		504: {Unavailable, "in vain"},
		599: {Unavailable, ""},
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
			require.Contains(t, e.Meaning, c.meaning)
			require.Contains(t, e.Error(), fmt.Sprintf("HTTP %d: the answer names no OAuth error code (it is text/html)", status))
			require.NotContains(t, e.Error(), "secret")
		}
	}
}

func TestClockErrorsMeasureTheDifference(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		ahead time.Duration // the provider's clock before ours
		date  bool
		says  string
	}{
		{90 * time.Second, true, "this Vault node's clock is 90 s behind the provider's"},
		{-90 * time.Second, true, "this Vault node's clock is 90 s ahead of the provider's"},
		{time.Second, true, "both clocks agree"},
		{0, false, "no Date header"},
	} {
		now := time.Date(2026, 1, 2, 3, 4, 5, 999, time.UTC)
		server := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Date"] = nil
			if c.date {
				w.Header().Set("Date", now.Add(c.ahead).Format(http.TimeFormat))
			}
			answers(400, errorAnswer("invalid_client", "Token is not active"))(w, r)
		})
		opts := quick
		opts.Now = func() time.Time { return now }
		_, err := newClient(t, configFor(server), opts).RequestToken(t.Context(), server.URL, emptyForm)
		e := requireError(t, err, Refused)
		require.Contains(t, e.Meaning, c.says)
		difference, known := e.ClockDifference()
		require.Equal(t, c.date, known)
		require.Equal(t, c.ahead, difference)
	}
}

func TestNetworkErrorsAreExplained(t *testing.T) {
	t.Parallel()
	trusting := serve(t, answers(200, validToken))
	closed := serve(t, nil)
	closed.Close()
	plain := httptest.NewServer(answers(200, validToken))
	t.Cleanup(plain.Close)
	for name, c := range map[string]struct {
		url    string
		ca     string
		says   string
		remedy string
	}{
		"unknown authority": {trusting.URL, "", "unknown authority", "ca_cert=@ca.pem"},
		"another host name": {"https://other.example.org" + portOf(trusting), certificateOf(trusting), "another host name", "issuer"},
		"expired":           serveExpired(t),
		"plain HTTP":        {strings.Replace(plain.URL, "http:", "https:", 1), "", "plain HTTP", "port"},
		"old TLS":           {serveOldTLS(t), certificateOf(trusting), "TLS handshake failed", "firewall"},
		"not HTTP":          {serveJunk(t), certificateOf(trusting), "not HTTP", "firewall"},
		"refused":           {closed.URL, "", "connection was refused", "firewall"},
		"no such host":      {"https://missing.example.org" + portOf(trusting), "", "does not exist", "issuer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := quick
			opts.resolver = resolverFor(map[string][]string{"other.example.org": {"127.0.0.1"}})
			host := strings.TrimPrefix(c.url, "https://")
			client := newClient(t, Config{AllowedHosts: []string{host}, CACert: c.ca, RequestTimeout: 5 * time.Second}, opts)
			_, tokenErr := client.RequestToken(t.Context(), c.url, emptyForm)
			_, connectErr := client.Connect(t.Context(), c.url)
			for _, err := range []error{tokenErr, connectErr} {
				e := requireError(t, err, Unavailable)
				require.Contains(t, e.Detail, c.says)
				require.Contains(t, e.Remedy, c.remedy)
				require.NotEmpty(t, e.Meaning)
				require.NotContains(t, e.Error(), "secret")
			}
		})
	}
}

func portOf(server *httptest.Server) string {
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	return ":" + port
}

// serveJunk answers over TLS, but not in HTTP.
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
	server := httptest.NewUnstartedServer(answers(200, validToken))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL
}

func serveExpired(t *testing.T) (c struct{ url, ca, says, remedy string }) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "expired"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	server := httptest.NewUnstartedServer(answers(200, validToken))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	c.url, c.says, c.remedy = server.URL, "has expired", "clock"
	c.ca = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return c
}

func TestDescriptionsAreSanitised(t *testing.T) {
	t.Parallel()
	jwt := unsignedJWT(`{"sub":"x"}`)
	for in, want := range map[string]string{
		"plain words":                     "plain words",
		"  two\r\nlines\t ":               "two  lines",
		"a\x00b\x1b[31m\u202ec\u200b":     "ab[31mc",
		"token " + jwt + " is bad":        "token [redacted]",
		"token e\x00yJhbGciOi.e30.x":      "token [redacted]",
		"key " + strings.Repeat("A", 61):  "key [redacted]",
		strings.Repeat("A", 61) + " key":  "[redacted] key",
		strings.Repeat("A", 60):           strings.Repeat("A", 60),
		strings.Repeat("é ", 200):         strings.Repeat("é ", 127) + "é…",
		"bad \xff bytes":                  "bad \ufffd bytes",
		"https://idp.example.com/auth/x?": "https://idp.example.com/auth/x?",
	} {
		got := sanitise(in)
		require.Equal(t, want, got)
		require.LessOrEqual(t, len([]rune(got)), maxDescription)
	}
	require.Equal(t, "invalid_client", sanitiseCode("invalid\"_\\client\n"))
	require.Len(t, sanitiseCode(strings.Repeat("ab ", 100)), maxCode)
	require.Equal(t, redacted, sanitiseCode(jwt))
}

// Only these words are replaced by the caller, each meaning and remedy is one line, and each row can be reached.
func TestTheTableIsWellFormed(t *testing.T) {
	t.Parallel()
	placeholder := regexp.MustCompile(`\{[^}]*\}`)
	for i, d := range diagnoses() {
		require.NotEmpty(t, d.meaning)
		require.NotEmpty(t, d.remedy)
		for _, text := range []string{d.meaning, d.remedy} {
			require.True(t, strings.HasSuffix(text, ".") || strings.HasSuffix(text, ")."), text)
			require.NotContains(t, text, "\n")
			for _, name := range placeholder.FindAllString(text, -1) {
				require.Contains(t, []string{"{mount}", "{key}", "{role}", "{register}", "{clock}"}, name)
			}
		}
		e := &Error{Status: d.status, Code: d.code, Description: d.text, Operation: d.op}
		for j, earlier := range diagnoses()[:i] {
			require.False(t, earlier.fits(d.fault, e), "row %d hides row %d: %s", j, i, d.meaning)
		}
	}
}
