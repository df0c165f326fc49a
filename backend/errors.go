package backend

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

// userError is an error that the user can fix. Vault answers 400 with its text unchanged.
type userError struct{ error }

func userErrorf(format string, args ...any) error {
	return userError{fmt.Errorf(format, args...)}
}

// withRemedy adds to the error of a damaged entry what to do.
func withRemedy(mount string, err error) error {
	damaged, ok := errors.AsType[*storage.DamagedError](err)
	if !ok {
		return err
	}
	path := damaged.Path
	if path == keyring.WrappingKeyStoragePath {
		return fmt.Errorf("%w; restore it from a backup", err)
	}
	if kind, name, ok := strings.Cut(path, "/"); ok { // key/a is served as keys/a
		path = kind + "s/" + name
	}
	return fmt.Errorf("%w; restore it from a backup, or delete it with: vault delete %s%s",
		err, mount, path)
}

// vaultError turns a handler's error into one that Vault passes on: only an ErrorResponse and a
// bare CodedError keep their meaning on the way from the plugin.
func vaultError(resp *logical.Response, err error) (*logical.Response, error) {
	var user userError
	var coded logical.HTTPCodedError
	switch {
	case err == nil:
		return resp, nil
	case errors.As(err, &user):
		return logical.ErrorResponse(err.Error()), nil
	case errors.As(err, &coded):
		return nil, coded
	// Over gRPC only the text of Vault's error is left.
	case strings.Contains(err.Error(), logical.ErrReadOnly.Error()):
		return nil, logical.ErrReadOnly
	default:
		return resp, err
	}
}

// providerError explains a provider's error, with the status that tells the reader who can fix it.
// Other errors pass unchanged.
func providerError(err error, s *situation) error {
	failure, ok := errors.AsType[*tokenendpoint.Error](err)
	if !ok {
		return err
	}
	tried := err.Error()
	var others []string
	if refused, ok := errors.AsType[*exchange.AllVersionsRefusedError](err); ok {
		tried, others = failure.Error(), refused.Others()
	}
	text := strings.TrimSpace(sentence(tried) + " " + s.advice(failure))
	text = strings.Join(append([]string{text}, others...), "\n")
	switch failure.Reason.Kind() {
	case tokenendpoint.KindRejected, tokenendpoint.KindBlocked:
		return userError{errors.New(text)}
	case tokenendpoint.KindTimedOut, tokenendpoint.KindCanceled:
		return logical.CodedError(http.StatusGatewayTimeout, text)
	default:
		return logical.CodedError(http.StatusBadGateway, text)
	}
}
