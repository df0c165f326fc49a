# An auditor sees how everything is set up. What they read holds no secret,
# changes nothing, and sends nothing to the provider.
#
# Not here, on purpose:
#   check   asks the provider for a token, so it is more than looking.

# Which hosts Vault may reach.
path "bcgov-jwt/config" {
  capabilities = ["read"]
}

# The names of the keys.
path "bcgov-jwt/keys/" {
  capabilities = ["list"]
}

# Settings, public keys, and the life of each version. "+" stands for one name,
# so nothing below keys/myapi is meant.
path "bcgov-jwt/keys/+" {
  capabilities = ["read"]
}

# The names of the roles.
path "bcgov-jwt/roles/" {
  capabilities = ["list"]
}

# What each role asks for, and with which key.
path "bcgov-jwt/roles/+" {
  capabilities = ["read"]
}

# Which version of the plugin runs, and how often it got tokens.
path "bcgov-jwt/info" {
  capabilities = ["read"]
}
