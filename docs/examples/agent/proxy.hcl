# Lets programs on this machine read tokens without a Vault token of their own: the
# Agent adds its own to each request that comes through the socket.
#
#   vault agent -config=proxy.hcl
#   curl --unix-socket agent.sock -H 'X-Vault-Request: true' http://agent/v1/bcgov-jwt/creds/myapi-shared
#   VAULT_ADDR=unix://$PWD/agent.sock vault read -field=access_token bcgov-jwt/creds/myapi-shared
#
# Whoever may write to the socket may do all that the Agent's policy allows. Nobody
# but the Agent's own user may, unless you set socket_mode, socket_user and
# socket_group (all three, or none counts).

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

  # A request without the header X-Vault-Request is refused, so that a program that
  # was tricked into fetching a URL does not fetch a token.
  require_request_header = true
}

# A program gets a failure at once, and decides itself whether to try again. The
# default is 12 retries, for which it would have to wait.
vault {
  retry {
    num_retries = -1
  }
}
