package tokenendpoint

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkRequestToken compares a warm token request with the least that a Go program does for
// one: a POST with net/http to the same server, decoded with encoding/json.
func BenchmarkRequestToken(b *testing.B) {
	body := `{"access_token":"` + unsignedJWT(`{"jti":"abc","sub":"`+strings.Repeat("x", 600)+`"}`) + `","token_type":"Bearer","expires_in":300,"scope":"a b"}`
	server := serve(b, jsonHandler(http.StatusOK, body))
	form := url.Values{"grant_type": {"client_credentials"}, "client_assertion": {strings.Repeat("x", 800)}}

	b.Run("RequestToken", func(b *testing.B) {
		client := clientFor(b, server, retries(2))
		b.ReportAllocs()
		for b.Loop() {
			_, err := client.RequestToken(b.Context(), server.URL, func() (url.Values, error) { return form, nil })
			require.NoError(b, err)
		}
	})
	b.Run("net/http", func(b *testing.B) {
		client := server.Client()
		b.ReportAllocs()
		for b.Loop() {
			resp, err := client.PostForm(server.URL, form)
			require.NoError(b, err)
			text, err := io.ReadAll(resp.Body)
			require.NoError(b, err)
			_ = resp.Body.Close()
			var token struct {
				AccessToken string `json:"access_token"`
				ExpiresIn   int    `json:"expires_in"`
			}
			require.NoError(b, json.Unmarshal(text, &token))
		}
	})
}
