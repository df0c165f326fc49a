package provider

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// metadata returns a client as RFC 7591 describes it.
func (c Client) metadata() (map[string]any, error) {
	metadata := map[string]any{
		"client_id": c.ID, "grant_types": []string{"client_credentials"},
		"redirect_uris": []string{}, "response_types": []string{},
		"token_endpoint_auth_method": "private_key_jwt", "scope": Scope,
	}
	if c.Secret != "" {
		metadata["token_endpoint_auth_method"] = "client_secret_basic"
		metadata["client_secret"] = c.Secret
		return metadata, nil
	}
	if c.Algorithm != "" {
		metadata["token_endpoint_auth_signing_alg"] = c.Algorithm
	}
	if c.JWKSURL != "" {
		metadata["jwks_uri"] = c.JWKSURL
		return metadata, nil
	}
	keys, err := keySet(c.PublicKey)
	metadata["jwks"] = keys
	return metadata, err
}

// keySet returns a public key in PEM as a key set, with the key id that the engine sends.
func keySet(publicKey string) (jose.JSONWebKeySet, error) {
	if publicKey == "" {
		return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}, nil
	}
	block, _ := pem.Decode([]byte(publicKey))
	if block == nil {
		return jose.JSONWebKeySet{}, errors.New("the public key is not PEM")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return jose.JSONWebKeySet{}, err
	}
	digest := sha256.Sum256(block.Bytes)
	id := base64.RawURLEncoding.EncodeToString(digest[:])
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key, KeyID: id, Use: "sig"}}}, nil
}

// put sends a client's metadata and returns the status, which must be one of those accepted.
func put(
	ctx context.Context, method, target string, metadata map[string]any, accepted ...int,
) (status int, err error) {
	body, err := json.Marshal(metadata)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	status, _, err = send(req, accepted...)
	return status, err
}

// introspect asks an introspection endpoint; client and secret authenticate unless empty.
func introspect(ctx context.Context, endpoint, client, secret, token string) (bool, error) {
	form := strings.NewReader(url.Values{"token": {token}}.Encode())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, form)
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if client != "" {
		req.SetBasicAuth(client, secret)
	}
	_, body, err := send(req, http.StatusOK)
	if err != nil {
		return false, err
	}
	var response struct {
		Active bool `json:"active"`
	}
	err = json.Unmarshal(body, &response)
	return response.Active, err
}

func send(req *http.Request, accepted ...int) (status int, body []byte, err error) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		return 0, nil, err
	}
	if !slices.Contains(accepted, resp.StatusCode) {
		return 0, nil, fmt.Errorf("%s %s: %s: %s", req.Method, req.URL.Path, resp.Status, body)
	}
	return resp.StatusCode, body, nil
}
