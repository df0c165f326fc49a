# An operator looks after keys: makes and registers them, rotates them, and
# finds out what is wrong. They get no token, and bring no private key with them.
#
# Not here, on purpose:
#   creds, assertion   a token, or what gets one.
#   keys/+/import      a private key that someone knows.
#   config             which hosts Vault may reach.

# The names of the keys.
path "bcgov-jwt/keys/" {
  capabilities = ["list"]
}

# The keys: all settings and public keys. "+" stands for one name and not for
# what is below it, so keys/myapi/import is not meant. No "delete": the private
# key would be gone for good.
path "bcgov-jwt/keys/+" {
  capabilities = ["create", "read", "update", "patch"]

  # Where assertions go, and for whom they are good. Who can set these can have
  # an assertion of a registered key sent to a server of their own, and get a
  # token with it. Without them Vault finds the endpoints through the issuer,
  # and an assertion is good for that issuer only. (Where an administrator set
  # an audience, token_endpoint must be set too.)
  denied_parameters = {
    "audience"            = []
    "revocation_endpoint" = []
    "token_endpoint"      = []
  }
}

# The next version of a key.
path "bcgov-jwt/keys/+/rotate" {
  capabilities = ["update"]
}

# To switch over to it. Vault tries it first, and throws that token away.
path "bcgov-jwt/keys/+/activate" {
  capabilities = ["update"]
}

# To remove a version that others may know: an emergency does not wait for an
# administrator. The active version is refused.
path "bcgov-jwt/keys/+/destroy" {
  capabilities = ["update"]
}

# What works and what does not, step by step. The token is thrown away.
path "bcgov-jwt/check/+" {
  capabilities = ["read"]
}

# Which version of the plugin runs, and how it fares on this node.
path "bcgov-jwt/info" {
  capabilities = ["read"]
}
