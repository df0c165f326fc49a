# An operator manages keys: creates, rotates and diagnoses them, but obtains no token
# and imports no private key.
#
# Deliberately omitted:
#   client_id, issuer  registrar.hcl, which the same person may have.
#   creds, assertion   a token, or the means to obtain one.
#   keys/+/import      a private key that someone knows.
#   config             the hosts that Vault may reach.

# The keys, as a table with their states.
path "bcgov-jwt/keys/" {
  capabilities = ["list"]
}

# The keys: all settings and public keys. "+" is one path segment, so
# keys/myapi/import is not included. No "delete": the private key would be lost
# permanently.
path "bcgov-jwt/keys/+" {
  capabilities = ["create", "read", "update", "patch"]

  # Nothing that says where assertions go, and for whom they are valid: whoever sets
  # audience, token_endpoint or revocation_endpoint can have an assertion of a
  # registered key sent to a server of their own, and obtain a token with it.
  allowed_parameters = {
    "type"               = []
    "registration"       = []
    "auto_rotate_period" = []
    "prepublish_period"  = []
    "overlap_period"     = []
    "common_name"        = []
    "disabled"           = []
    "allowed_roles"      = []
    "algorithm"          = []
    "assertion_ttl"      = []
    "send_key_id"        = []
  }
}

# The certificate, the key set to host elsewhere, and the versions.
path "bcgov-jwt/keys/+/certificate" {
  capabilities = ["read"]
}
path "bcgov-jwt/keys/+/jwks" {
  capabilities = ["read"]
}
path "bcgov-jwt/keys/+/versions/" {
  capabilities = ["list"]
}
path "bcgov-jwt/keys/+/versions/+" {
  capabilities = ["read"]
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

# The plugin's version, and this node's counters and metrics.
path "bcgov-jwt/info" {
  capabilities = ["read"]
}
path "bcgov-jwt/metrics" {
  capabilities = ["read"]
}
