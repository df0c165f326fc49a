package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// Observe passes requests on, and adds the assertions and access tokens that pass.
func (d *LeakDetector) Observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "", http.StatusBadRequest)
			return
		}
		d.addAssertions(body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		next.ServeHTTP(&observedWriter{ResponseWriter: w, detector: d}, r)
	})
}

func (d *LeakDetector) addAssertions(body []byte) {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return
	}
	for _, assertion := range form["client_assertion"] {
		d.AddToken(kindAssertion, assertion)
	}
}

// observedWriter adds an access token before it is sent. A token response is small and is written
// in one piece.
type observedWriter struct {
	http.ResponseWriter
	detector *LeakDetector
}

func (o *observedWriter) Write(body []byte) (int, error) {
	var response struct {
		AccessToken string `json:"access_token"`
	}
	if json.Unmarshal(body, &response) == nil && response.AccessToken != "" {
		o.detector.AddAccessToken(response.AccessToken)
	}
	return o.ResponseWriter.Write(body)
}

// Unwrap lets http.ResponseController reach the connection.
func (o *observedWriter) Unwrap() http.ResponseWriter { return o.ResponseWriter }

// transport records every response of the server, unless the detector is nil.
func (d *LeakDetector) transport(base http.RoundTripper) http.RoundTripper {
	if d == nil {
		return base
	}
	return observedTransport{detector: d, base: base}
}

type observedTransport struct {
	detector *LeakDetector
	base     http.RoundTripper
}

func (o observedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := o.base.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	where := fmt.Sprintf("the response %d to %s %s", resp.StatusCode, req.Method, req.URL.Path)
	switch {
	case strings.HasPrefix(req.URL.Path, "/v1/sys/raw/"): // where the private keys are read from
	case strings.Contains(req.URL.Path, "/creds/") && resp.StatusCode == http.StatusOK:
		o.detector.RecordCreds(where, body)
	case strings.Contains(req.URL.Path, "/assertion/") && resp.StatusCode == http.StatusOK:
		o.detector.Record(where, o.detector.extract(kindAssertion, "client_assertion", body))
	default:
		o.detector.Record(where, string(body))
	}
	return resp, nil
}

// RecordCreds records the body of a response to a read of creds, all but the access token in its
// field.
func (d *LeakDetector) RecordCreds(where string, body []byte) {
	d.Record(where, d.extract(kindAccessToken, "access_token", body))
}

// extract adds the token in the field where it belongs, so that it is found anywhere else, and
// returns the body without it.
func (d *LeakDetector) extract(kind, field string, body []byte) string {
	var response map[string]any
	if json.Unmarshal(body, &response) != nil {
		return string(body)
	}
	if data, isObject := response["data"].(map[string]any); isObject {
		if token, isText := data[field].(string); isText {
			d.AddToken(kind, token)
		}
		delete(data, field)
	}
	rest, err := json.Marshal(response)
	if err != nil {
		return string(body)
	}
	return string(rest)
}
