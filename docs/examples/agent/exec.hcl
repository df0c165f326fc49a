# Runs a program with an access token in its environment, and restarts the program
# whenever there is a new token. For programs that cannot read a file anew.
#
#   vault agent -config=exec.hcl

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

# Both come of one read of the role.
env_template "ACCESS_TOKEN" {
  contents             = "{{ with secret \"bcgov-jwt/creds/myapi\" }}{{ .Data.access_token }}{{ end }}"
  error_on_missing_key = true
}

env_template "ACCESS_TOKEN_EXPIRES_AT" {
  contents             = "{{ with secret \"bcgov-jwt/creds/myapi\" }}{{ .Data.expires_at }}{{ end }}"
  error_on_missing_key = true
}

# The program also has all of the Agent's own environment. If it ends by itself,
# the Agent ends with the same exit code.
exec {
  command                   = ["./app.sh"]
  restart_on_secret_changes = "always"
  restart_stop_signal       = "SIGTERM" # and SIGKILL if it has not ended 30 s later
}

vault {
  retry {
    num_retries = 1000000
  }
}
