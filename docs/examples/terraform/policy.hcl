# What the token of an apply may do: set the engine up, and never read an access token.

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

# The provider works with a short-lived token that it makes from yours.
path "auth/token/create" {
  capabilities = ["update"]
}
