# An auditor reads all settings. This reveals no secret, changes nothing, and sends
# nothing to the provider.
#
# Deliberately omitted:
#   check   requests a token from the provider.

# The hosts that Vault may reach.
path "bcgov-jwt/config" {
  capabilities = ["read"]
}

# The names of the keys.
path "bcgov-jwt/keys/" {
  capabilities = ["list"]
}

# Settings, public keys, and all versions. "+" is one path segment, so nothing below
# keys/myapi is included.
path "bcgov-jwt/keys/+" {
  capabilities = ["read"]
}

# The names of the roles.
path "bcgov-jwt/roles/" {
  capabilities = ["list"]
}

# What each role requests, and with which key.
path "bcgov-jwt/roles/+" {
  capabilities = ["read"]
}

# The plugin's version and counters.
path "bcgov-jwt/info" {
  capabilities = ["read"]
}
