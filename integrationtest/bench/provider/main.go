// Command provider is a token endpoint that costs next to nothing: it checks nothing and responds
// to every request with the same token. A real provider runs on another machine; what one used of
// this machine would hide what the plugin uses.
package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// lifetime is so long that no token and no lease ends during a measurement.
const lifetime = time.Hour

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done. It prints its base URL once it listens.
func run(ctx context.Context, stdout io.Writer) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p := &provider{requests: map[string]int{}}
	if p.response, err = tokenResponse(time.Now()); err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", p.serveToken)
	mux.HandleFunc("GET /requests/{client}", p.serveRequests)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	fmt.Fprintf(stdout, "http://%s\n", listener.Addr())
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

type provider struct {
	response []byte

	mu       sync.Mutex
	requests map[string]int // for tokens, by client id
}

func (p *provider) serveToken(w http.ResponseWriter, r *http.Request) {
	client := r.PostFormValue("client_id")
	p.mu.Lock()
	p.requests[client]++
	p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(p.response) // an error means that the client disconnected
}

func (p *provider) serveRequests(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(w, strconv.Itoa(p.requests[r.PathValue("client")]))
}

// tokenResponse returns a response with a token of the size and the claims of Keycloak's, but
// without a valid signature.
func tokenResponse(now time.Time) ([]byte, error) {
	claims, err := json.Marshal(map[string]any{
		"exp": now.Add(lifetime).Unix(), "iat": now.Unix(), "jti": "trrtcc:" + rand.Text(),
		"iss": "https://idp.example/realms/apigw", "sub": rand.Text(), "typ": "Bearer",
		"azp": "bench", "acr": "1", "allowed-origins": []string{"/*"}, "scope": "profile email",
		"clientHost": "127.0.0.1", "clientAddress": "127.0.0.1", "email_verified": false,
		"preferred_username": "service-account-bench", "client_id": "bench",
	})
	if err != nil {
		return nil, err
	}
	signature := make([]byte, 256)
	_, _ = rand.Read(signature) // never fails, by its documentation
	encode := base64.RawURLEncoding.EncodeToString
	header := []byte(`{"alg":"RS256","typ":"JWT","kid":"` + rand.Text() + `"}`)
	token := encode(header) + "." + encode(claims) + "." + encode(signature)
	return json.Marshal(map[string]any{
		"access_token": token, "expires_in": int(lifetime / time.Second), "refresh_expires_in": 0,
		"token_type": "Bearer", "not-before-policy": 0, "scope": "profile email",
	})
}
