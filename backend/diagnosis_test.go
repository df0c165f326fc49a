package backend

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

const portalIssuer = "https://dev.loginproxy.gov.bc.ca/auth/realms/apigw"

// situationOf is of a key named k that is registered at an issuer, with a role named r.
func situationOf(t *testing.T, keyType keyring.Type, issuer string) *situation {
	t.Helper()
	material, err := keyring.Generate(keyType)
	require.NoError(t, err)
	settings := defaultKeySettings("k", keyType)
	settings.ClientID, settings.Issuer = "my-client", issuer
	key, err := keyring.New(material, "k", settings, time.Now())
	require.NoError(t, err)
	return &situation{mount: "m/", role: "r", key: key}
}

func keyNamedK(t *testing.T) *keyring.Key {
	t.Helper()
	return situationOf(t, keyring.ED25519, "").key
}

func adviceOn(t *testing.T, reason tokenendpoint.Reason) string {
	t.Helper()
	return situationOf(t, keyring.ED25519, portalIssuer).advice(&tokenendpoint.Error{Reason: reason})
}

func TestDiagnosis_SaysMeaningAndRemedy(t *testing.T) {
	t.Parallel()
	for reason, c := range map[tokenendpoint.Reason]struct{ meaning, remedy string }{
		tokenendpoint.UnknownKey:                         {"has no public key", "Portal"},
		tokenendpoint.InvalidSignature:                   {"a different public key", "Portal"},
		tokenendpoint.UnusableKeys:                       {"a certificate, a private key or a damaged PEM", "JWKS URL"},
		tokenendpoint.Reason("assertion_missing"):        {"a proxy changed the form", "maintainers"},
		tokenendpoint.Reason("client_id_mismatch"):       {"not the assertion's subject", "maintainers"},
		tokenendpoint.UnknownClient:                      {"The provider does not know client_id", "approve the access request"},
		tokenendpoint.SecretClient:                       {"with a secret", "signed JWT"},
		tokenendpoint.WrongAlgorithm:                     {"a different signature algorithm", "Register the client for EdDSA"},
		tokenendpoint.Reason("wrong_audience"):           {"audience", "trailing slash"},
		tokenendpoint.Reason("multiple_audiences"):       {"more than one audience", "audience"},
		tokenendpoint.Reason("not_active"):               {"clocks", "NTP"},
		tokenendpoint.Reason("issued_in_future"):         {"clocks", "NTP"},
		tokenendpoint.Reason("issued_too_long_ago"):      {"clocks", "NTP"},
		tokenendpoint.Reason("issued_at_missing"):        {"no `iat`", "maintainers"},
		tokenendpoint.Reason("claim_missing"):            {"always sent", "maintainers"},
		tokenendpoint.Reason("replayed"):                 {"repeats requests", "Turn off retries"},
		tokenendpoint.Reason("client_setup_incomplete"):  {"not completely set up", "operators"},
		tokenendpoint.Reason("client_check_failed"):      {"failed while it authenticated", "operators"},
		tokenendpoint.Reason("no_service_account"):       {"service account is disabled", "API's owner"},
		tokenendpoint.Reason("public_client"):            {"public client", "API's owner"},
		tokenendpoint.Reason("bearer_only_client"):       {"bearer-only", "API's owner"},
		tokenendpoint.Reason("service_account_missing"):  {"deleted", "API's owner"},
		tokenendpoint.Reason("service_account_disabled"): {"disabled", "API's owner"},
		tokenendpoint.Reason("invalid_scope"):            {"scope", "m/roles/r"},
		tokenendpoint.Reason("duplicate_parameter"):      {"parameter twice", "m/roles/r"},
		tokenendpoint.Reason("invalid_request"):          {"does not understand", "m/roles/r"},
		tokenendpoint.Reason("invalid_target"):           {"RFC 8707", "m/roles/r"},
		tokenendpoint.Reason("unsupported_grant_type"):   {"client credentials grant", "API's owner"},
		tokenendpoint.Reason("unauthorized_client"):      {"client credentials grant", "API's owner"},
		tokenendpoint.DPoPRequired:                       {"RFC 9449", "Bearer"},
		tokenendpoint.InvalidClient:                      {"did not accept the client's authentication", "public_key"},
		tokenendpoint.MethodNotOffered:                   {"does not list private_key_jwt", "the API's owner"},
		tokenendpoint.AlgorithmNotOffered:                {"does not list the key's algorithm", "a different type"},
		tokenendpoint.Reason("no_such_endpoint"):         {"No such realm", "issuer"},
		tokenendpoint.Reason("unauthorized"):             {"requires authentication", "Portal"},
		tokenendpoint.Reason("forbidden"):                {"firewall", "operators"},
		tokenendpoint.NoSuchIssuer:                       {"the issuer is wrong", "issuer"},
		tokenendpoint.Reason("method_not_allowed"):       {"does not accept POST", "token_endpoint"},
		tokenendpoint.Reason("proxy_unauthorized"):       {"forward proxy", "HTTPS_PROXY"},
		tokenendpoint.ProxyAuthentication:                {"forward proxy", "HTTPS_PROXY"},
		tokenendpoint.ProxyRejected:                      {"forward proxy", "operators"},
		tokenendpoint.RequestTimeout:                     {"in time", "Read again"},
		tokenendpoint.Reason("request_too_large"):        {"too large", "m/roles/r"},
		tokenendpoint.Reason("rate_limited"):             {"limits the request rate", "Read less often"},
		tokenendpoint.InternalServerError:                {"failed while processing the request", "Read again"},
		tokenendpoint.UnrecognizableError:                {"Ory Hydra", "NTP"},
		tokenendpoint.Reason("bad_gateway"):              {"cannot reach", "Read again"},
		tokenendpoint.Reason("service_unavailable"):      {"unavailable", "Read again"},
		tokenendpoint.Reason("gateway_timeout"):          {"timed out", "Read again"},
		tokenendpoint.UnknownAuthority:                   {"private authority", "ca_cert=@ca.pem"},
		tokenendpoint.WrongHostName:                      {"A different server", "issuer"},
		tokenendpoint.CertificateExpired:                 {"renewed", "clock"},
		tokenendpoint.PlainHTTP:                          {"plain HTTP", "port"},
		tokenendpoint.HandshakeFailed:                    {"TLS 1.2", "firewall"},
		tokenendpoint.NetworkFailure:                     {"web server", "firewall"},
		tokenendpoint.ConnectionRefused:                  {"Nothing listens", "firewall"},
		tokenendpoint.NoSuchHost:                         {"misspelled", "issuer"},
		tokenendpoint.Timeout:                            {"slow", "request_timeout"},
		tokenendpoint.NoConnection:                       {"firewall", "firewall"},
		tokenendpoint.Redirected:                         {"not the endpoint itself", "URL"},
		tokenendpoint.NotJSON:                            {"URL is probably wrong", "m/check/r"},
		tokenendpoint.HostNotListed:                      {"Nothing was sent", "m/config allowed_hosts="},
		tokenendpoint.URLNotAllowed:                      {"Nothing was sent", "m/keys/k"},
		tokenendpoint.OtherIssuer:                        {"not written exactly", "issuer=<issuer>"},
		tokenendpoint.TokenExpired:                       {"clocks", "NTP"},
	} {
		require.Contains(t, diagnose(reason, false).meaning, c.meaning, reason)
		found := diagnose(reason, true)
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
		failure := &tokenendpoint.Error{Reason: tokenendpoint.Reason("not_active"), LocalTime: now}
		if c.date {
			failure.ServerTime = now.Truncate(time.Second).Add(c.ahead)
		}
		require.Contains(t, situationOf(t, keyring.ED25519, portalIssuer).advice(failure), c.text)
	}
}

