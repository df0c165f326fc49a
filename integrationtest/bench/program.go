package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// MaxConcurrent is how many concurrent requests keep a connection each, in everything that is
// measured.
const MaxConcurrent = 128

// Program is what users have without Vault: a program that holds the private key, signs assertions
// and posts them itself. It is safe for concurrent use.
type Program struct {
	clientID, issuer, tokenEndpoint string

	signer jose.Signer
	http   *http.Client
}

// NewProgram returns the program of a client whose key is registered.
func NewProgram(key *rsa.PrivateKey, clientID, issuer, tokenEndpoint string) (*Program, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, err
	}
	return &Program{
		clientID: clientID, issuer: issuer, tokenEndpoint: tokenEndpoint,
		signer: signer, http: NewClient(),
	}, nil
}

// NewClient returns a client with its own transport, which keeps MaxConcurrent connections: the
// default one keeps two, and dials for each further request.
func NewClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = 0, MaxConcurrent
	return &http.Client{Transport: transport, Timeout: time.Minute}
}

// Close closes the idle connections.
func (p *Program) Close() { p.http.CloseIdleConnections() }

// Token obtains an access token, and discards it.
func (p *Program) Token(ctx context.Context) error {
	assertion, err := p.assertion(time.Now())
	if err != nil {
		return err
	}
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {p.clientID},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		"client_assertion":      {assertion},
	}
	content := strings.NewReader(form.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.tokenEndpoint, content)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	body, err := Do(p.http, req)
	if err != nil {
		return err
	}
	var response struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &response); err != nil || response.AccessToken == "" {
		return fmt.Errorf("%s returned no access token", p.tokenEndpoint) // the cause may quote it
	}
	return nil
}

func (p *Program) assertion(now time.Time) (string, error) {
	claims, err := json.Marshal(map[string]any{
		"iss": p.clientID, "sub": p.clientID, "aud": p.issuer, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Unix() + 45,
	})
	if err != nil {
		return "", err
	}
	signed, err := p.signer.Sign(claims)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// Do sends a request, requires success, and returns the body.
func Do(client *http.Client, req *http.Request) ([]byte, error) {
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := io.Copy(&body, resp.Body); err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return nil, fmt.Errorf("%s %s: HTTP %d", req.Method, req.URL.Path, resp.StatusCode)
	}
	return body.Bytes(), nil
}
