package tokenendpoint

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/stretchr/testify/require"
)

const validToken = `{"access_token":"opaque-token","token_type":"Bearer","expires_in":300}`

// unsignedJWT has the form of a JWT, which is all that is checked.
func unsignedJWT(claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256"}`)) + "." + encode([]byte(claims)) + ".c2lnbmF0dXJl"
}

func TestRequestToken_SendsFormVerbatim(t *testing.T) {
	t.Parallel()
	sent := url.Values{"grant_type": {"client_credentials"}, "resource": {"a b", "c&d"}, "scope": {"é"}}
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.Header.Get("Accept") != "application/json" || r.Header.Get("User-Agent") != "test/1" ||
			r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" || r.Header.Get("Cookie") != "" ||
			r.ParseForm() != nil || r.PostForm.Encode() != sent.Encode() || r.ContentLength != int64(len(sent.Encode())) {
			w.WriteHeader(http.StatusTeapot)
			return
		}
		w.Header().Set("Set-Cookie", "a=b")
		jsonHandler(http.StatusOK, validToken)(w, r)
	})
	client := clientFor(t, server)
	for range 2 { // the second would send the cookie
		_, err := client.RequestToken(t.Context(), server.URL+"/token", func() (url.Values, error) { return sent, nil })
		require.NoError(t, err)
	}
}