// reasons returns those of package tokenendpoint's table.
func reasons(t *testing.T) []tokenendpoint.Reason {
	t.Helper()
	table, err := os.ReadFile(filepath.Join("internal", "tokenendpoint", "reasons.txt"))
	require.NoError(t, err)
	var found []tokenendpoint.Reason
	for line := range strings.Lines(string(table)) {
		if words := strings.Fields(line); len(words) > 0 && words[0] != "#" {
			found = append(found, tokenendpoint.Reason(words[0]))
		}
	}
	require.Greater(t, len(found), 60)
	return found
}

// A canceled request has no reader, and other statuses have no more meaning than their number.
func TestDiagnosis_CoversEveryReason(t *testing.T) {
	t.Parallel()
	rows := map[string]int{"canceled": 1, "client_error": 1, "server_error": 1}
	for _, row := range diagnoses() {
		rows[row.name]++
	}
	for _, reason := range reasons(t) {
		require.Equal(t, 1, rows[string(reason)], reason)
		delete(rows, string(reason))
		delete(rows, "portal:"+string(reason))
	}
	require.Empty(t, rows)
}

// Only these words are replaced, and each meaning and remedy is one line of sentences.
func TestDiagnosis_TableIsWellFormed(t *testing.T) {
	t.Parallel()
	placeholder := regexp.MustCompile(`\{[^}]*\}`)
	for _, d := range diagnoses() {
		for _, text := range []string{d.meaning, d.remedy} {
			require.NotEmpty(t, text, d.name)
			require.True(t, strings.HasSuffix(text, "."), text)
			require.NotContains(t, text, "\n")
		}
		require.NotRegexp(t, placeholder, adviceOn(t, tokenendpoint.Reason(d.name)))
	}
}

