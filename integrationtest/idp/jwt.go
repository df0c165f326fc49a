package idp

import "errors"

// SignJWT returns a JWT with just these claims, signed as the realm's access tokens are: so a realm can stand for another
// issuer, such as a CI system.
func (s *Server) SignJWT(realm string, claims any) (string, error) {
	rm := s.realm(realm)
	if rm == nil {
		return "", errors.New("no such realm")
	}
	return rm.sign(claims)
}
