# The engine, its network settings, and for each environment a key and a role: the key
# is the OAuth client registered there, the role is what to request.

terraform {
  required_version = ">= 1.3"
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 3.3"
    }
  }
}

# Set VAULT_ADDR to the Vault server's address and VAULT_TOKEN to your token.
provider "vault" {}

resource "vault_mount" "engine" {
  depends_on = [vault_generic_endpoint.registration]

  path        = var.mount
  type        = "vault-plugin-bcgov-jwt"
  description = "Access tokens for APIs behind the gateway"

  # In plaintext in the audit log, so that a token leads to its reader.
  audit_non_hmac_response_keys = ["key_id", "token_jti"]

  lifecycle {
    prevent_destroy = true # the keys would be lost
  }
}

resource "vault_generic_endpoint" "config" {
  depends_on = [vault_generic_endpoint.reload]

  path                 = "${vault_mount.engine.path}/config"
  data_json            = jsonencode(var.config)
  ignore_absent_fields = true
}

resource "vault_generic_endpoint" "key" {
  for_each   = var.environments
  depends_on = [vault_generic_endpoint.config]

  path = "${vault_mount.engine.path}/keys/${var.api}-${each.key}"
  data_json = jsonencode({
    client_id        = each.value.client_id
    issuer           = each.value.issuer
    token_endpoint   = each.value.token_endpoint
    deletion_allowed = each.value.deletion_allowed
  })
  write_fields         = ["public_key"]
  ignore_absent_fields = true

  lifecycle {
    prevent_destroy = true # the provider knows only this key pair
  }
}

resource "vault_generic_endpoint" "role" {
  for_each   = var.environments
  depends_on = [vault_generic_endpoint.key]

  path = "${vault_mount.engine.path}/roles/${var.api}-${each.key}"
  data_json = jsonencode({
    key      = "${var.api}-${each.key}"
    scopes   = each.value.scopes
    delivery = each.value.delivery
  })
  ignore_absent_fields = true
}
