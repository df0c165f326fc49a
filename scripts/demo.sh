#!/usr/bin/env bash
# Follows the API Gateway's four steps to a token, with Vault instead of a key file, and shows
# each command and its output. Builds the plugin and starts a dev server of HOST
# (scripts/host.sh; default: vault), an identity provider and a protected API on free ports of
# 127.0.0.1. Nothing is left when it ends.
#
# Usage: scripts/demo.sh embedded|keycloak [keep]
#
# embedded: the provider that the tests use. keycloak: a real Keycloak; needs Java and Maven.
# keep: leave everything running until Ctrl-C.
set -euo pipefail

cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

realm=apigw
bold='' blue='' plain=''
if [ -t 1 ]; then bold=$'\033[1m' blue=$'\033[36m' plain=$'\033[0m'; fi

# prepare PROVIDER: builds and starts everything.
prepare() {
  local name binary
  need go "Go 1.26 or later: https://go.dev/doc/install"
  need curl "curl: https://curl.se"
  log "Building the plugin ..."
  make --no-print-directory build BINARY="$dir/plugins/vault-plugin-bcgov-jwt" >/dev/null
  go build -buildvcs=false -o "$dir/bin/provider" ./integrationtest/idp/server
  binary=$(scripts/host.sh "${HOST:-vault}")
  ln -s "$binary" "$dir/bin/vault"
  export PATH=$dir/bin:$PATH
  for name in "${!VAULT_@}" "${!BAO_@}"; do unset "$name"; done

  start_provider "$1"
  log "Starting Vault ..."
  export VAULT_ADDR VAULT_TOKEN=root
  VAULT_ADDR=http://127.0.0.1:$(free_port)
  background vault server -dev -dev-no-store-token -dev-root-token-id="$VAULT_TOKEN" \
    -dev-listen-address="${VAULT_ADDR#http://}" -dev-plugin-dir="$dir/plugins"
  await vault vault status
}

# start_provider PROVIDER: sets IDP to the provider's base URL and API to the protected API's
# URL. The embedded provider serves the API even when Keycloak is the issuer.
start_provider() {
  local issuer=
  log "Starting the identity provider ..."
  if [ "$1" = keycloak ]; then
    IDP=$(scripts/keycloak.sh start "$(free_port)" "$dir")
    issuer=$IDP/realms/$realm
  fi
  background provider -realm "$realm" -issuer "$issuer"
  await provider grep PROTECTED_API= "$dir/provider.log"
  IDP=${IDP:-$(sed -n 's/^BASE_URL=//p' "$dir/provider.log")}
  API=$(sed -n 's/^PROTECTED_API=//p' "$dir/provider.log")
}

# background COMMAND...: runs it in the background and logs to a file of its name.
background() {
  "$@" >"$dir/$1.log" 2>&1 </dev/null &
  pids="$! $pids"
}

# await NAME TEST...: waits until TEST succeeds for the last background command.
await() {
  local name=$1 deadline=$((SECONDS + 30))
  shift
  until "$@" >/dev/null 2>&1; do
    if ! kill -0 "${pids%% *}" 2>/dev/null || [ "$SECONDS" -gt "$deadline" ]; then
      tail -n 20 "$dir/$name.log" >&2
      die "$name did not start; see the end of its log above."
    fi
    sleep 0.2
  done
}

clean_up() {
  local pid
  trap '' INT TERM
  for pid in $pids; do kill "$pid" 2>/dev/null || true; done
  scripts/keycloak.sh stop "$dir"
  wait
  rm -rf "$dir"
}

title() { printf '\n\n%s%s%s\n' "$bold" "$1" "$plain"; }

# show COMMAND: prints the command as a user would type it, and its output.
show() {
  printf '\n%s$ %s%s\n' "$blue" "$1" "$plain"
  eval "$1"
}

# expect STATUS COMMAND: shows a curl -i whose response must have this status.
expect() {
  local response
  response=$(show "$2")
  printf '%s\n' "$response"
  [[ $response == *"HTTP/1.1 $1"* ]] || die "expected status $1."
}

# shellcheck disable=SC2016 # the commands are shown as typed
walk_through() {
  title "Setup: enable the plugin"
  show 'vault secrets enable -path=bcgov-jwt vault-plugin-bcgov-jwt'
  echo "
(Needed only because this provider uses plain HTTP on 127.0.0.1:)"
  show 'vault write bcgov-jwt/config allow_insecure_endpoints=true'

  title "1. Generate a key pair in Vault; the private key never leaves it"
  show 'vault write -f -field=public_key bcgov-jwt/keys/myapi'

  title "2. Request access to the API with the public key"
  echo "
(In the API Services Portal, you paste this public key. Here, a command registers it:)"
  show "vault read -field=public_key bcgov-jwt/keys/myapi |
    go run ./integrationtest/keycloak/register -url $IDP -realm $realm -client-id myapi-client"
  echo "
(The portal then shows the Client ID, Issuer and Token Endpoint:)"
  show "export CID=myapi-client
  export ISS=$IDP/realms/$realm
  export TURL=$IDP/realms/$realm/protocol/openid-connect/token"
  show 'vault write bcgov-jwt/keys/myapi client_id=$CID issuer=$ISS token_endpoint=$TURL'

  title "3. Get a token: Vault signs an assertion and exchanges it"
  show 'vault write -f bcgov-jwt/roles/myapi'
  show 'vault read -field=report bcgov-jwt/check/myapi'
  show 'vault read bcgov-jwt/creds/myapi'

  title "4. Call the API, without a token and with one"
  expect 401 "curl -isS $API"
  expect 200 'curl -isS -H "Authorization: Bearer $(
    vault read -field=access_token bcgov-jwt/creds/myapi)" '"$API"
}

# keep_running waits for Ctrl-C.
keep_running() {
  title "Everything is running. In another terminal:"
  echo "
  export PATH=$dir/bin:\$PATH
  export VAULT_ADDR=$VAULT_ADDR VAULT_TOKEN=$VAULT_TOKEN
  export API=$API

  vault read bcgov-jwt/creds/myapi
  vault path-help bcgov-jwt

The provider's administrator at $IDP is admin, password admin.
Logs: $dir/*.log

Press Ctrl-C to stop and remove everything."
  wait
}

case "$*" in
embedded | keycloak | 'embedded keep' | 'keycloak keep') ;;
*) die "usage: scripts/demo.sh embedded|keycloak [keep]" ;;
esac

pids=
dir=$(cd "$(mktemp -d)" && pwd -P)
mkdir "$dir/bin" "$dir/plugins"
trap clean_up EXIT
trap 'exit 130' INT TERM

prepare "$1"
walk_through
if [ "${2:-}" = keep ]; then
  keep_running
else
  title "Done; cleaning up. To keep everything running, use: make dev"
fi
