package tokenendpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Limits of a response's body, after decompression. A token response is a few kilobytes.
const (
	maxDocument = 1 << 20
	maxBody     = 128 << 10 // of any other response
)

// call is one request to the provider with its retries.
type call struct {
	client   *Client
	op       Operation
	endpoint *url.URL
	form     func() (url.Values, error) // nil: a GET

	startedAt time.Time   // of the latest attempt
	dialed    atomic.Bool // whether it tried to open a connection, and did not just wait for one
	connected atomic.Bool // whether it had a connection: a slow provider, not a firewall
	attempts  int
}

type response struct {
	status     int
	header     http.Header
	mediaType  string    // lower case, without parameters
	body       []byte    // if bodyErr is nil
	bodyErr    error     // why the body did not arrive whole, or a *responseError: it is too large
	startedAt  time.Time // of the attempt
	receivedAt time.Time
	serverTime time.Time // zero without a Date header
}

// newCall checks the endpoint. Its error is an *Error.
func (c *Client) newCall(
	op Operation, endpoint string, form func() (url.Values, error),
) (*call, error) {
	u, err := c.guard.CheckURL(endpoint)
	if err != nil {
		return nil, blocked(op, endpoint, err)
	}
	return &call{client: c, op: op, endpoint: u, form: form}, nil
}

// ErrNoRetry is what form returns to end the retries: the outcome of the last attempt stands. If
// there was none, it is returned.
var ErrNoRetry = errors.New("no more attempts")

// run sends the request until a retry would not help. Its error is form's own or an *Error.
func (c *call) run(ctx context.Context) (*response, error) {
	// On a client that was closed in the meantime, no connection of this call may stay idle.
	defer func() {
		if c.client.ctx.Err() != nil {
			c.client.transport.CloseIdleConnections()
		}
	}()
	var resp *response
	var failure error
	for {
		if ctx.Err() != nil { // before form signs for nothing
			return nil, c.failed(ctx, ctx.Err())
		}
		req, err := c.request(ctx)
		wait, retry := time.Duration(0), false
		switch {
		case err == nil:
			resp, failure = c.send(req)
			wait, retry = c.shouldRetry(ctx, resp, failure)
		case c.attempts == 0 || !errors.Is(err, ErrNoRetry):
			return nil, err
		}
		switch {
		case !retry && failure != nil:
			return nil, c.failed(ctx, failure)
		case !retry:
			return resp, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// request returns the next attempt's request, with a fresh form.
func (c *call) request(ctx context.Context) (*http.Request, error) {
	c.startedAt = c.client.now()
	method, body := http.MethodGet, io.Reader(nil)
	if c.form != nil {
		values, err := c.form()
		if err != nil {
			return nil, err
		}
		method, body = http.MethodPost, strings.NewReader(values.Encode())
	}
	c.attempts++
	c.dialed.Store(false)
	c.connected.Store(false)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		DNSStart:     func(httptrace.DNSStartInfo) { c.dialed.Store(true) },
		ConnectStart: func(string, string) { c.dialed.Store(true) },
		GotConn:      func(httptrace.GotConnInfo) { c.connected.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, method, c.endpoint.String(), body)
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	if c.form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.client.userAgent)
	return req, nil
}

// send reads the body to its end, so that the connection can be reused. A truncated body is not an
// error yet: the status of a failure says enough.
func (c *call) send(req *http.Request) (*response, error) {
	resp, err := c.client.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	r := &response{status: resp.StatusCode, header: resp.Header, startedAt: c.startedAt}
	r.mediaType, _, _ = mime.ParseMediaType(resp.Header.Get("Content-Type"))
	r.serverTime, _ = http.ParseTime(resp.Header.Get("Date"))
	limit := int64(maxBody)
	if c.op == OpDiscovery {
		limit = maxDocument
	}
	r.body, r.bodyErr = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if int64(len(r.body)) > limit {
		detail := fmt.Sprintf("the response is larger than %d KiB", limit>>10)
		r.bodyErr = &responseError{ResponseTooLarge, detail}
	}
	r.receivedAt = c.client.now()
	return r, nil
}

// shouldRetry reports whether to retry, and after how long. A connection that broke before a
// response is retried although the request may have been processed: a token request changes nothing
// at the provider, and the next attempt carries its own assertion. A wait that would outlast the
// deadline is not begun, so that the caller learns what the provider said and not only that time
// ran out.
func (c *call) shouldRetry(ctx context.Context, r *response, err error) (time.Duration, bool) {
	if ctx.Err() != nil || c.attempts > c.client.maxRetries {
		return 0, false
	}
	wait, transient := c.client.backoff.wait(c.attempts), false
	if err != nil {
		transient = diagnoseNetwork(err).transient
	} else if requested := retryAfter(r.header, r.receivedAt); requested <= retryAfterLimit {
		transient = transientStatus(r.status)
		wait += requested
	}
	deadline, limited := ctx.Deadline()
	return wait, transient && (!limited || time.Until(deadline) > wait)
}

// success returns the members of a 200 response without an `error`. Its error is an *Error.
func (c *call) success(ctx context.Context, r *response) (jsonObject, error) {
	if r.status != http.StatusOK {
		return nil, c.rejected(r)
	}
	members, err := r.object()
	if err != nil {
		return nil, c.unusable(ctx, r, err)
	}
	if members.has("error") {
		return nil, c.rejected(r)
	}
	return members, nil
}

// retryAfterLimit is the longest Retry-After to wait for. A longer one ends the call: an earlier
// retry would only add to the provider's load, and the caller would wait for nothing.
const retryAfterLimit = 5 * time.Second

// backoff bounds the wait before a retry.
type backoff struct{ min, max time.Duration }

func defaultBackoff() backoff {
	return backoff{min: 250 * time.Millisecond, max: 2 * time.Second}
}

// wait returns min doubled with each attempt, up to max, less up to half at random, so that callers
// that failed together do not retry together.
func (b backoff) wait(attempt int) time.Duration {
	wait := b.max
	if shifted := b.min << (attempt - 1); attempt < 16 && shifted < b.max {
		wait = shifted
	}
	return wait - rand.N(wait/2+1) //nolint:gosec // jitter needs no secrecy
}

// transientStatus reports whether the same request may soon succeed. Not after 500 and 501, which
// recur, or 408, which is a timeout.
func transientStatus(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// retryAfter parses Retry-After (RFC 9110 §10.2.3), seconds or a date; 0 if invalid or absent.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}
