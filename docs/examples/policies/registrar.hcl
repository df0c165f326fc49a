# A registrar connects a key with the client that the portal shows: writes its client_id
# and issuer, and nothing else. They create no key, and obtain no token.
#
# Vault discovers the token endpoint from the issuer, and an assertion is valid for that
# issuer only. So a registrar who names a server of their own obtains an assertion that
# no provider accepts.

# The keys, as a table with their states.
path "bcgov-jwt/keys/" {
  capabilities = ["list"]
}

# The public key for the portal, and the registration. "+" is one path segment, so no
# path below is included.
path "bcgov-jwt/keys/+" {
  capabilities = ["read", "update", "patch"]

  allowed_parameters = {
    "client_id" = []
    "issuer"    = []
  }
}

# Test the registration. The token is discarded.
path "bcgov-jwt/check/+" {
  capabilities = ["read"]
}
