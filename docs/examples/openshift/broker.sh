#!/bin/sh
# Runs a command with a fresh access token in its environment (ACCESS_TOKEN), in a Jenkins pipeline
# or another whose Vault login NR Broker provisions: as a secret_id of AppRole, wrapped.
#
# Usage: broker.sh CREDS COMMAND [ARG...]
#   for example: broker.sh bcgov-jwt/creds/myapi ./call-api.sh
#
# Before, open an intention and start its action. Set
#   BROKER_URL    for example https://broker.io.nrs.gov.bc.ca
#   BROKER_TOKEN  the action's token
#   ROLE_ID       the application's role_id
#   VAULT_ADDR    for example https://knox.io.nrs.gov.bc.ca
#   APPROLE       path of the auth method, if not vs_apps_approle
#
# Needs curl and jq. Secrets reach curl through a pipe, since everyone on the machine can see
# command lines. The access token is valid for some minutes: run this for each job, not once.
set -eu

creds=${1:?usage: broker.sh CREDS COMMAND [ARG...]}
shift
: "${1:?usage: broker.sh CREDS COMMAND [ARG...]}"
: "${BROKER_URL:?}" "${BROKER_TOKEN:?}" "${ROLE_ID:?}" "${VAULT_ADDR:?}"

# post sends standard input as headers, one a line, and extracts a field of the response.
post() {
  request POST "$1" --header @- | field "$2"
}

request() {
  method=$1 url=$2
  shift 2
  curl --silent --show-error --max-time 60 --request "$method" "$@" "$url"
}

# An empty response is an error too, which it would not be without input.
field() {
  jq -ern "input | $1 // error((.errors // [.message // \"no $1 in the response\"]) | join(\"; \"))"
}

wrapped=$(printf 'X-Broker-Token: %s\nX-Vault-Role-Id: %s\n' "$BROKER_TOKEN" "$ROLE_ID" |
  post "$BROKER_URL/v1/provision/approle/secret-id" .wrap_info.token)

# This fails if someone else has unwrapped it: then tell the broker's team.
secret_id=$(printf 'X-Vault-Token: %s\n' "$wrapped" |
  post "$VAULT_ADDR/v1/sys/wrapping/unwrap" .data.secret_id)

vault_token=$(printf '{"role_id":"%s","secret_id":"%s"}' "$ROLE_ID" "$secret_id" |
  request POST "$VAULT_ADDR/v1/auth/${APPROLE:-vs_apps_approle}/login" --data @- |
  field .auth.client_token)

# However this ends, the Vault token is revoked, and with it the access token's lease.
revoke() {
  printf 'X-Vault-Token: %s\n' "$vault_token" |
    request POST "$VAULT_ADDR/v1/auth/token/revoke-self" --header @-
}
trap revoke EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

ACCESS_TOKEN=$(printf 'X-Vault-Token: %s\n' "$vault_token" |
  request GET "$VAULT_ADDR/v1/$creds" --header @- | field .data.access_token)
export ACCESS_TOKEN
unset BROKER_TOKEN
"$@"
