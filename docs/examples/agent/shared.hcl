# Keeps the access token that all readers of a role share in the file "token", for a
# role with delivery=shared.
#
#   vault agent -config=shared.hcl
#
# This is leased.hcl with another role. The response has no lease but "ttl" and
# "rotation_period", so the Agent reads again 1 s after the ttl.

auto_auth {
  method "approle" {
    max_backoff = "10s"

    config = {
      role_id_file_path                   = "role_id"
      secret_id_file_path                 = "secret_id"
      remove_secret_id_file_after_reading = false
    }
  }
}

template {
  contents             = "{{ with secret \"bcgov-jwt/creds/myapi-shared\" }}{{ .Data.access_token }}{{ end }}"
  destination          = "token"
  perms                = "0600"
  error_on_missing_key = true
}

vault {
  retry {
    num_retries = 1000000
  }
}
