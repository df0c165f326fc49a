package tokenendpoint

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

const (
	documentLife = time.Hour   // how long a discovery document is not asked for again
	refreshPause = time.Minute // between attempts to replace an old one
)

// Metadata is what a provider's discovery document (OpenID Connect Discovery 1.0 §3) says of its endpoints.
type Metadata struct {
	TokenEndpoint      string
	RevocationEndpoint string // empty if the provider names none; guarded when it is used
	FetchedAt          time.Time
}

// document is an issuer's metadata in memory.
type document struct {
	metadata Metadata
	dueAt    time.Time // when to ask for a newer one
}

// errClosed ends a shared request when the client is closed under it.
var errClosed = errors.New("the client is closed")

// Discover returns the issuer's metadata, from memory where it is younger than an hour. Callers share one request, each
// under its own context. An old document is served when a newer one cannot be had, or not within a quarter of the request's
// time, so that a slow discovery endpoint does not stop token requests. The error is an *Error.
func (c *Client) Discover(ctx context.Context, issuer string) (Metadata, error) {
	known, fresh := c.known(issuer)
	if fresh {
		return known.metadata, nil
	}
	var patience <-chan time.Time
	if known != nil {
		timer := time.NewTimer(c.timeout / 4)
		defer timer.Stop()
		patience = timer.C
	}
	select {
	//nolint:contextcheck // a refresh serves all who wait, and must not end with the one who began it
	case result := <-c.flights.DoChan(issuer, func() (any, error) { return c.refresh(issuer) }):
		if errors.Is(result.Err, errClosed) {
			return c.fetch(ctx, issuer) // ours alone: it is not background work
		}
		metadata, _ := result.Val.(Metadata)
		return metadata, result.Err
	case <-patience:
		return known.metadata, nil
	case <-ctx.Done():
		return Metadata{}, c.gaveUp(ctx, issuer)
	}
}

// gaveUp is the error of a caller whose own context ended while it waited for the shared request.
func (c *Client) gaveUp(ctx context.Context, issuer string) error {
	call, err := c.newCall(OpDiscovery, documentURL(issuer), nil)
	if err != nil {
		return err
	}
	return call.failed(ctx, ctx.Err())
}

// documentURL is where OpenID Connect Discovery 1.0 §4 puts an issuer's document.
func documentURL(issuer string) string {
	return strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
}

// known returns the cached document, nil if there is none, and reports whether it is fresh.
func (c *Client) known(issuer string) (*document, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.documents[issuer]
	return known, known != nil && c.now().Before(known.dueAt)
}

// refresh fetches a document for all who wait for it, under none of their contexts, and keeps it. If it fails an old one is
// kept for the next minute.
func (c *Client) refresh(issuer string) (metadata any, err error) {
	defer func() {
		if value := recover(); value != nil { // here it would end the process, and with it every mount
			metadata, err = nil, fmt.Errorf("internal error in OpenID discovery (%T): please report it", value)
		}
	}()
	// Another flight may have stored one since the caller read the cache.
	if known, fresh := c.known(issuer); fresh {
		return known.metadata, nil
	}
	if !c.beginBackground() {
		return nil, errClosed
	}
	defer c.background.Done()
	ctx, cancel := c.WithTimeout(c.life)
	defer cancel()

	fetched, err := c.fetch(ctx, issuer)
	if err != nil && c.life.Err() != nil {
		return nil, errClosed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.documents[issuer] = &document{fetched, fetched.FetchedAt.Add(documentLife)}
		return fetched, nil
	}
	if old := c.documents[issuer]; old != nil {
		c.documents[issuer] = &document{old.metadata, c.now().Add(refreshPause)}
		return old.metadata, nil
	}
	return nil, err
}

// beginBackground counts work that Close waits for; false after Close.
func (c *Client) beginBackground() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.life.Err() != nil {
		return false
	}
	c.background.Add(1)
	return true
}

// fetch asks the provider. Its error is an *Error.
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
		return Metadata{}, call.blockedByAnswer(resp, err)
	}
	metadata.FetchedAt = resp.receivedAt
	return metadata, nil
}

// parseMetadata demands the very issuer that was asked for (RFC 8414 §3.3): a document of another one could send our
// assertions elsewhere. Its error is an *answerError.
func parseMetadata(members jsonObject, issuer string) (Metadata, error) {
	var m Metadata
	named, valid := members.string("issuer")
	switch {
	case !valid || named == "":
		return m, invalidAnswer("`issuer` is missing from the discovery document")
	case named != issuer:
		return m, &answerError{OtherIssuer, otherIssuer(named)}
	}
	if m.TokenEndpoint, valid = members.string("token_endpoint"); !valid || m.TokenEndpoint == "" {
		return m, invalidAnswer("`token_endpoint` is missing from the discovery document")
	}
	if m.RevocationEndpoint, valid = members.string("revocation_endpoint"); !valid {
		return m, invalidAnswer("`revocation_endpoint` in the discovery document is not a string")
	}
	return m, nil
}

// otherIssuer names what the document says where that is a plain URL.
func otherIssuer(named string) string {
	const detail = "the discovery document is another issuer's"
	if len(named) > 256 || !printable(named, "") || sanitize(named) != named {
		return detail
	}
	return detail + ": " + redactURL(named)
}
