#!/usr/bin/env bash
# Follows the API Gateway's four steps to a token, with Vault instead of a key file, and shows
# each command and its output. Builds the plugin and starts a dev server of HOST, or of the one
# that scripts/host.sh chooses, an identity provider and a protected API on free ports of
# 127.0.0.1. Nothing is left when it ends.
#
# Usage: scripts/demo.sh embedded|keycloak [servers]
#
# embedded: the provider that the tests use. keycloak: a real Keycloak; needs Java and Maven.
# servers: only start them, print how to use them, and stop them at Ctrl-C.
set -euo pipefail

cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

bold='' blue='' plain=''
if [ -t 1 ]; then bold=$'\033[1m' blue=$'\033[36m' plain=$'\033[0m'; fi

# prepare PROVIDER: builds and starts everything.
prepare() {
  local name binary
  need go "Go 1.26 or later: https://go.dev/doc/install"
  need curl "curl: https://curl.se"
  binary=$(scripts/host.sh ${HOST:+"$HOST"})
  cli=${binary##*/}
  ln -s "$binary" "$dir/bin/$cli"
  build
  export PATH=$dir/bin:$PATH
  for name in "${!VAULT_@}" "${!BAO_@}"; do unset "$name"; done
  start_provider "$1"
  start_host
}

# build compiles everything at once, so that what the programs share is compiled once. Without
# garbage collection the compiler takes two thirds of the time, in up to a gigabyte a process.
build() {
  log "Building the plugin (about a minute the first time) ..."
  CGO_ENABLED=0 GOGC=off GOMEMLIMIT=1GiB \
    go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$dir/bin/" \
    ./cmd/vault-plugin-bcgov-jwt ./integrationtest/idp/server ./integrationtest/keycloak/register
  mv "$dir/bin/vault-plugin-bcgov-jwt" "$dir/plugins"
  mv "$dir/bin/server" "$dir/bin/provider"
}

# start_provider PROVIDER: exports what the portal shows to a client, which register also reads,
# and API, the protected API's URL. The embedded provider serves the API even when Keycloak is the
# issuer.
start_provider() {
  export CID=myapi-client ISS='' TURL API
  log "Starting the identity provider ..."
  if [ "$1" = keycloak ]; then
    ISS=$(scripts/keycloak.sh start "$(free_port)" "$dir")/realms/apigw
  fi
  background provider -realm apigw -issuer "$ISS"
  await provider grep PROTECTED_API= "$dir/provider.log"
  ISS=${ISS:-$(sed -n 's/^ISSUER=//p' "$dir/provider.log")}
  TURL=$ISS/protocol/openid-connect/token
  API=$(sed -n 's/^PROTECTED_API=//p' "$dir/provider.log")
}

# start_host starts a dev server. OpenBao reads Vault's variables too.
start_host() {
  log "Starting $("$cli" version | sed 's/\(v[0-9.]*\).*/\1/') ..."
  export VAULT_ADDR VAULT_TOKEN=root
  VAULT_ADDR=http://127.0.0.1:$(free_port)
  background "$cli" server -dev -dev-no-store-token -dev-root-token-id="$VAULT_TOKEN" \
    -dev-listen-address="${VAULT_ADDR#http://}" -dev-plugin-dir="$dir/plugins"
  await "$cli" "$cli" status
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

# show COMMAND: prints the command as a user of the host would type it, and its output.
show() {
  local command=${1//vault /$cli }
  printf '\n%s$ %s%s\n' "$blue" "$command" "$plain"
  eval "$command"
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
(In the API Services Portal, you paste this public key. Here, a command stands for it:)"
  show 'vault read -field=public_key bcgov-jwt/keys/myapi | register'
  show "export CID=$CID ISS=$ISS"
  show 'vault write bcgov-jwt/keys/myapi client_id=$CID issuer=$ISS'

  title "3. Get a token: Vault signs an assertion and exchanges it"
  show 'vault write -f bcgov-jwt/roles/myapi'
  show 'vault read -field=report bcgov-jwt/check/myapi'
  show 'vault read bcgov-jwt/creds/myapi'

  title "4. Call the API, without a token and with one"
  expect 401 "curl -isS $API"
  expect 200 'curl -isS -H "Authorization: Bearer $(
    vault read -field=access_token bcgov-jwt/creds/myapi)" '"$API"
}

# explain prints what the steps of README need, and waits for Ctrl-C. With OpenBao, vault is bao.
explain() {
  local provider=${ISS%/realms/*}
  [ "$cli" = vault ] || ln -s "$cli" "$dir/bin/vault"
  title "Everything is running. In another terminal:"
  echo "
  export PATH=$dir/bin:\$PATH
  export VAULT_ADDR=$VAULT_ADDR VAULT_TOKEN=$VAULT_TOKEN
  export BAO_ADDR=$VAULT_ADDR BAO_TOKEN=$VAULT_TOKEN
  export CID=$CID
  export ISS=$ISS
  export TURL=$TURL
  export API=$API

Then follow README.md, with two differences. The host to allow is this one, with plain HTTP:

  $cli write bcgov-jwt/config allowed_hosts=${provider#*//} allow_insecure_endpoints=true

To paste a public key in the portal is to pipe it to register:

  $cli read -field=public_key bcgov-jwt/keys/myapi | register

The provider's administrator at $provider is admin, password admin.
Logs: $dir/*.log

Press Ctrl-C to stop and remove everything."
  wait
}

case "$*" in
embedded | keycloak | 'embedded servers' | 'keycloak servers') ;;
*) die "usage: scripts/demo.sh embedded|keycloak [servers]" ;;
esac

pids=
dir=$(cd "$(mktemp -d)" && pwd -P)
mkdir "$dir/bin" "$dir/plugins"
trap clean_up EXIT
interrupted=130
[ "${2:-}" != servers ] || interrupted=0 # whoever is told to press Ctrl-C sees no error
trap 'exit "$interrupted"' INT TERM

prepare "$1"
if [ "${2:-}" = servers ]; then
  explain
else
  walk_through
  title "Done; cleaning up. To try the steps yourself, use: make dev"
fi
