// Command go calls an API every so often, with an access token that it keeps fresh: go run . -creds bcgov-jwt/creds/myapi -url https://myapi.example.org/
// VAULT_ADDR and VAULT_TOKEN, or others of the vault command's variables, say which Vault and who you are. tokenSource is for a program of your own.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
)

func main() {
	creds := flag.String("creds", "bcgov-jwt/creds/myapi", "where Vault has the access token")
	url := flag.String("url", "", "what to call")
	every := flag.Duration("every", 10*time.Second, "how often")
	flag.Parse()
	source, err := newTokenSource(context.Background(), *creds)
	if err != nil {
		log.Fatal(err)
	}
	// A redirect would take the token to another server.
	refuse := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	client := &http.Client{Transport: source, Timeout: 30 * time.Second, CheckRedirect: refuse}
	for ; ; time.Sleep(*every) {
		resp, err := client.Get(*url) //nolint:noctx // the client's Timeout limits it
		if err != nil {
			log.Print(err)
			continue
		}
		log.Print(resp.Status)
		_ = resp.Body.Close()
	}
}

// tokenSource sends the newest access token with each request. It is safe for concurrent use.
type tokenSource struct {
	vault *api.Client
	creds string
	token atomic.Pointer[string]
}

// newTokenSource has the first token when it returns, and keeps it fresh until ctx ends.
func newTokenSource(ctx context.Context, creds string) (*tokenSource, error) {
	vault, err := api.NewClient(nil)
	if err != nil {
		return nil, err
	}
	s := &tokenSource{vault: vault, creds: creds}
	due, err := s.renew(ctx)
	if err != nil {
		return nil, err
	}
	go s.keepFresh(ctx, due)
	return s, nil
}

// RoundTrip implements http.RoundTripper, which must not change the request that it is given.
func (s *tokenSource) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+*s.token.Load())
	return http.DefaultTransport.RoundTrip(req)
}

func (s *tokenSource) keepFresh(ctx context.Context, due time.Duration) {
	for {
		select {
		case <-time.After(due):
		case <-ctx.Done():
			return
		}
		var err error
		if due, err = s.renew(ctx); err != nil { // the old token stays in use: it is good for a margin more
			due = 5 * time.Second
			log.Printf("no new token, next try in %s: %v", due, err)
		}
	}
}

// renew gets a new token, and says in what time the next one is due. api.LifetimeWatcher is of no use for that: it is for what can be renewed. It takes only
// leases, and gives up at 70 to 73 % one that it cannot renew.
func (s *tokenSource) renew(ctx context.Context) (time.Duration, error) {
	// A lease ends with the Vault token that it was read with. A Vault token that cannot be renewed serves while it lasts.
	_, _ = s.vault.Auth().Token().RenewSelfWithContext(ctx, 0)
	secret, err := s.vault.Logical().ReadWithContext(ctx, s.creds)
	if err != nil {
		return 0, err
	}
	if secret == nil || secret.Data["access_token"] == nil {
		return 0, errors.New("no access token at " + s.creds)
	}
	token, _ := secret.Data["access_token"].(string)
	s.token.Store(&token)
	if ttl, ok := secret.Data["ttl"].(json.Number); ok { // delivery=unleased or shared: when the plugin would replace the token
		seconds, err := ttl.Int64()
		return time.Duration(seconds) * time.Second, err
	}
	// delivery=leased: a little before the lease ends, and with it, if the role has revoke_tokens=true, the token.
	return max(time.Duration(secret.LeaseDuration)*time.Second*9/10, time.Second), nil
}
