package exchange

import (
	"maps"
	"net/url"
	"strings"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/clientauth"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

func (e *Exchanger) tokenForm(request Request, version *keyring.Version) (url.Values, error) {
	authentication, err := e.authentication(request.Key, version)
	if err != nil {
		return nil, err
	}
	form := url.Values{}
	maps.Copy(form, request.Parameters)
	maps.Copy(form, authentication) // after the parameters, so that none can replace it
	form.Set("grant_type", "client_credentials")
	if len(request.Scopes) > 0 {
		form.Set("scope", strings.Join(request.Scopes, " "))
	}
	return form, nil
}

// authentication returns the parameters that authenticate the client, with a new assertion
// (RFC 7523 §2.2).
func (e *Exchanger) authentication(key *keyring.Key, version *keyring.Version) (url.Values, error) {
	settings := key.Settings()
	assertion, err := e.sign(key, version, settings.AssertionTTL)
	if err != nil {
		return nil, err
	}
	return url.Values{
		"client_id":             {settings.ClientID},
		"client_assertion_type": {clientauth.AssertionType},
		"client_assertion":      {assertion.Compact()},
	}, nil
}
