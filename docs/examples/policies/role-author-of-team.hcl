# A role author who is kept to the keys of one team. It rests on names: here all
# keys and roles of the team are called "myapi", or begin with "myapi-".

# The names of the roles. A list cannot be cut down to some of them.
path "bcgov-jwt/roles/" {
  capabilities = ["list"]
}

# The team's roles, with the team's keys.
path "bcgov-jwt/roles/myapi-*" {
  capabilities = ["create", "read", "update", "patch", "delete"]

  allowed_parameters = {
    # These keys and no other. A write without "key", or with an empty one, gets
    # past this rule, and means the key of the role's own name. So the roles have
    # to begin with what the keys begin with.
    "key" = ["myapi", "myapi-*"]

    # Every other field of a role, with any value.
    "*" = []
  }
}

# Whether one of these roles works.
path "bcgov-jwt/check/myapi-*" {
  capabilities = ["read"]
}
