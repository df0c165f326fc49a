package tokenendpoint

import (
	"bytes"
	"context"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"
)

// maxAnswer limits an answer's body, after decompression. A token answer is a few kilobytes.
const maxAnswer = 1 << 20

// call is one request to the provider with its retries.
type call struct {
	client   *Client
	op       Operation
	endpoint *url.URL
	form     func() (url.Values, error) // nil: a GET

	startedAt time.Time   // of the latest attempt
	connected atomic.Bool // whether it had a connection, which tells a slow provider from a firewall
	attempts  int
}

// response is the last attempt's answer.
type response struct {
	status     int
	header     http.Header
	mediaType  string    // lower case, without parameters
	body       []byte    // nil if it did not arrive whole, or is larger than maxAnswer
	bodyErr    error     // why body is nil
	startedAt  time.Time // of the attempt
	receivedAt time.Time
	serverTime time.Time
}

// newCall checks the endpoint. Its error is an *Error.
func (c *Client) newCall(op Operation, endpoint string, form func() (url.Values, error)) (*call, error) {
	u, err := c.guard.CheckURL(endpoint)
	if err != nil {
		return nil, blocked(op, endpoint, err)
	}
	return &call{client: c, op: op, endpoint: u, form: form}, nil
}

// run sends the request until it has an answer that a retry would not improve. Its error is form's
// own or an *Error.
func (c *call) run(ctx context.Context) (*response, error) {
	// On a client that was closed in the meantime, no connection of this call may stay idle.
	defer func() {
		if c.client.life.Err() != nil {
			c.client.transport.CloseIdleConnections()
		}
	}()
	for {
		if ctx.Err() != nil { // before form signs for nothing
			return nil, c.failed(ctx, ctx.Err())
		}
		req, err := c.request(ctx)
		if err != nil {
			return nil, err
		}
		resp, err := c.client.http.Do(req)
		wait, retry := c.shouldRetry(ctx, resp, err)
		switch {
		case err != nil && !retry:
			return nil, c.failed(ctx, err)
		case !retry:
			defer resp.Body.Close()
			return c.receive(resp), nil
		case err == nil:
			resp.Body.Close()
		}
		sleep(ctx, wait)
	}
}

func sleep(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
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
		method, body = http.MethodPost, bytes.NewReader([]byte(values.Encode()))
	}
	c.attempts++
	c.connected.Store(false)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { c.connected.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, method, c.endpoint.String(), body)
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	if c.form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	c.client.setHeaders(req)
	return req, nil
}

func (c *Client) setHeaders(req *http.Request) {
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent)
}

// shouldRetry reports whether to retry, and after how long. A connection that broke before an answer
// counts as a connect error even though the request may have been processed: a token request changes
// nothing at the provider, and the next attempt carries an assertion of its own. A wait that would
// end after the deadline is not begun, so that the caller learns what the provider said and not only
// that time ran out.
func (c *call) shouldRetry(ctx context.Context, resp *http.Response, err error) (time.Duration, bool) {
	if ctx.Err() != nil || c.attempts > c.client.maxRetries {
		return 0, false
	}
	wait := c.client.backoff.wait(c.attempts)
	switch {
	case err != nil && !diagnoseNetwork(err).transient:
		return 0, false
	case err == nil && !transientStatus(resp.StatusCode):
		return 0, false
	case err == nil:
		requested := retryAfter(resp.Header, c.client.now())
		if requested > retryAfterLimit {
			return 0, false
		}
		wait += requested
	}
	deadline, limited := ctx.Deadline()
	return wait, !limited || time.Until(deadline) > wait
}

// receive reads the answer. A body that does not arrive whole matters only to those who need it: a
// failure's status says enough without.
func (c *call) receive(resp *http.Response) *response {
	r := &response{status: resp.StatusCode, header: resp.Header, startedAt: c.startedAt}
	r.mediaType, _, _ = mime.ParseMediaType(resp.Header.Get("Content-Type"))
	r.serverTime, _ = http.ParseTime(resp.Header.Get("Date"))
	r.body, r.bodyErr = readBody(resp)
	r.receivedAt = c.client.now()
	return r
}

// readBody reads to the end, so that the connection can be reused. It returns errTooLarge for a body
// larger than maxAnswer.
func readBody(resp *http.Response) ([]byte, error) {
	var buffer bytes.Buffer
	if length := resp.ContentLength; length > 0 && length <= maxAnswer {
		buffer.Grow(int(length) + bytes.MinRead)
	}
	n, err := buffer.ReadFrom(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case n > maxAnswer:
		return nil, errTooLarge
	case err != nil:
		return nil, err
	}
	return buffer.Bytes(), nil
}
