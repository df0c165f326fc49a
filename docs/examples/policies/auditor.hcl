# An auditor reads all settings. This reveals no secret, changes nothing, and sends
# nothing to the provider.
#
# Deliberately omitted:
#   check   requests a token from the provider.

# The hosts that Vault may reach.
path "bcgov-jwt/config" {
  capabilities = ["read"]
}

# The keys, as a table with their states.
path "bcgov-jwt/keys/" {
  capabilities = ["list"]
}

# Settings and public keys. "+" is one path segment, so nothing below keys/myapi is
# included.
path "bcgov-jwt/keys/+" {
  capabilities = ["read"]
}

# The certificate, the key set, and all versions.
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

# The roles, as a table with what each requests.
path "bcgov-jwt/roles/" {
  capabilities = ["list"]
}

# What each role requests, and with which key.
path "bcgov-jwt/roles/+" {
  capabilities = ["read"]
}

# The plugin's version, counters and metrics.
path "bcgov-jwt/info" {
  capabilities = ["read"]
}
path "bcgov-jwt/metrics" {
  capabilities = ["read"]
}
