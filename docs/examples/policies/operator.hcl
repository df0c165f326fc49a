# An operator manages keys: creates, registers, rotates and diagnoses them, but
# obtains no token and imports no private key.
#
# Deliberately omitted:
#   creds, assertion   a token, or the means to obtain one.
#   keys/+/import      a private key that someone knows.
#   config             the hosts that Vault may reach.

# The names of the keys.
path "bcgov-jwt/keys/" {
  capabilities = ["list"]
}

# The keys: all settings and public keys. "+" is one path segment, so
# keys/myapi/import is not included. No "delete": the private key would be lost
# permanently.
path "bcgov-jwt/keys/+" {
  capabilities = ["create", "read", "update", "patch"]

  # Where assertions go, and for whom they are valid. Whoever sets these can have an
  # assertion of a registered key sent to a server of their own, and obtain a token
  # with it. Without them, Vault discovers the token endpoint from the issuer, and an
  # assertion is valid for that issuer only.
  denied_parameters = {
    "audience"            = []
    "revocation_endpoint" = []
    "token_endpoint"      = []
  }
}

# Create the next version of a key.
path "bcgov-jwt/keys/+/rotate" {
  capabilities = ["update"]
}

# Switch to it. Vault tests it first, and discards that token.
path "bcgov-jwt/keys/+/activate" {
  capabilities = ["update"]
}

# Destroy a version that others may know: an emergency does not wait for an
# administrator. The active version cannot be destroyed.
path "bcgov-jwt/keys/+/destroy" {
  capabilities = ["update"]
}

# Test each step of obtaining a token. The token is discarded.
path "bcgov-jwt/check/+" {
  capabilities = ["read"]
}

# The plugin's version and this node's counters.
path "bcgov-jwt/info" {
  capabilities = ["read"]
}
