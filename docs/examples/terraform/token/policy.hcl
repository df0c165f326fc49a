# The policy for an apply that uses an access token.

path "bcgov-jwt/creds/myapi" {
  capabilities = ["read"]
}

# The Terraform provider creates a short-lived child token of yours.
path "auth/token/create" {
  capabilities = ["update"]
}
