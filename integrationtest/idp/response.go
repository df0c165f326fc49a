package idp

import (
	"encoding/json"
	"net/http"
)

// problem is an error response: an HTTP status and the two members of an OAuth error (RFC 6749
// §5.2). The zero value is no problem.
type problem struct {
	status      int
	code        string
	description string
}

func (p problem) none() bool { return p.status == 0 }

func badRequest(code, description string) problem {
	return problem{http.StatusBadRequest, code, description}
}

func unauthorized(code, description string) problem {
	return problem{http.StatusUnauthorized, code, description}
}

func writeProblem(w http.ResponseWriter, p problem) {
	writeJSON(w, p.status, struct {
		Error       string `json:"error"`
		Description string `json:"error_description,omitempty"`
	}{p.code, p.description})
}

func methodNotAllowed(w http.ResponseWriter) {
	writeProblem(w, problem{http.StatusMethodNotAllowed, "HTTP 405 Method Not Allowed", ""})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	encoded, err := json.Marshal(body)
	if err != nil {
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	setSecurityHeaders(w.Header())
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(encoded)
}

// setSecurityHeaders sets what Keycloak adds to every response of a realm with default settings.
func setSecurityHeaders(h http.Header) {
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "SAMEORIGIN")
	h.Set("X-Robots-Tag", "none")
}
