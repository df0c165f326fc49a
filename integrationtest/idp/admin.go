package idp

import (
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// adminTokenLifetime is the lifetime of a Keycloak administrator's token.
const adminTokenLifetime = time.Minute

// serveAdminToken serves the password grant of the admin CLI, the only way to obtain an
// administrator's token.
func (s *Server) serveAdminToken(w http.ResponseWriter, r *http.Request) {
	if r.PostFormValue("grant_type") != "password" || r.PostFormValue("client_id") != "admin-cli" {
		writeProblem(w, unauthorized("invalid_client", invalidClientText))
		return
	}
	username, password := r.PostFormValue("username"), r.PostFormValue("password")
	if username != s.options.Username || password != s.options.Password {
		writeProblem(w, unauthorized("invalid_grant", "Invalid user credentials"))
		return
	}
	token := rand.Text()
	s.mu.Lock()
	s.adminTokens[token] = s.options.Now().Add(adminTokenLifetime)
	s.mu.Unlock()
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": token, "expires_in": int(adminTokenLifetime.Seconds()), "token_type": "Bearer",
	})
}

func (s *Server) asAdmin(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		s.mu.Lock()
		expires, known := s.adminTokens[token]
		s.mu.Unlock()
		if !known || !s.options.Now().Before(expires) {
			writeProblem(w, unauthorized("HTTP 401 Unauthorized", ""))
			return
		}
		next(w, r)
	}
}

func (s *Server) serveNewRealm(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Realm string `json:"realm"`
	}
	if !decode(w, r, &body) {
		return
	}
	if err := s.AddRealm(body.Realm); err != nil {
		writeConflict(w, err.Error())
		return
	}
	writeCreated(w, baseURL(r)+r.URL.Path+"/"+body.Realm)
}

func (s *Server) serveDeleteRealm(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	delete(s.realms, r.PathValue("realm"))
	s.mu.Unlock()
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) serveFindClients(w http.ResponseWriter, r *http.Request, rm *realm) {
	found := []keycloak.Client{}
	if c := rm.client(r.URL.Query().Get("clientId")); c != nil {
		found = append(found, c.Client)
	}
	writeJSON(w, http.StatusOK, found)
}

func (s *Server) serveNewClient(w http.ResponseWriter, r *http.Request, rm *realm) {
	var body keycloak.Client
	if !decode(w, r, &body) {
		return
	}
	if rm.client(body.ClientID) != nil {
		writeConflict(w, "Client "+body.ClientID+" already exists")
		return
	}
	writeCreated(w, baseURL(r)+r.URL.Path+"/"+rm.put(body).ID)
}

func (s *Server) serveUpdateClient(w http.ResponseWriter, r *http.Request, rm *realm) {
	known := rm.clientByID(r.PathValue("id"))
	if known == nil {
		writeProblem(w, problem{http.StatusNotFound, "Could not find client", ""})
		return
	}
	// Decoding over the known client keeps what the body does not name, as Keycloak does.
	body := known.Client
	body.Attributes = maps.Clone(known.Attributes)
	if !decode(w, r, &body) {
		return
	}
	body.ID = known.ID
	rm.put(body)
	w.WriteHeader(http.StatusNoContent)
}

func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	if err := json.NewDecoder(r.Body).Decode(into); err != nil {
		writeProblem(w, badRequest("unknown_error", ""))
		return false
	}
	return true
}

func writeCreated(w http.ResponseWriter, location string) {
	w.Header().Set("Location", location)
	w.WriteHeader(http.StatusCreated)
}

func writeConflict(w http.ResponseWriter, message string) {
	writeJSON(w, http.StatusConflict, map[string]string{"errorMessage": message})
}
