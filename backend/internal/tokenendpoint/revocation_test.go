package tokenendpoint

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRevoke_AnySuccessRevokes(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		kind    Kind // empty: revoked
	}{
		"an empty 200":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }, ""},
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
