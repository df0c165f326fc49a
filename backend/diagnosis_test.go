package backend

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

func keyNamedK(t *testing.T) *keyring.Key {
	t.Helper()
	material, err := keyring.Generate(keyring.ED25519)
	require.NoError(t, err)
	key, err := keyring.New(material, "k", defaultKeySettings("k", keyring.ED25519), time.Now())
	require.NoError(t, err)
	return key
}

func adviceOn(t *testing.T, reason tokenendpoint.Reason) string {
	t.Helper()
	return advice(&tokenendpoint.Error{Reason: reason}, "m/", keyNamedK(t), "r")
}

func TestDiagnosis_SaysMeaningAndRemedy(t *testing.T) {
	t.Parallel()
	for reason, c := range map[tokenendpoint.Reason]struct{ meaning, remedy string }{
		tokenendpoint.UnknownKey:             {"has no public key", "portal"},
		tokenendpoint.InvalidSignature:       {"a different public key", "portal"},
		tokenendpoint.ClientRejected:         {"did not accept the client's authentication", "public_key"},
		tokenendpoint.UnusableKeys:           {"a certificate, a private key or a damaged PEM", "JWKS URL"},
		tokenendpoint.AssertionMissing:       {"a proxy changed the form", "maintainers"},
		tokenendpoint.ClientIDMismatch:       {"not the assertion's subject", "maintainers"},
		tokenendpoint.UnknownClient:          {"The API's owner has probably not approved the access yet", "approve the access request"},
		tokenendpoint.SecretClient:           {"with a secret", "signed JWT"},
		tokenendpoint.WrongAlgorithm:         {"a different signature algorithm", "algorithm=<algorithm>"},
		tokenendpoint.WrongAudience:          {"trailing slash", "issuer=<issuer>"},
		tokenendpoint.MultipleAudiences:      {"more than one audience", "audience"},
		tokenendpoint.NotActive:              {"clocks", "NTP"},
		tokenendpoint.IssuedInFuture:         {"clocks", "NTP"},
		tokenendpoint.IssuedTooLongAgo:       {"clocks", "NTP"},
		tokenendpoint.IssuedAtMissing:        {"no `iat`", "maintainers"},
		tokenendpoint.ClaimMissing:           {"always sent", "maintainers"},
		tokenendpoint.Replayed:               {"repeats requests", "Turn off retries"},
		tokenendpoint.ClientSetupIncomplete:  {"not completely set up", "operators"},
		tokenendpoint.ClientCheckFailed:      {"failed while it authenticated", "operators"},
		tokenendpoint.NoServiceAccount:       {"service account is disabled", "API's owner"},
		tokenendpoint.PublicClient:           {"public client", "API's owner"},
		tokenendpoint.BearerOnlyClient:       {"bearer-only", "API's owner"},
		tokenendpoint.ServiceAccountMissing:  {"deleted", "API's owner"},
		tokenendpoint.ServiceAccountDisabled: {"disabled", "API's owner"},
		tokenendpoint.InvalidScope:           {"scope", "m/roles/r"},
		tokenendpoint.DuplicateParameter:     {"parameter twice", "m/roles/r"},
		tokenendpoint.InvalidRequest:         {"does not understand", "m/roles/r"},
		tokenendpoint.InvalidTarget:          {"RFC 8707", "m/roles/r"},
		tokenendpoint.UnsupportedGrantType:   {"client credentials grant", "API's owner"},
		tokenendpoint.UnauthorizedClient:     {"client credentials grant", "API's owner"},
		tokenendpoint.DPoPRequired:           {"RFC 9449", "Bearer"},
		tokenendpoint.InvalidClient:          {"did not accept the client's authentication", "public_key"},
		tokenendpoint.NoSuchEndpoint:         {"No such realm", "issuer"},
		tokenendpoint.Unauthorized:           {"requires authentication", "portal"},
		tokenendpoint.Forbidden:              {"firewall", "operators"},
		tokenendpoint.NoSuchIssuer:           {"the issuer is wrong", "issuer"},
		tokenendpoint.MethodNotAllowed:       {"does not accept POST", "token_endpoint"},
		tokenendpoint.ProxyUnauthorized:      {"forward proxy", "HTTPS_PROXY"},
		tokenendpoint.ProxyAuthentication:    {"forward proxy", "HTTPS_PROXY"},
		tokenendpoint.ProxyRejected:          {"forward proxy", "operators"},
		tokenendpoint.RequestTimeout:         {"in time", "Read again"},
		tokenendpoint.RequestTooLarge:        {"too large", "m/roles/r"},
		tokenendpoint.RateLimited:            {"limits the request rate", "Read less often"},
		tokenendpoint.InternalServerError:    {"failed while processing the request", "Read again"},
		tokenendpoint.BadGateway:             {"cannot reach", "Read again"},
		tokenendpoint.ServiceUnavailable:     {"unavailable", "Read again"},
		tokenendpoint.GatewayTimeout:         {"timed out", "Read again"},
		tokenendpoint.UnknownAuthority:       {"private authority", "ca_cert=@ca.pem"},
		tokenendpoint.WrongHostName:          {"A different server", "issuer"},
		tokenendpoint.CertificateExpired:     {"renewed", "clock"},
		tokenendpoint.PlainHTTP:              {"plain HTTP", "port"},
		tokenendpoint.HandshakeFailed:        {"TLS 1.2", "firewall"},
		tokenendpoint.NetworkFailure:         {"web server", "firewall"},
		tokenendpoint.ConnectionRefused:      {"Nothing listens", "firewall"},
		tokenendpoint.NoSuchHost:             {"misspelled", "issuer"},
		tokenendpoint.Timeout:                {"slow", "request_timeout"},
		tokenendpoint.NoConnection:           {"firewall", "firewall"},
		tokenendpoint.Redirected:             {"not the endpoint itself", "URL"},
		tokenendpoint.NotJSON:                {"URL is probably wrong", "m/check/r"},
		tokenendpoint.HostNotListed:          {"Nothing was sent", "m/config allowed_hosts="},
		tokenendpoint.URLNotAllowed:          {"Nothing was sent", "m/keys/k"},
		tokenendpoint.OtherIssuer:            {"not written exactly", "issuer=<issuer>"},
		tokenendpoint.TokenExpired:           {"clocks", "NTP"},
	} {
		found := diagnose(reason)
		require.Contains(t, found.meaning, c.meaning, reason)
		before, _, _ := strings.Cut(found.meaning, "{clock}")
		require.True(t, strings.HasPrefix(adviceOn(t, reason), before), reason)
		require.Contains(t, adviceOn(t, reason), c.remedy, reason)
	}
}

