# The policy for an apply: configures the engine, and cannot read an access token.

path "sys/mounts" {
  capabilities = ["read"]
}

path "sys/mounts/bcgov-jwt" {
  capabilities = ["create", "read", "update", "delete"]
}

path "sys/mounts/bcgov-jwt/tune" {
  capabilities = ["read", "update"]
}

path "bcgov-jwt/config" {
  capabilities = ["create", "read", "update", "delete"]
}

path "bcgov-jwt/keys/+" {
  capabilities = ["create", "read", "update", "delete"]
}

path "bcgov-jwt/roles/+" {
  capabilities = ["create", "read", "update", "delete"]
}

# The Terraform provider creates a short-lived child token of yours.
path "auth/token/create" {
  capabilities = ["update"]
}