// The portal's words are for its issuers alone: elsewhere nobody knows it.
func TestDiagnosis_NamesThePortalForItsIssuersOnly(t *testing.T) {
	t.Parallel()
	for issuer, portal := range map[string]bool{
		portalIssuer: true,
		"https://loginproxy.gov.bc.ca/auth/realms/apigw":      true,
		"https://TEST.LoginProxy.gov.bc.ca/auth/realms/apigw": true,
		"https://idp.example/realms/apigw":                    false,
		"https://loginproxy.gov.bc.ca.example/realms/apigw":   false,
		"https://notloginproxy.gov.bc.ca/realms/apigw":        false,
		"https://idp.example/loginproxy.gov.bc.ca":            false,
	} {
		s := situationOf(t, keyring.ED25519, issuer)
		texts := ""
		for _, reason := range reasons(t) {
			texts += s.advice(&tokenendpoint.Error{Reason: reason}) + "\n"
		}
		require.Equal(t, portal, strings.Contains(texts, "ortal"), issuer)
		require.Equal(t, portal, strings.Contains(texts, "API's owner"), issuer)
		require.Equal(t, !portal, strings.Contains(texts, "the provider's operators to enable"), issuer)
	}
}

// A provider that says the same of every cause: discovery and the clock narrow the candidates down.
func TestDiagnosis_CandidatesAreNarrowedByDiscoveryAndClock(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	advice := func(keyType keyring.Type, ahead time.Duration, metadata tokenendpoint.Metadata) string {
		s := situationOf(t, keyType, "https://idp.example")
		s.metadata = metadata
		failure := &tokenendpoint.Error{Reason: tokenendpoint.InvalidClient, LocalTime: now}
		if ahead != 0 {
			failure.ServerTime = now.Add(ahead)
		}
		return s.advice(failure)
	}
	everything := advice(keyring.RSA2048, 0, tokenendpoint.Metadata{})
	require.Regexp(t, `\(1\) the public key\..*\(2\) client_id.*\(3\) the audience.*`+
		`audience=<token endpoint> token_endpoint=<token endpoint>.*\(4\) the algorithm.*\(5\) the clocks: .*no Date header`, everything)

	known := tokenendpoint.Metadata{
		TokenEndpoint: "https://idp.example/token", Algorithms: []string{"PS256", "RS256"}, AuthMethods: []string{"none", "private_key_jwt"},
	}
	narrowed := advice(keyring.RSA2048, time.Second, known)
	require.Contains(t, narrowed, "`vault write m/keys/k audience=https://idp.example/token token_endpoint=https://idp.example/token`")
	require.Contains(t, narrowed, "(4) the algorithm. Set the one that the client is registered for: `vault write m/keys/k algorithm=", "which may be one of those that the provider lists")
	require.NotContains(t, narrowed, "clocks")
	require.Contains(t, advice(keyring.RSA2048, 30*time.Second, known), "(1) the clocks: by its Date header this Vault node's clock is 30s behind")
	require.Contains(t, advice(keyring.RSA2048, -30*time.Second, known), "(1) the clocks: by its Date header this Vault node's clock is 30s ahead")
	require.Regexp(t, `\(5\) the clocks: .*10s behind`, advice(keyring.RSA2048, 10*time.Second, known))

	internal := situationOf(t, keyring.RSA2048, "https://idp.example")
	internal.metadata = known
	settings := internal.key.Settings()
	settings.TokenEndpoint, settings.Audience = "https://internal.example/token", "https://internal.example/token"
	var err error
	internal.key, err = internal.key.WithSettings(settings)
	require.NoError(t, err)
	wrong := &tokenendpoint.Error{Reason: tokenendpoint.Reason("wrong_audience")}
	require.Contains(t, internal.advice(wrong), "`vault write m/keys/k audience=https://idp.example/token`", "as discovered, not as written")
	internal.metadata.TokenEndpoint = settings.TokenEndpoint
	require.NotContains(t, internal.advice(wrong), "audience=https", "it is that already")
	internal.metadata.TokenEndpoint = "https://idp.example/token$(reboot)"
	require.Contains(t, internal.advice(wrong), "audience=<token endpoint>", "nothing for a shell")

	known.Algorithms = []string{"PS256", "PS384", "ES256"}
	require.Contains(t, advice(keyring.RSA2048, time.Second, known), "Set one of PS256, PS384: `vault write m/keys/k algorithm=PS256`.")
	require.Contains(t, advice(keyring.ED25519, time.Second, known), "It lists none for a key of type ed25519")
	known.AuthMethods = []string{"client_secret_basic"}
	require.Contains(t, advice(keyring.RSA2048, time.Second, known), "does not list private_key_jwt")
}