// Only listing the host helps against an unlisted one, and nothing is suggested that cannot help.
func TestDiagnosis_SuggestsListingWhereItHelps(t *testing.T) {
	t.Parallel()
	require.Contains(t, adviceOn(t, tokenendpoint.HostNotListed), "allowed_hosts")
	require.NotContains(t, adviceOn(t, tokenendpoint.URLNotAllowed), "allowed_hosts")
}

func TestDiagnosis_MeasuresTheClocks(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 999, time.UTC)
	for _, c := range []struct {
		ahead time.Duration // the provider's clock before ours
		date  bool
		text  string
	}{
		{90 * time.Second, true, "this Vault node's clock is 1m30s behind the provider's"},
		{-90 * time.Second, true, "this Vault node's clock is 1m30s ahead of the provider's"},
		{time.Second, true, "the clocks agree to within 2s"},
		{0, false, "no Date header"},
	} {
		failure := &tokenendpoint.Error{Reason: tokenendpoint.NotActive, LocalTime: now}
		if c.date {
			failure.ServerTime = now.Truncate(time.Second).Add(c.ahead)
		}
		require.Contains(t, advice(failure, "m/", keyNamedK(t), "r"), c.text)
	}
}

// reasons returns the constants of tokenendpoint/reason.go.
func reasons(t *testing.T) []tokenendpoint.Reason {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "internal/tokenendpoint/reason.go", nil, 0)
	require.NoError(t, err)
	var found []tokenendpoint.Reason
	ast.Inspect(file, func(node ast.Node) bool {
		spec, isValue := node.(*ast.ValueSpec)
		if !isValue {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Reason" {
			text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			require.NoError(t, err)
			found = append(found, tokenendpoint.Reason(text))
		}
		return true
	})
	require.Greater(t, len(found), 60)
	return found
}

