// Package idp is an embedded OAuth 2.0 provider for tests and demonstrations. It answers as Keycloak 26.5.3 does, to the word, where the client credentials grant
// with private_key_jwt (RFC 7523) comes: the table of cases in conformance_test.go runs against this package and against a real Keycloak, and what the table
// does not hold is not here.
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

// Options say how a Server differs from Keycloak's defaults. The zero value is ready for use.
type Options struct {
	// Now is the server's clock; time.Now where nil.
	Now func() time.Time
	// SigningKey signs the access tokens of every realm; where nil each realm makes a key of its own.
	SigningKey *rsa.PrivateKey
	// Username and Password are the administrator's; both are "admin" where empty.
	Username, Password string
	// SendDate adds a Date header, by the server's clock. Keycloak sends none; a reverse proxy in front of it does.
	SendDate bool
}

// Server is the provider, an http.Handler: a test wraps it to count, delay or replace answers. Like Keycloak it takes its own address from the request, so it
// works wherever it is served. It is safe for concurrent use.
type Server struct {
	options  Options
	mux      *http.ServeMux
	jwks     *http.Client       // fetches the clients' keys
	keyLoads singleflight.Group // one load at a time for each client

	mu          sync.Mutex
	realms      map[string]*realm
	usedJTIs    map[string]time.Time // until when a jti is remembered; one memory for all realms
	adminTokens map[string]time.Time // until when an administrator's token is good
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
		options:     options,
		mux:         http.NewServeMux(),
		jwks:        &http.Client{Timeout: jwksTimeout, Transport: http.DefaultTransport.(*http.Transport).Clone()},
		realms:      map[string]*realm{},
		usedJTIs:    map[string]time.Time{},
		adminTokens: map[string]time.Time{},
	}
	s.route()
	return s
}

// Close closes the idle connections to the clients' JWKS hosts.
func (s *Server) Close() { s.jwks.CloseIdleConnections() }

// AddRealm makes an empty realm; its issuer is <base URL>/realms/<name>.
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
		return fmt.Errorf("Realm %s already exists", name) //nolint:staticcheck // Keycloak's own words
	}
	s.realms[name] = rm
	return nil
}

// PutClient registers a client in a realm, or overwrites the one of that client id. It takes effect on the next request.
func (s *Server) PutClient(realm string, representation keycloak.Client) error {
	rm := s.realm(realm)
	if rm == nil {
		return errors.New("no such realm")
	}
	rm.put(representation)
	return nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header()["Date"] = nil // keeps net/http from adding one
	if s.options.SendDate {
		w.Header().Set("Date", s.options.Now().UTC().Format(http.TimeFormat))
	}
	s.mux.ServeHTTP(w, r)
}

func (s *Server) route() {
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeProblem(w, problem{http.StatusNotFound, "Unable to find matching target resource method", ""})
	})
	s.mux.HandleFunc("/realms/{realm}/{rest...}", s.inRealm(func(w http.ResponseWriter, _ *http.Request, _ *realm) {
		writeProblem(w, problem{http.StatusNotFound, "HTTP 404 Not Found", ""})
	}))
	s.handle("GET", "/realms/{realm}/.well-known/openid-configuration", s.serveDiscovery)
	s.handle("GET", "/realms/{realm}/protocol/openid-connect/certs", s.serveCerts)
	s.handle("POST", "/realms/{realm}/protocol/openid-connect/token", s.serveToken)
	s.handle("POST", "/realms/{realm}/protocol/openid-connect/token/introspect", s.serveIntrospection)
	s.handle("POST", "/realms/{realm}/protocol/openid-connect/revoke", s.serveRevocation)
	s.mux.HandleFunc("/realms/{realm}", s.inRealm(func(w http.ResponseWriter, _ *http.Request, _ *realm) { methodNotAllowed(w) }))

	s.mux.HandleFunc("POST /realms/master/protocol/openid-connect/token", s.serveAdminToken)
	s.mux.HandleFunc("POST /admin/realms", s.asAdmin(s.serveNewRealm))
	s.mux.HandleFunc("DELETE /admin/realms/{realm}", s.asAdmin(s.serveDeleteRealm))
	s.mux.HandleFunc("GET /admin/realms/{realm}/clients", s.asAdmin(s.serveFindClients))
	s.mux.HandleFunc("POST /admin/realms/{realm}/clients", s.asAdmin(s.serveNewClient))
	s.mux.HandleFunc("PUT /admin/realms/{realm}/clients/{id}", s.asAdmin(s.serveUpdateClient))
}

type realmHandler func(http.ResponseWriter, *http.Request, *realm)

// handle routes a path inside a realm. Keycloak looks for the realm before it looks at the method.
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
	return func(w http.ResponseWriter, r *http.Request) {
		rm := s.realm(r.PathValue("realm"))
		if rm == nil {
			writeProblem(w, problem{http.StatusNotFound, "Realm does not exist", ""})
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

// rememberJTI says whether the jti is new, and remembers it for that long if so.
func (s *Server) rememberJTI(jti string, lifespan time.Duration) bool {
	now := s.options.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if until, used := s.usedJTIs[jti]; used && now.Before(until) {
		return false
	}
	s.usedJTIs[jti] = now.Add(lifespan)
	return true
}
