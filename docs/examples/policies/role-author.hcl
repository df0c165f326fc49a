# A role author decides what may be asked for: scopes, parameters, delivery.
# They get no token, and change no key. A role may name any key of the mount:
# read "What a role author can do" in README.md before you give this to anyone.

# The names of the roles.
path "bcgov-jwt/roles/" {
  capabilities = ["list"]
}

# The roles themselves. "+" stands for one name, so no path below it is meant.
path "bcgov-jwt/roles/+" {
  capabilities = ["create", "read", "update", "patch", "delete"]
}

# The names of the keys, as a role has to name one. Not what is in them.
path "bcgov-jwt/keys/" {
  capabilities = ["list"]
}

# Whether a role works. The token that this gets is thrown away, not shown.
path "bcgov-jwt/check/+" {
  capabilities = ["read"]
}
