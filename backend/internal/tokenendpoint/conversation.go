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

	"github.com/hashicorp/go-retryablehttp"
)

// maxAnswer limits an answer's body, after decompression. A token answer is a few kilobytes.
const maxAnswer = 1 << 20

// conversation is one request to the provider with its retries.
type conversation struct {
	client   *Client
	op       Operation
	endpoint *url.URL
	form     func() (url.Values, error) // nil: a GET

	body      []byte // the form of the present attempt
	startedAt time.Time
	connected atomic.Bool // whether the present attempt had a connection, which tells a slow provider from a firewall
	attempts  int
	wait      time.Duration // before the next attempt
	formErr   error
}

// answer is the last attempt's.
type answer struct {
	status     int
	header     http.Header
	mediaType  string    // lower case, without parameters
	body       []byte    // nil if it did not come whole, or is larger than maxAnswer
	startedAt  time.Time // of the attempt
	bodyErr    error     // why body is nil
	receivedAt time.Time
	serverTime time.Time
}

// start checks the endpoint. The error is an *Error.
func (c *Client) start(op Operation, endpoint string, form func() (url.Values, error)) (*conversation, error) {
	u, err := c.guard.checkURL(endpoint)
	if err != nil {
		return nil, blocked(op, endpoint, err)
	}
	return &conversation{client: c, op: op, endpoint: u, form: form}, nil
}

// run sends the request until it has an answer that a retry would not better. The error is form's own or an *Error.
func (v *conversation) run(ctx context.Context) (*answer, error) {
	if ctx.Err() != nil { // before form signs for nothing
		return nil, v.failed(ctx, ctx.Err())
	}
	// On a client that was closed meanwhile, nothing may stay idle behind this request.
	defer func() {
		if v.client.life.Err() != nil {
			v.client.transport.CloseIdleConnections()
		}
	}()
	req, err := v.request(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := v.retrier().Do(req)
	switch {
	case v.formErr != nil:
		return nil, v.formErr
	case err != nil:
		return nil, v.failed(ctx, err)
	}
	defer resp.Body.Close()
	return v.receive(resp), nil
}

// request makes the first attempt's request. Its body is read anew from v.body on every attempt.
func (v *conversation) request(ctx context.Context) (*retryablehttp.Request, error) {
	method, body := http.MethodGet, any(nil)
	if v.form != nil {
		method = http.MethodPost
		body = retryablehttp.ReaderFunc(func() (io.Reader, error) { return bytes.NewReader(v.body), nil })
	}
	if err := v.prepare(); err != nil {
		return nil, err
	}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { v.connected.Store(true) }})
	req, err := retryablehttp.NewRequestWithContext(ctx, method, v.endpoint.String(), body)
	if err != nil {
		return nil, v.failed(ctx, err)
	}
	if v.form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	v.client.setHeaders(req.Request)
	return req, nil
}

func (c *Client) setHeaders(req *http.Request) {
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent)
}

// prepare begins an attempt with a fresh form.
func (v *conversation) prepare() error {
	v.startedAt = v.client.now()
	if v.form != nil {
		values, err := v.form()
		if err != nil {
			v.formErr = err
			return err
		}
		v.body = []byte(values.Encode())
	}
	v.attempts++
	v.connected.Store(false)
	return nil
}

func (v *conversation) retrier() *retryablehttp.Client {
	return &retryablehttp.Client{
		HTTPClient: v.client.http,
		RetryMax:   v.client.maxRetries,
		CheckRetry: v.checkRetry,
		Backoff:    func(_, _ time.Duration, _ int, _ *http.Response) time.Duration { return v.wait },
		PrepareRetry: func(req *http.Request) error {
			err := v.prepare()
			req.ContentLength = int64(len(v.body))
			return err
		},
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
}

// checkRetry decides whether to try again. A connection that broke before an answer came counts as a connect error also
// when the request may have been processed: a token request changes nothing at the provider, and the next attempt brings
// an assertion of its own. A wait that would end after the deadline is not begun, so that the reader learns what the
// provider said and not only that time ran out.
func (v *conversation) checkRetry(ctx context.Context, resp *http.Response, err error) (bool, error) {
	if ctx.Err() != nil || v.attempts > v.client.maxRetries {
		return false, nil
	}
	v.wait = v.client.backoff.wait(v.attempts)
	switch {
	case err != nil && !diagnoseNetwork(err).transient:
		return false, nil
	case err == nil && !transientStatus(resp.StatusCode):
		return false, nil
	case err == nil:
		asked := retryAfter(resp.Header, v.client.now())
		if asked > retryAfterLimit {
			return false, nil
		}
		v.wait += asked
	}
	deadline, limited := ctx.Deadline()
	return !limited || time.Until(deadline) > v.wait, nil
}

// receive reads the answer. A body that does not come whole matters only to those who need it: a failure's status says
// enough without.
func (v *conversation) receive(resp *http.Response) *answer {
	a := &answer{status: resp.StatusCode, header: resp.Header, startedAt: v.startedAt}
	a.mediaType, _, _ = mime.ParseMediaType(resp.Header.Get("Content-Type"))
	a.serverTime, _ = http.ParseTime(resp.Header.Get("Date"))
	a.body, a.bodyErr = readBody(resp)
	a.receivedAt = v.client.now()
	return a
}

// readBody reads to the end, which lets the connection be used again. A larger body than maxAnswer is errTooLarge.
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