// The hint of check does not send its reader back to check.
func TestDiagnosis_CheckIsSuggestedElsewhereOnly(t *testing.T) {
	t.Parallel()
	s := situationOf(t, keyring.ED25519, portalIssuer)
	require.Contains(t, s.advice(&tokenendpoint.Error{Reason: tokenendpoint.NotJSON}), "vault read m/check/r")
	s.checking = true
	for _, reason := range reasons(t) {
		require.NotContains(t, s.advice(&tokenendpoint.Error{Reason: reason}), "m/check/")
	}
}

func TestProviderError_StatusSaysWhoCanFixIt(t *testing.T) {
	t.Parallel()
	for reason, status := range map[tokenendpoint.Reason]int{
		tokenendpoint.Reason("no_such_endpoint"): 400, tokenendpoint.URLNotAllowed: 400, tokenendpoint.ConnectionClosed: 502,
		tokenendpoint.InvalidResponse: 502, tokenendpoint.Timeout: 504, tokenendpoint.Canceled: 504,
	} {
		failure := &tokenendpoint.Error{
			Reason: reason, Operation: tokenendpoint.OpToken, URL: "https://idp.example/token", Detail: "went wrong",
		}
		err := providerError(fmt.Errorf("wrapped: %w", failure), situationOf(t, keyring.ED25519, portalIssuer))
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
	require.Equal(t, plain, providerError(plain, situationOf(t, keyring.ED25519, portalIssuer)))
}

func TestProviderError_WithoutAdviceIsOneSentence(t *testing.T) {
	t.Parallel()
	failure := &tokenendpoint.Error{Reason: tokenendpoint.ClientError, Operation: tokenendpoint.OpToken, URL: "https://idp.example/", Detail: "x"}
	require.EqualError(t, providerError(failure, situationOf(t, keyring.ED25519, portalIssuer)), "token request at https://idp.example/: x.")
}

// A block that is not three lines would be skipped.
func TestDiagnosis_EveryBlockOfTheFileIsRead(t *testing.T) {
	t.Parallel()
	for block := range strings.SplitSeq(strings.TrimSpace(textOf("diagnosis")), "\n\n") {
		require.True(t, strings.HasPrefix(block, "#") || strings.Count(block, "\n") == 2, block)
	}
	require.NotContains(t, textOf("diagnosis"), "\n\n\n")
}
