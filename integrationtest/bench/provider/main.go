// Command provider is a token endpoint that costs next to nothing: it checks nothing and responds
// to every request with the same token. A real provider runs on another machine; what one used of
// this machine would hide what the plugin uses.
package main

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// serve prints its base URL once it listens, and serves until the process ends.
func serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p := &provider{response: tokenResponse(time.Now()), requests: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", p.serveToken)
	mux.HandleFunc("GET /requests/{client}", p.serveRequests)
	fmt.Printf("http://%s\n", listener.Addr())
	return (&http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}).Serve(listener)
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
	fmt.Fprint(w, p.requests[r.PathValue("client")])
}

// tokenResponse returns a response with a token of the size and the claims of Keycloak's, but
// without a valid signature. It is valid so long that it does not expire during a measurement.
func tokenResponse(now time.Time) []byte {
	const lifetime = time.Hour
	encode := base64.RawURLEncoding.EncodeToString
	header := fmt.Appendf(nil, `{"alg":"RS256","typ":"JWT","kid":"%s"}`, rand.Text())
	claims := fmt.Appendf(nil, `{"exp":%d,"iat":%d,"jti":"trrtcc:%s","sub":"%s","acr":"1",`+
		`"iss":"https://idp.example/realms/apigw","typ":"Bearer","azp":"bench",`+
		`"allowed-origins":["/*"],"scope":"profile email","clientHost":"127.0.0.1",`+
		`"clientAddress":"127.0.0.1","email_verified":false,`+
		`"preferred_username":"service-account-bench","client_id":"bench"}`,
		now.Add(lifetime).Unix(), now.Unix(), rand.Text(), rand.Text())
	signature := make([]byte, 256)
	_, _ = rand.Read(signature) // never fails, by its documentation
	return fmt.Appendf(nil, `{"access_token":"%s.%s.%s","expires_in":%.0f,"refresh_expires_in":0,`+
		`"token_type":"Bearer","not-before-policy":0,"scope":"profile email"}`,
		encode(header), encode(claims), encode(signature), lifetime.Seconds())
}