// A canceled request has no reader, and other statuses have no more meaning than their number.
func TestDiagnosis_CoversEveryReason(t *testing.T) {
	t.Parallel()
	rows := map[tokenendpoint.Reason]int{tokenendpoint.Canceled: 1, tokenendpoint.ClientError: 1, tokenendpoint.ServerError: 1}
	for _, row := range diagnoses() {
		rows[row.reason]++
	}
	for _, reason := range reasons(t) {
		require.Equal(t, 1, rows[reason], reason)
		delete(rows, reason)
	}
	require.Empty(t, rows)
}

// Only these words are replaced, and each meaning and remedy is one line of sentences.
func TestDiagnosis_TableIsWellFormed(t *testing.T) {
	t.Parallel()
	placeholder := regexp.MustCompile(`\{[^}]*\}`)
	for _, d := range diagnoses() {
		for _, text := range []string{d.meaning, d.remedy} {
			require.NotEmpty(t, text, d.reason)
			require.True(t, strings.HasSuffix(text, ".") || strings.HasSuffix(text, ")."), text)
			require.NotContains(t, text, "\n")
			for _, name := range placeholder.FindAllString(text, -1) {
				require.Contains(t, []string{"{mount}", "{key}", "{role}", "{register}", "{clock}"}, name)
			}
		}
		require.NotRegexp(t, placeholder, adviceOn(t, d.reason))
	}
}

func TestProviderError_StatusSaysWhoCanFixIt(t *testing.T) {
	t.Parallel()
	for reason, status := range map[tokenendpoint.Reason]int{
		tokenendpoint.NoSuchEndpoint: 400, tokenendpoint.URLNotAllowed: 400, tokenendpoint.ConnectionClosed: 502,
		tokenendpoint.InvalidResponse: 502, tokenendpoint.Timeout: 504, tokenendpoint.Canceled: 504,
	} {
		failure := &tokenendpoint.Error{
			Reason: reason, Operation: tokenendpoint.OpToken, URL: "https://idp.example/token", Detail: "went wrong",
		}
		err := providerError(fmt.Errorf("wrapped: %w", failure), "m/", keyNamedK(t), "r")
		want := strings.TrimSpace("wrapped: token request at https://idp.example/token: went wrong. " + adviceOn(t, reason))
		require.Equal(t, want, err.Error())
		resp, mapped := vaultError(nil, err)
		if status == http.StatusBadRequest {
			require.NoError(t, mapped)
			require.Equal(t, want, resp.Error().Error())
			continue
		}
		require.Equal(t, status, mapped.(logical.HTTPCodedError).Code(), "%s", reason) //nolint:errorlint,forcetypeassert // only a bare one keeps its code
	}
	plain := errors.New("plain")
	require.Equal(t, plain, providerError(plain, "m/", keyNamedK(t), "r"))
}

func TestProviderError_WithoutAdviceIsOneSentence(t *testing.T) {
	t.Parallel()
	failure := &tokenendpoint.Error{Reason: tokenendpoint.ClientError, Operation: tokenendpoint.OpToken, URL: "https://idp.example/", Detail: "x"}
	require.EqualError(t, providerError(failure, "m/", keyNamedK(t), "r"), "token request at https://idp.example/: x.")
}

// A block that is not three lines would be skipped.
func TestDiagnosis_EveryBlockOfTheFileIsRead(t *testing.T) {
	t.Parallel()
	for block := range strings.SplitSeq(strings.TrimSpace(diagnosisText), "\n\n") {
		require.True(t, strings.HasPrefix(block, "#") || strings.Count(block, "\n") == 2, block)
	}
	require.NotContains(t, diagnosisText, "\n\n\n")
}
