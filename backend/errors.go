package backend

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/sdk/logical"
)

// userError is an error that the user can fix. Vault answers 400 with its text unchanged.
type userError struct{ error }

func userErrorf(format string, args ...any) error {
	return userError{fmt.Errorf(format, args...)}
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
