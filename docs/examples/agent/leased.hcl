# Keeps a fresh access token in the file "token": for a role with delivery=leased.
#
#   vault agent -config=leased.hcl
#
# VAULT_ADDR (and VAULT_CACERT) say which Vault. Relative paths start at the folder
# in which the Agent is started.

auto_auth {
  method "approle" {
    # The longest pause between two tries, to sign in and to get a token. Without
    # it a token's retries come up to a minute apart.
    max_backoff = "10s"

    config = {
      role_id_file_path   = "role_id"
      secret_id_file_path = "secret_id"

      # Kept, so that the Agent can be restarted without anybody's help.
      remove_secret_id_file_after_reading = false
    }
  }
}

template {
  contents    = "{{ with secret \"bcgov-jwt/creds/myapi\" }}{{ .Data.access_token }}{{ end }}"
  destination = "token" # replaced at once: no reader ever sees half a token
  perms       = "0600"

  # A misspelt field is an error, and not the text "<no value>" in the file.
  error_on_missing_key = true
}

# Goes on trying however long the provider is down. After 12 tries, the default,
# the Agent begins anew, each time after a longer pause, of up to 5 minutes.
vault {
  retry {
    num_retries = 1000000
  }
}