func TestRequestToken_AcceptsValidResponses(t *testing.T) {
	t.Parallel()
	now := time.Now()
	in := func(d time.Duration) int64 { return now.Add(d).Unix() }
	for name, c := range map[string]struct {
		body string
		want Token
	}{
		"plain":                     {validToken, Token{AccessToken: "opaque-token", Lifetime: 300 * time.Second}},
		"bearer in lower case":      {`{"access_token":"a","token_type":"bearer","expires_in":1}`, Token{AccessToken: "a", Lifetime: time.Second}},
		"a string of digits":        {`{"access_token":"a","token_type":"BEARER","expires_in":"3600"}`, Token{AccessToken: "a", Lifetime: time.Hour}},
		"more than a day":           {`{"access_token":"a","token_type":"Bearer","expires_in":86401}`, Token{AccessToken: "a", Lifetime: 24 * time.Hour}},
		"more than a duration":      {`{"access_token":"a","token_type":"Bearer","expires_in":9223372036854775807}`, Token{AccessToken: "a", Lifetime: 24 * time.Hour}},
		"scope":                     {`{"access_token":"a","token_type":"Bearer","expires_in":60,"scope":"x y"}`, Token{AccessToken: "a", Lifetime: time.Minute, Scope: "x y", HasScope: true}},
		"empty scope":               {`{"access_token":"a","token_type":"Bearer","expires_in":60,"scope":""}`, Token{AccessToken: "a", Lifetime: time.Minute, HasScope: true}},
		"null is absent":            {`{"access_token":"a","token_type":"Bearer","expires_in":60,"scope":null,"error":null}`, Token{AccessToken: "a", Lifetime: time.Minute}},
		"other members are ignored": {`{"access_token":"a","token_type":"Bearer","expires_in":60,"refresh_token":7,"id_token":"b","Expires_In":5,"nested":{"expires_in":1,"expires_in":2}}`, Token{AccessToken: "a", Lifetime: time.Minute}},
		"escaped names":             {`{"access\u005ftoken":"a","token_type":"Bearer","expires_in":60}`, Token{AccessToken: "a", Lifetime: time.Minute}},
		"jti of a JWT":              {fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":60}`, unsignedJWT(`{"jti":"abc-1"}`)), Token{AccessToken: unsignedJWT(`{"jti":"abc-1"}`), Lifetime: time.Minute, JTI: "abc-1"}},
		"jti that is not a string":  {fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":60}`, unsignedJWT(`{"jti":1}`)), Token{AccessToken: unsignedJWT(`{"jti":1}`), Lifetime: time.Minute}},
		"jti with control chars":    {fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":60}`, unsignedJWT(`{"jti":"a\nb"}`)), Token{AccessToken: unsignedJWT(`{"jti":"a\nb"}`), Lifetime: time.Minute}},
		"lifetime from iat to exp":  {fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer"}`, unsignedJWT(fmt.Sprintf(`{"iat":%d,"exp":%d}`, in(time.Hour), in(time.Hour+time.Minute)))), Token{Lifetime: time.Minute}},
		"the shortest lifetime":     {fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer"}`, unsignedJWT(fmt.Sprintf(`{"iat":%d,"exp":%d}`, in(time.Hour), in(time.Hour+time.Second)))), Token{Lifetime: time.Second}},
		"a long lifetime from exp":  {fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer"}`, unsignedJWT(fmt.Sprintf(`{"exp":%d}`, in(48*time.Hour)))), Token{Lifetime: 24 * time.Hour}},
		"an enormous exp":           {fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer"}`, unsignedJWT(`{"exp":1e300}`)), Token{Lifetime: 24 * time.Hour}},
		"null expires_in is absent": {fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":null}`, unsignedJWT(`{"exp":1e300}`)), Token{Lifetime: 24 * time.Hour}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, jsonHandler(http.StatusOK, c.body))
			before := time.Now()
			got, err := clientFor(t, server).RequestToken(t.Context(), server.URL, emptyForm)
			require.NoError(t, err)
			require.Equal(t, "Bearer", got.Type)
			require.WithinRange(t, got.RequestedAt, before, time.Now())
			if c.want.AccessToken != "" {
				require.Equal(t, c.want.AccessToken, got.AccessToken)
			}
			require.Equal(t, c.want.Lifetime, got.Lifetime)
			require.Equal(t, c.want.JTI, got.JTI)
			require.Equal(t, c.want.Scope, got.Scope)
			require.Equal(t, c.want.HasScope, got.HasScope)
		})
	}
}

func TestRequestToken_ReadsClaimsOfJWT(t *testing.T) {
	t.Parallel()
	jti := strings.Repeat("x", 257)
	for token, want := range map[string]Token{
		"opaque":                                   {},
		"a.b.c":                                    {},
		unsignedJWT(`[]`):                          {},
		unsignedJWT(`{}`):                          {IsJWT: true},
		unsignedJWT(`{"exp":1700000000}`):          {IsJWT: true, Expiry: time.Unix(1700000000, 0)},
		unsignedJWT(`{"exp":1700000000.9}`):        {IsJWT: true, Expiry: time.Unix(1700000000, 0)},
		unsignedJWT(`{"exp":"1700000000"}`):        {IsJWT: true},
		unsignedJWT(`{"exp":1099511627775}`):       {IsJWT: true, Expiry: time.Unix(1<<40-1, 0)},
		unsignedJWT(`{"exp":1099511627776}`):       {IsJWT: true}, // beyond what time formats
		unsignedJWT(`{"exp":-1099511627776}`):      {IsJWT: true},
		unsignedJWT(`{"jti":"` + jti[:256] + `"}`): {IsJWT: true, JTI: jti[:256]},
		unsignedJWT(`{"jti":"` + jti + `"}`):       {IsJWT: true},
		unsignedJWT(`{"jti":"a b"}`):               {IsJWT: true},
	} {
		members, err := parseObject([]byte(`{"access_token":"` + token + `","token_type":"Bearer","expires_in":60}`))
		require.NoError(t, err)
		got, err := parseToken(members, &response{})
		require.NoError(t, err)
		require.Equal(t, want.IsJWT, got.IsJWT, token)
		require.Equal(t, want.Expiry, got.Expiry, token)
		require.Equal(t, want.JTI, got.JTI, token)
	}
}

func TestRequestToken_RejectsMalformedResponses(t *testing.T) {
	t.Parallel()
	unsized := func(token string) string { return `{"access_token":"` + token + `","token_type":"Bearer"}` }
	valid := func(member string) string {
		return `{"access_token":"opaque-token","token_type":"Bearer",` + member + `}`
	}
	expires := "`expires_in` is not a positive whole number"
	expired := unsignedJWT(fmt.Sprintf(`{"exp":%d}`, time.Now().Add(-time.Minute).Unix()))
	for body, says := range map[string]string{
		``:                          "not valid JSON",
		`[]`:                        "not a JSON object",
		`"opaque-token"`:            "not a JSON object",
		`null`:                      "not a JSON object",
		`{`:                         "not valid JSON",
		`{"access_token":}`:         "not valid JSON",
		`{"access_token" "a"}`:      "not valid JSON",
		validToken + `{}`:           "not valid JSON",
		validToken + `x`:            "not valid JSON",
		`{}`:                        "`access_token` is missing",
		`{"access_token":null}`:     "`access_token` is missing",
		`{"access_token":""}`:       "`access_token` is not",
		`{"access_token":5}`:        "`access_token` is not",
		`{"access_token":{}}`:       "`access_token` is not",
		`{"access_token":"a b"}`:    "`access_token` is not",
		`{"access_token":"a\nb"}`:   "`access_token` is not",
		`{"access_token":"\u0000"}`: "`access_token` is not",
		`{"access_token":"é"}`:      "`access_token` is not",
		`{"Access_Token":"opaque-token","token_type":"Bearer","expires_in":300}`:                    "`access_token` is missing",
		`{"access_token":"opaque-token","access_token":"b","token_type":"Bearer","expires_in":300}`: "duplicate member",
		`{"access_token":"a","x":1,"\u0078":2}`:                                                     "duplicate member",
		`{"access_token":"opaque-token"}`:                                                           "`token_type` is missing",
		`{"access_token":"opaque-token","token_type":""}`:                                           "`token_type` is missing",
		`{"access_token":"opaque-token","token_type":1}`:                                            "`token_type` is not a string",
		`{"access_token":"opaque-token","token_type":"DPoP"}`:                                       "DPoP",
		`{"access_token":"opaque-token","token_type":"mac"}`:                                        "not Bearer",
		`{"access_token":"opaque-token","token_type":"Bearer "}`:                                    "not Bearer",
		valid(`"scope":["a"],"expires_in":300`):                                                     "`scope` is not",
		valid(`"scope":"a\tb","expires_in":300`):                                                    "`scope` is not",
		valid(`"x":1`):                                                                              "`expires_in` is missing",
		valid(`"Expires_In":300`):                                                                   "`expires_in` is missing",
		valid(`"expires_in":0`):                                                                     expires,
		valid(`"expires_in":-1`):                                                                    expires,
		valid(`"expires_in":-0`):                                                                    expires,
		valid(`"expires_in":1.5`):                                                                   expires,
		valid(`"expires_in":300.0`):                                                                 expires,
		valid(`"expires_in":3e2`):                                                                   expires,
		valid(`"expires_in":9223372036854775808`):                                                   expires,
		valid(`"expires_in":1` + strings.Repeat("0", 400)):                                          expires,
		valid(`"expires_in":""`):                                                                    expires,
		valid(`"expires_in":"+300"`):                                                                expires,
		valid(`"expires_in":"0x10"`):                                                                expires,
		valid(`"expires_in":" 300"`):                                                                expires,
		valid(`"expires_in":"300s"`):                                                                expires,
		valid(`"expires_in":true`):                                                                  expires,
		valid(`"expires_in":[300]`):                                                                 expires,
		unsized(expired):                                                                            "already expired",
		unsized(unsignedJWT(`{"exp":"300"}`)):                                                       "has no valid `exp`",
		unsized(unsignedJWT(`{"exp":2e9,"exp":3e9}`)):                                               "has no valid `exp`",
		unsized(unsignedJWT(`{"exp":4e9,"iat":4e9}`)):                                               "already expired",
		unsized(strings.Repeat(".", 1000)):                                                          "has no valid `exp`",
	} {
		server := serve(t, jsonHandler(http.StatusOK, body))
		_, err := clientFor(t, server, retries(2)).RequestToken(t.Context(), server.URL, emptyForm)
		e := requireError(t, err, KindMalformed)
		require.ErrorContains(t, err, says, "%s", body)
		require.Equal(t, 1, e.Attempts, "a malformed response is not retried")
		require.NotContains(t, e.Error(), "opaque-token")
		require.NotContains(t, e.Error(), "eyJ")
	}
}

func TestRequestToken_ResponseMustBeJSON(t *testing.T) {
	t.Parallel()
	for contentType, accepted := range map[string]bool{
		"application/json": true, "application/json;charset=UTF-8": true, "Application/JSON": true, "application/x+json": true,
		"": false, "text/html; charset=utf-8": false, "text/json": false, "application/jsonp": false, "application/jwt": false,
	} {
		server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{contentType}
			_, _ = w.Write([]byte(validToken))
		})
		_, err := clientFor(t, server).RequestToken(t.Context(), server.URL, emptyForm)
		if accepted {
			require.NoError(t, err, contentType)
			continue
		}
		e := requireError(t, err, KindMalformed)
		require.Contains(t, e.Detail, "not JSON", contentType)
		require.NotContains(t, e.Error(), "opaque-token")
		require.Equal(t, NotJSON, e.Reason)
	}
}

func TestRequestToken_ErrorIn200IsRejection(t *testing.T) {
	t.Parallel()
	server := serve(t, jsonHandler(http.StatusOK, `{"error":"invalid_client","error_description":"no","access_token":"opaque-token","token_type":"Bearer","expires_in":300}`))
	_, err := clientFor(t, server).RequestToken(t.Context(), server.URL, emptyForm)
	e := requireError(t, err, KindRejected)
	require.Equal(t, "invalid_client", e.Code)
	require.False(t, e.KeyRejected(), "only a 400 or 401 rejects a key")
}

func TestToken_IsNeverPrinted(t *testing.T) {
	t.Parallel()
	token := Token{AccessToken: "opaque-token"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		for _, value := range []any{token, &token, struct{ T Token }{token}} {
			printed := fmt.Sprintf(verb, value)
			require.NotContains(t, printed, "opaque-token", verb)
			require.NotContains(t, printed, fmt.Sprintf("%x", "opaque-token"), verb)
		}
	}
	encoded, err := json.Marshal(token)
	require.NoError(t, err)
	require.NotContains(t, string(encoded), "opaque-token")
}

func TestRequestToken_ReturnsFormErrorUnchanged(t *testing.T) {
	t.Parallel()
	server := serve(t, jsonHandler(http.StatusServiceUnavailable, `{}`))
	cannotSign := errors.New("cannot sign")
	calls := 0
	_, err := clientFor(t, server, retries(3)).RequestToken(t.Context(), server.URL, func() (url.Values, error) {
		calls++
		if calls == 2 {
			return nil, cannotSign
		}
		return emptyForm()
	})
	require.Same(t, cannotSign, err)
	require.Equal(t, 2, calls)
}

// FuzzRequestTokenResponse checks what must be true of any response: no panic, and a token within
// its bounds or an error that shows nothing of the response but the provider's sanitized words.
func FuzzRequestTokenResponse(f *testing.F) {
	const secret = "eyJhbGciOiJub25lIn0.c2VjcmV0.c2VjcmV0"
	f.Add(http.StatusOK, "application/json", `{"access_token":"`+secret+`","token_type":"Bearer","expires_in":300,"scope":"a b"}`)
	f.Add(http.StatusOK, "application/json", `{"access_token":"`+unsignedJWT(`{"exp":1e300,"jti":"x"}`)+`","token_type":"bearer"}`)
	f.Add(http.StatusOK, "text/html", `<html>`+secret)
	f.Add(http.StatusBadRequest, "application/json", `{"error":"invalid_client","error_description":"`+secret+`"}`)
	f.Add(http.StatusUnauthorized, "application/json", `{"error":"`+secret+`","error_description":"a\u0000\u202e`+strings.Repeat("x", 300)+`"}`)
	f.Add(http.StatusFound, "", "")
	client, err := New(Config{RequestTimeout: time.Second}, quick)
	require.NoError(f, err)
	f.Cleanup(client.Close)
	f.Fuzz(func(t *testing.T, status int, mediaType, body string) {
		call, err := client.newCall(OpToken, "https://idp.example.com/token", emptyForm)
		require.NoError(t, err)
		r := &response{
			status: status, mediaType: mediaType, body: []byte(body), header: http.Header{},
			startedAt: time.Now(), receivedAt: time.Now(),
		}
		members, err := call.success(t.Context(), r)
		if err == nil {
			var token *Token
			if token, err = parseToken(members, r); err == nil {
				require.NotEmpty(t, token.AccessToken)
				require.Greater(t, token.Lifetime, time.Duration(0))
				require.LessOrEqual(t, token.Lifetime, 24*time.Hour)
				require.Zero(t, token.Lifetime%time.Second)
				require.True(t, printable(token.AccessToken, "") && printable(token.Scope, " ") && printable(token.JTI, ""))
				return
			}
			err = call.unusable(t.Context(), r, err)
		}
		requireHarmless(t, err, members, body)
	})
}

// requireHarmless asserts that an error shows nothing that could be a token.
func requireHarmless(t *testing.T, err error, members jsonObject, body string) {
	t.Helper()
	var e *Error
	require.ErrorAs(t, err, &e)
	text := e.Error()
	require.NotContains(t, text, "eyJ")
	require.LessOrEqual(t, len([]rune(e.Description)), maxDescription)
	require.LessOrEqual(t, len(e.Code), maxCode)
	require.False(t, strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }))
	const longestWord = 60
	isBase64 := func(r rune) bool {
		return r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r)) || strings.ContainsRune("+-_=", r)
	}
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return !isBase64(r) }) {
		require.LessOrEqual(t, len(word), longestWord)
	}
	if secret := members.text("access_token"); len(secret) > longestWord {
		require.NotContains(t, text, secret)
	}
	if len(body) > maxDescription+maxCode {
		require.NotContains(t, text, body)
	}
}

func TestRevoke_AnySuccessRevokes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		kind    Kind // empty: revoked
	}{
		"an empty 200":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }, ""},
		"a 299":            {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(299) }, ""},
		"a 204":            {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, ""},
		"an unknown token": {jsonHandler(http.StatusOK, `{"error":"invalid_token"}`), ""},
		"another client's": {jsonHandler(http.StatusBadRequest, errorBody("invalid_token", "Unmatching clients")), KindRejected},
		"unavailable":      {jsonHandler(http.StatusServiceUnavailable, `{}`), KindUnavailable},
	} {
		server := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodPost || r.FormValue("token") != "opaque-token" {
				w.WriteHeader(http.StatusTeapot)
				return
			}
			c.handler(w, r)
		})
		err := clientFor(t, server).Revoke(t.Context(), server.URL+"/revoke", func() (url.Values, error) {
			return url.Values{"token": {"opaque-token"}}, nil
		})
		if c.kind == "" {
			require.NoError(t, err, name)
			continue
		}
		require.Contains(t, requireError(t, err, c.kind).Error(), "token revocation at "+server.URL+"/revoke: HTTP", name)
		require.NotContains(t, err.Error(), "opaque-token")
	}
}
