# A role author restricted to one team's keys, by name: all keys and roles of the team
# are named "myapi", or begin with "myapi-".

# The names of the roles. A list cannot be filtered.
path "bcgov-jwt/roles/" {
  capabilities = ["list"]
}

# The team's roles, with the team's keys.
path "bcgov-jwt/roles/myapi-*" {
  capabilities = ["create", "read", "update", "patch", "delete"]

  allowed_parameters = {
    # Only these keys. A write without "key", or with an empty one, passes this rule,
    # and means the key of the role's name. So roles must have the same prefix as
    # keys.
    "key" = ["myapi", "myapi-*"]

    # Every other field of a role, with any value.
    "*" = []
  }
}

# Test one of these roles.
path "bcgov-jwt/check/myapi-*" {
  capabilities = ["read"]
}
