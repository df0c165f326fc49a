package security

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// hostileProvider is a provider that sends back the assertion that it received.
type hostileProvider struct {
	name    string
	status  int // of the response to a read of creds
	respond func(w http.ResponseWriter, r *http.Request, assertion string)
}

func hostileProviders() []hostileProvider {
	respondJSON := func(status int, members ...any) func(http.ResponseWriter, *http.Request,
		string) {
		return func(w http.ResponseWriter, _ *http.Request, assertion string) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			body := map[string]any{} // from names and values by turns
			for i := 0; i < len(members); i += 2 {
				name, value := members[i].(string), members[i+1]
				if text, isText := value.(string); isText {
					value = strings.ReplaceAll(text, "{assertion}", assertion)
				}
				body[name] = value
			}
			_ = json.NewEncoder(w).Encode(body)
		}
	}
	respondText := func(status int, mediaType, text string) func(http.ResponseWriter, *http.Request,
		string) {
		return func(w http.ResponseWriter, _ *http.Request, assertion string) {
			w.Header().Set("Content-Type", strings.ReplaceAll(mediaType, "{assertion}", assertion))
			w.WriteHeader(status)
			_, _ = fmt.Fprint(w, strings.ReplaceAll(text, "{assertion}", assertion))
		}
	}
	return []hostileProvider{
		{"description", 400, respondJSON(400, "error", "invalid_client", "error_description", "could not verify {assertion}")},
		{"description without a boundary", 400, respondJSON(400, "error", "invalid_client", "error_description", "x{assertion}")},
		{"description in a path", 400, respondJSON(401, "error", "invalid_client", "error_description", "/{assertion}/")},
		{"error code", 400, respondJSON(400, "error", "{assertion}")},
		{"error and success at once", 400, respondJSON(200, "error", "{assertion}", "access_token", "{assertion}")},
		{"error uri", 400, respondJSON(400, "error", "invalid_client", "error_uri", "https://example.com/{assertion}")},
		{"unknown member", 502, respondJSON(200, "{assertion}", "x", "token_type", "Bearer", "whatever", "{assertion}")},
		{"token type", 502, respondJSON(200, "access_token", "token", "token_type", "{assertion}", "expires_in", 300)},
		{"expires in", 502, respondJSON(200, "access_token", "token", "token_type", "Bearer", "expires_in", "{assertion}")},
		{"expires in of a token", 502, respondJSON(200, "access_token", "{assertion}", "token_type", "Bearer", "expires_in", -1)},
		{"scope that is none", 502, respondJSON(200, "access_token", "token", "token_type", "Bearer", "expires_in", 300, "scope", "{assertion}\n")},
		{"page", 502, respondText(200, "text/html", "<html>{assertion}</html>")},
		{"page of an error", 502, respondText(500, "text/html", "<html>{assertion}</html>")},
		{"page of a busy server", 502, respondText(503, "text/plain", "{assertion}")},
		{"broken JSON", 502, respondText(200, "application/json", `{"access_token":"{assertion}"`)},
		{"duplicated members", 502, respondText(200, "application/json", `{"access_token":"{assertion}","access_token":"{assertion}"}`)},
		{"media type", 502, respondText(200, "text/{assertion}", "x")},
		{"media type of an error", 400, respondText(400, "text/{assertion}; charset={assertion}", "x")},
		{"redirect", 502, func(w http.ResponseWriter, _ *http.Request, assertion string) {
			host := assertion[:min(40, len(assertion))] + ".example.com"
			w.Header().Set("Location", "https://"+host+"/"+assertion+"?a="+assertion)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}},
		{"headers", 502, func(w http.ResponseWriter, _ *http.Request, assertion string) {
			for _, name := range []string{
				"Date", "Retry-After", "Content-Encoding", "Server", "Www-Authenticate", "X-Request-Id",
			} {
				w.Header().Set(name, assertion)
			}
			w.WriteHeader(http.StatusBadGateway)
		}},
		{"no HTTP", 502, func(w http.ResponseWriter, _ *http.Request, assertion string) {
			hijack(w, assertion+" "+assertion+"\r\n\r\n")
		}},
		{"broken header", 502, func(w http.ResponseWriter, _ *http.Request, assertion string) {
			hijack(w, "HTTP/1.1 200 OK\r\n"+assertion+"\r\n\r\n")
		}},
		{"broken length", 502, func(w http.ResponseWriter, _ *http.Request, assertion string) {
			hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: "+assertion+"\r\n\r\n")
		}},
		{"broken status", 502, func(w http.ResponseWriter, _ *http.Request, assertion string) {
			hijack(w, "HTTP/1.1 "+assertion+" OK\r\n\r\n")
		}},
		{"cut body", 502, func(w http.ResponseWriter, _ *http.Request, assertion string) {
			hijack(w, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"+
				"Content-Length: 100000\r\n\r\n"+assertion)
		}},
		{"silence", 504, func(_ http.ResponseWriter, r *http.Request, _ string) {
			select {
			case <-r.Context().Done():
			case <-time.After(time.Minute):
			}
		}},
	}
}

// hijack responds with bytes that need not be HTTP, and closes the connection.
func hijack(w http.ResponseWriter, raw string) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	_, _ = conn.Write([]byte(raw))
	_ = conn.Close()
}

// keyAt returns the settings of a key whose provider is served at a base URL.
func keyAt(baseURL string) map[string]any {
	return map[string]any{
		"type": "rsa-2048", "client_id": "any", "issuer": baseURL,
		"token_endpoint": baseURL + "/token", "revocation_endpoint": baseURL + "/revoke",
	}
}
