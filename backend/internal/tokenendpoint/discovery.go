package tokenendpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	documentTTL  = time.Hour   // how long a discovery document is fresh
	refreshPause = time.Minute // between attempts to replace a stale one
	maxDocuments = 1024        // the ones used least recently are dropped
	maxEndpoint  = 2048        // characters
)

// Metadata holds the endpoints of a discovery document (OpenID Connect Discovery 1.0 §3): URLs of
// visible ASCII characters that the guard allows.
type Metadata struct {
	TokenEndpoint      string
	RevocationEndpoint string // empty if absent, or not allowed
	RevocationError    error  // why it is not allowed: a *netguard.Error
	FetchedAt          time.Time
	// token_endpoint_auth_methods_supported and token_endpoint_auth_signing_alg_values_supported.
	AuthMethods, Algorithms []string // nil if not listed
}

// Refine returns a more precise reason than that for which the provider rejected a client, if the
// document shows one: private_key_jwt, or its algorithm, is not offered.
func (m Metadata) Refine(reason Reason, algorithm string) Reason {
	refinable := []Reason{InvalidClient, UnknownClient, SecretClient, WrongAlgorithm}
	switch {
	case !slices.Contains(refinable, reason):
		return reason
	case m.AuthMethods != nil && !slices.Contains(m.AuthMethods, "private_key_jwt"):
		return MethodNotOffered
	case m.Algorithms != nil && !slices.Contains(m.Algorithms, algorithm):
		return AlgorithmNotOffered
	}
	return reason
}

// document is an issuer's cached metadata.
type document struct {
	metadata  Metadata
	refreshAt time.Time
}

// errClosed ends a shared request when the client is closed.
var errClosed = errors.New("the client is closed")

// Discover returns the issuer's metadata, from the cache if younger than an hour. Callers share one
// request, each under its own context. A stale document is served if a new one cannot be fetched,
// or not within a quarter of the request_timeout, so that a slow discovery endpoint does not stop
// token requests. The error is an *Error.
func (c *Client) Discover(ctx context.Context, issuer string) (Metadata, error) {
	cached, fresh := c.cached(issuer)
	if fresh {
		return cached.metadata, nil
	}
	var slow <-chan time.Time
	if cached != nil {
		slow = time.After(c.timeout / 4)
	}
	select {
	//nolint:contextcheck // a refresh serves all who wait, and must not end with its first caller
	case result := <-c.flights.DoChan(issuer, func() (any, error) { return c.refresh(issuer) }):
		if errors.Is(result.Err, errClosed) {
			return c.fetch(ctx, issuer) // for this caller alone: it is not background work
		}
		metadata, _ := result.Val.(Metadata)
		return metadata, result.Err
	case <-slow:
		return cached.metadata, nil
	case <-ctx.Done():
		return c.fetch(ctx, issuer) // sends nothing and returns the *Error
	}
}

// Known returns the issuer's cached metadata, however old; the zero value if there is none.
func (c *Client) Known(issuer string) Metadata {
	if cached, _ := c.cached(issuer); cached != nil {
		return cached.metadata
	}
	return Metadata{}
}

// documentURL follows OpenID Connect Discovery 1.0 §4.
func documentURL(issuer string) string {
	return strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
}

// cached returns the issuer's document, or nil, and reports whether it is fresh.
func (c *Client) cached(issuer string) (*document, bool) {
	value, _ := c.documents.Get(issuer)
	cached, _ := value.(*document)
	return cached, cached != nil && c.now().Before(cached.refreshAt)
}

// refresh fetches and caches a document for all who wait for it, under none of their contexts. If
// that fails, a stale one is served for the next minute.
func (c *Client) refresh(issuer string) (metadata any, err error) {
	defer func() {
		if value := recover(); value != nil { // in this goroutine it would end the whole process
			metadata = nil
			err = fmt.Errorf("internal error in OpenID discovery (%T): please report it", value)
		}
	}()
	// Another flight may have stored one since the caller read the cache.
	stale, fresh := c.cached(issuer)
	if fresh {
		return stale.metadata, nil
	}
	if !c.beginBackground() {
		return nil, errClosed
	}
	defer c.background.Done()
	ctx, cancel := c.WithTimeout(c.ctx)
	defer cancel()

	fetched, err := c.fetch(ctx, issuer)
	if err != nil && c.ctx.Err() != nil {
		return nil, errClosed
	}
	if err == nil {
		c.documents.Add(issuer, &document{fetched, fetched.FetchedAt.Add(documentTTL)})
		return fetched, nil
	}
	if stale != nil {
		c.documents.Add(issuer, &document{stale.metadata, c.now().Add(refreshPause)})
		return stale.metadata, nil
	}
	return nil, err
}

// beginBackground registers work for Close to wait for. It returns false after Close.
func (c *Client) beginBackground() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return false
	}
	c.background.Add(1)
	return true
}

// fetch requests the document. Its error is an *Error.
func (c *Client) fetch(ctx context.Context, issuer string) (Metadata, error) {
	call, err := c.newCall(OpDiscovery, documentURL(issuer), nil)
	if err != nil {
		return Metadata{}, err
	}
	resp, err := call.run(ctx)
	if err != nil {
		return Metadata{}, err
	}
	members, err := call.success(ctx, resp)
	if err != nil {
		return Metadata{}, err
	}
	metadata, err := parseMetadata(members, issuer)
	if err != nil {
		return Metadata{}, call.unusable(ctx, resp, err)
	}
	if err := c.CheckURL(metadata.TokenEndpoint); err != nil {
		return Metadata{}, call.blockedEndpoint(resp, err)
	}
	revocation := metadata.RevocationEndpoint // tokens do not need it
	if err := c.CheckURL(revocation); err != nil && revocation != "" {
		metadata.RevocationEndpoint, metadata.RevocationError = "", err
	}
	metadata.FetchedAt = resp.receivedAt
	return metadata, nil
}

// parseMetadata requires the exact issuer requested (RFC 8414 §3.3): another's document could send
// our assertions elsewhere. Its error is a *responseError.
func parseMetadata(members jsonObject, issuer string) (Metadata, error) {
	var m Metadata
	named, valid := members.string("issuer")
	switch {
	case !valid || named == "":
		return m, malformed("`issuer` is missing from the discovery document")
	case named != issuer:
		return m, &responseError{OtherIssuer, otherIssuer(named)}
	}
	var err error
	if m.TokenEndpoint, err = parseEndpoint(members, "token_endpoint"); err != nil {
		return m, err
	}
	if m.TokenEndpoint == "" {
		return m, malformed("`token_endpoint` is missing from the discovery document")
	}
	m.AuthMethods = members.strings("token_endpoint_auth_methods_supported")
	m.Algorithms = members.strings("token_endpoint_auth_signing_alg_values_supported")
	m.RevocationEndpoint, err = parseEndpoint(members, "revocation_endpoint")
	return m, err
}

// parseEndpoint returns an endpoint that is safe to show, empty if absent.
func parseEndpoint(members jsonObject, name string) (string, error) {
	endpoint, valid := members.string(name)
	if !valid || len(endpoint) > maxEndpoint || !printable(endpoint, "") {
		return "", malformed(fmt.Sprintf("`%s` in the discovery document is not a string of "+
			"at most %d visible ASCII characters", name, maxEndpoint))
	}
	return endpoint, nil
}

// otherIssuer quotes the document's issuer if that is a plain URL.
func otherIssuer(named string) string {
	const detail = "the discovery document is for a different issuer"
	if !printable(named, "") || sanitize(named) != named {
		return detail
	}
	return detail + ": " + redactURL(named)
}
