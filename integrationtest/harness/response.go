package harness

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Response is a response of Vault's API.
type Response struct {
	Status   int
	Errors   []string
	Warnings []string
	Data     map[string]any
}

// ReadResponse reads a response; one without a body has only a status.
func ReadResponse(resp *http.Response) (Response, error) {
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") { // metrics
		return Response{Status: resp.StatusCode}, nil
	}
	var body struct {
		Errors   []string       `json:"errors"`
		Warnings []string       `json:"warnings"`
		Data     map[string]any `json:"data"`
	}
	err := json.NewDecoder(resp.Body).Decode(&body)
	if errors.Is(err, io.EOF) { // 204
		err = nil
	}
	return Response{
		Status: resp.StatusCode, Errors: body.Errors, Warnings: body.Warnings, Data: body.Data,
	}, err
}

// ErrorText returns all errors as one text.
func (r Response) ErrorText() string { return strings.Join(r.Errors, "\n") }

// Text returns a field that must be a string.
func (r Response) Text(t *testing.T, field string) string {
	t.Helper()
	text, ok := r.Data[field].(string)
	require.True(t, ok, "%s is not a string", field)
	return text
}

// Number returns a field that must be a whole number.
func (r Response) Number(t *testing.T, field string) int {
	t.Helper()
	number, ok := r.Data[field].(float64)
	require.True(t, ok, "%s is not a number", field)
	return int(number)
}

// Version returns a field of one version in the list of a key's versions.
func (r Response) Version(t *testing.T, number int, field string) string {
	t.Helper()
	versions, ok := r.Data["key_info"].(map[string]any)
	require.True(t, ok, "key_info is not an object")
	version, ok := versions[strconv.Itoa(number)].(map[string]any)
	require.True(t, ok, "version %d does not exist", number)
	text, ok := version[field].(string)
	require.True(t, ok, "%s of version %d is not a string", field, number)
	return text
}
