// Package idp is an embedded OAuth 2.0 provider for tests and demonstrations. It responds exactly
// as Keycloak 26.5.6 does, as far as the client credentials grant with private_key_jwt (RFC 7523)
// is concerned: the table of cases in conformance_test.go runs against this package and against a
// real Keycloak, and what is not in the table is not implemented.
package idp

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

var errNoRealm = errors.New("no such realm")

// Options holds how a Server differs from Keycloak's defaults. The zero value is ready for use.
type Options struct {
	// Now is the server's clock; time.Now if nil.
	Now func() time.Time
	// SigningKey signs the access tokens of every realm; if nil each realm creates its own.
	SigningKey *rsa.PrivateKey
	// Username and Password are the administrator's; both are "admin" if empty.
	Username, Password string
	// SendDate adds a Date header with the time of Now. Keycloak sends none; a reverse proxy in
	// front of it does.
	SendDate bool
}

// Server is the provider, an http.Handler: a test wraps it to count, delay or replace responses.
// Like Keycloak it derives its address from the request, so it works wherever it is served. It is
// safe for concurrent use.
type Server struct {
	options  Options
	mux      *http.ServeMux
	jwks     *http.Client       // fetches the clients' keys
	keyLoads singleflight.Group // one load at a time for each client

	mu          sync.Mutex
	realms      map[string]*realm
	usedJTIs    map[string]time.Time // expiry of each jti, for all realms
	adminTokens map[string]time.Time // expiry of an administrator's tokens
}

// New returns a provider without realms.
func New(options Options) *Server {
	if options.Now == nil {
		options.Now = time.Now
	}
	if options.Username == "" {
		options.Username = "admin"
	}
	if options.Password == "" {
		options.Password = "admin"
	}
	s := &Server{
		options: options,
		mux:     http.NewServeMux(),
		jwks: &http.Client{
			Timeout: jwksTimeout, Transport: http.DefaultTransport.(*http.Transport).Clone(),
		},
		realms:      map[string]*realm{},
		usedJTIs:    map[string]time.Time{},
		adminTokens: map[string]time.Time{},
	}
	s.route()
	return s
}

// Close closes the idle connections to the clients' JWKS hosts.
func (s *Server) Close() { s.jwks.CloseIdleConnections() }

// AddRealm creates an empty realm, whose issuer is <base URL>/realms/<name>.
func (s *Server) AddRealm(name string) error {
	key := s.options.SigningKey
	if key == nil {
		var err error
		if key, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return err
		}
	}
	rm, err := newRealm(name, key)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, exists := s.realms[name]; exists {
		return fmt.Errorf("Realm %s already exists", name) //nolint:staticcheck // Keycloak's words
	}
	s.realms[name] = rm
	return nil
}

// PutClient registers a client in a realm, or replaces the one with its client id. It takes effect
// on the next request.
func (s *Server) PutClient(realm string, representation keycloak.Client) error {
	rm := s.realm(realm)
	if rm == nil {
		return errNoRealm
	}
	rm.put(representation)
	return nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header()["Date"] = nil // prevents net/http from adding one
	if s.options.SendDate {
		w.Header().Set("Date", s.options.Now().UTC().Format(http.TimeFormat))
	}
	s.mux.ServeHTTP(w, r)
}

func (s *Server) route() {
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		const notFound = "Unable to find matching target resource method"
		writeProblem(w, problem{http.StatusNotFound, notFound, ""})
	})
	notFound := func(w http.ResponseWriter, _ *http.Request, _ *realm) {
		writeProblem(w, problem{http.StatusNotFound, "HTTP 404 Not Found", ""})
	}
	s.mux.HandleFunc("/realms/{realm}/{rest...}", s.inRealm(notFound))
	notAllowed := func(w http.ResponseWriter, _ *http.Request, _ *realm) { methodNotAllowed(w) }
	s.mux.HandleFunc("/realms/{realm}", s.inRealm(notAllowed))
	const connect = "/realms/{realm}/protocol/openid-connect/"
	s.handle("GET", "/realms/{realm}/.well-known/openid-configuration", s.serveDiscovery)
	s.handle("GET", connect+"certs", s.serveCerts)
	s.handle("POST", connect+"token", s.serveToken)
	s.handle("POST", connect+"token/introspect", s.serveIntrospection)
	s.handle("POST", connect+"revoke", s.serveRevocation)

	s.mux.HandleFunc("POST /realms/master/protocol/openid-connect/token", s.serveAdminToken)
	s.mux.HandleFunc("POST /admin/realms", s.asAdmin(s.serveNewRealm))
	s.mux.HandleFunc("DELETE /admin/realms/{realm}", s.asAdmin(s.serveDeleteRealm))
	clients := "/admin/realms/{realm}/clients"
	s.mux.HandleFunc("GET "+clients, s.asAdmin(s.toRealm(s.serveFindClients)))
	s.mux.HandleFunc("POST "+clients, s.asAdmin(s.toRealm(s.serveNewClient)))
	s.mux.HandleFunc("PUT "+clients+"/{id}", s.asAdmin(s.toRealm(s.serveUpdateClient)))
}

type realmHandler func(http.ResponseWriter, *http.Request, *realm)

// handle routes a path inside a realm. Keycloak checks that the realm exists before it checks the
// method.
func (s *Server) handle(method, path string, next realmHandler) {
	s.mux.HandleFunc(path, s.inRealm(func(w http.ResponseWriter, r *http.Request, rm *realm) {
		if r.Method != method {
			methodNotAllowed(w)
			return
		}
		next(w, r, rm)
	}))
}

func (s *Server) inRealm(next realmHandler) http.HandlerFunc {
	return s.withRealm(next, "Realm does not exist")
}

// toRealm is inRealm for the admin REST API.
func (s *Server) toRealm(next realmHandler) http.HandlerFunc {
	return s.withRealm(next, "Realm not found.")
}

func (s *Server) withRealm(next realmHandler, notFound string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rm := s.realm(r.PathValue("realm"))
		if rm == nil {
			writeProblem(w, problem{http.StatusNotFound, notFound, ""})
			return
		}
		next(w, r, rm)
	}
}

func (s *Server) realm(name string) *realm {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.realms[name]
}

// useJTI reports whether the jti is new, and stores it for that long if so.
func (s *Server) useJTI(jti string, lifespan time.Duration) bool {
	now := s.options.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if until, used := s.usedJTIs[jti]; used && now.Before(until) {
		return false
	}
	s.usedJTIs[jti] = now.Add(lifespan)
	return true
}
