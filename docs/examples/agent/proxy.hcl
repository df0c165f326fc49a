# Lets programs on this machine read tokens without a Vault token: the Agent adds its
# own to each request through the socket.
#
#   vault agent -config=proxy.hcl
#   curl --unix-socket agent.sock -H 'X-Vault-Request: true' http://agent/v1/bcgov-jwt/creds/myapi-shared
#   VAULT_ADDR=unix://$PWD/agent.sock vault read -field=access_token bcgov-jwt/creds/myapi-shared
#
# Whoever may write to the socket may do all that the Agent's policy allows: only the
# Agent's user, unless you set socket_mode, socket_user and socket_group (all three;
# fewer have no effect).

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

api_proxy {
  use_auto_auth_token = true
}

listener "unix" {
  address     = "agent.sock"
  tls_disable = true

  # Requests without the header X-Vault-Request are rejected, so that a program
  # tricked into fetching a URL (SSRF) does not fetch a token.
  require_request_header = true
}

# Returns a failure immediately, so that the program decides whether to retry. With
# the default of 12 retries, it would have to wait.
vault {
  retry {
    num_retries = -1
  }
}
