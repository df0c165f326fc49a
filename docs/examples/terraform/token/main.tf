# Calls an API during an apply, with an access token that is in no plan and no state.
#
# Set VAULT_ADDR to the Vault server's address and VAULT_TOKEN to your token, which
# needs policy.hcl.

terraform {
  required_version = ">= 1.10" # OpenTofu: 1.11
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = ">= 5.8"
    }
  }
}

provider "vault" {}

variable "mount" {
  description = "Path of the mount."
  type        = string
  default     = "bcgov-jwt"
}

variable "api_url" {
  description = "URL to call."
  type        = string
}

# Read again for each plan and each apply.
ephemeral "vault_generic_secret" "myapi" {
  path = "${var.mount}/creds/myapi"
}

# Stands for your own use: an argument of a provider, a provisioner, or a write-only
# argument of a resource. Terraform allows an ephemeral value nowhere else.
resource "terraform_data" "call" {
  triggers_replace = [var.api_url]

  provisioner "local-exec" {
    command = "printf 'Authorization: Bearer %s' \"$ACCESS_TOKEN\" | curl -sS --fail-with-body -H @- \"$API_URL\""
    environment = {
      ACCESS_TOKEN = ephemeral.vault_generic_secret.myapi.data["access_token"]
      API_URL      = var.api_url
    }
  }
}
