// Command go calls an API at intervals, with an access token that it keeps fresh:
//
//	go run . -creds bcgov-jwt/creds/myapi -url https://myapi.example.org/
//
// VAULT_ADDR, VAULT_TOKEN and the vault command's other variables configure the Vault client. Copy
// tokenSource into your own program.
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
	creds := flag.String("creds", "bcgov-jwt/creds/myapi", "path of the access token in Vault")
	url := flag.String("url", "", "URL to call")
	every := flag.Duration("every", 10*time.Second, "interval between calls")
	flag.Parse()
	source, err := newTokenSource(context.Background(), *creds)
	if err != nil {
		log.Fatal(err)
	}
	// A redirect could send the token to another server.
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

// newTokenSource obtains the first token, and keeps it fresh until ctx ends.
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

// RoundTrip implements http.RoundTripper, which must not modify the request.
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
		if due, err = s.renew(ctx); err != nil { // the old token is valid for the margin
			due = 5 * time.Second
			log.Printf("no new token, retrying in %s: %v", due, err)
		}
	}
}

// renew obtains a new token, and returns when the next one is due. api.LifetimeWatcher does not
// suit: it accepts only leases, and gives up one that it cannot renew at 70 to 73 %.
func (s *tokenSource) renew(ctx context.Context) (time.Duration, error) {
	// A lease ends with the Vault token that read it. A token that is not renewable serves until it
	// expires.
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
	if ttl, ok := secret.Data["ttl"].(json.Number); ok { // delivery=unleased or shared
		seconds, err := ttl.Int64()
		return time.Duration(seconds) * time.Second, err
	}
	// delivery=leased: shortly before the lease ends, which with revoke_tokens=true ends the token.
	return max(time.Duration(secret.LeaseDuration)*time.Second*9/10, time.Second), nil
}
