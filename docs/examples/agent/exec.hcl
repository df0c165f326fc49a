# Runs a program with an access token in its environment, and restarts it for each
# new token. For programs that cannot read a file again.
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

# Both come from one read of the role.
env_template "ACCESS_TOKEN" {
  contents             = "{{ with secret \"bcgov-jwt/creds/myapi\" }}{{ .Data.access_token }}{{ end }}"
  error_on_missing_key = true
}

env_template "ACCESS_TOKEN_EXPIRES_AT" {
  contents             = "{{ with secret \"bcgov-jwt/creds/myapi\" }}{{ .Data.expires_at }}{{ end }}"
  error_on_missing_key = true
}

# The program inherits the Agent's environment. If it exits on its own, the Agent
# exits with the same code.
exec {
  command                   = ["./app.sh"]
  restart_on_secret_changes = "always"
  restart_stop_signal       = "SIGTERM" # then SIGKILL after 30 s
}

vault {
  retry {
    num_retries = 1000000
  }
}
