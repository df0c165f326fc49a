# A role author defines what may be requested: scopes, parameters, delivery. They
# obtain no token, and change no key. A role may name any key whose allowed_roles include
# it: read "Role authors" in README.md before you assign this policy.

# The names of the roles.
path "bcgov-jwt/roles/" {
  capabilities = ["list"]
}

# The roles. "+" is one path segment, so no path below is included.
path "bcgov-jwt/roles/+" {
  capabilities = ["create", "read", "update", "patch", "delete"]
}

# The keys, since a role names one: a table with client, issuer and state.
path "bcgov-jwt/keys/" {
  capabilities = ["list"]
}

# Test a role. The token is discarded, not returned.
path "bcgov-jwt/check/+" {
  capabilities = ["read"]
}
