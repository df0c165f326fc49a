package idp

// SignJWT returns a JWT with exactly these claims, signed like the realm's access tokens: with it a
// realm can stand for a different issuer, such as a CI system.
func (s *Server) SignJWT(realm string, claims any) (string, error) {
	rm := s.realm(realm)
	if rm == nil {
		return "", errNoRealm
	}
	return rm.sign(claims)
}
