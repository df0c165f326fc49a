# Keeps a fresh access token in the file "token", for a role with delivery=leased.
#
#   vault agent -config=leased.hcl
#
# Set VAULT_ADDR (and VAULT_CACERT) for the Vault server. Paths are relative to the
# folder in which the Agent starts.

auto_auth {
  method "approle" {
    # The longest pause between retries, to log in and to read a token. By
    # default, the retries for a token come up to a minute apart.
    max_backoff = "10s"

    config = {
      role_id_file_path   = "role_id"
      secret_id_file_path = "secret_id"

      # Kept, so that the Agent can restart unattended.
      remove_secret_id_file_after_reading = false
    }
  }
}

template {
  contents    = "{{ with secret \"bcgov-jwt/creds/myapi\" }}{{ .Data.access_token }}{{ end }}"
  destination = "token" # replaced atomically: no reader sees a partial token
  perms       = "0600"

  # A misspelled field is an error instead of "<no value>" in the file.
  error_on_missing_key = true
}

# Keeps retrying, however long the provider is down. After 12 tries, the default, the
# Agent would start over, each time after a longer pause, of up to 5 minutes.
vault {
  retry {
    num_retries = 1000000
  }
}
