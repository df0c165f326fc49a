#!/bin/sh
# Keeps a fresh access token in a file, for programs that read the file for each
# request. Needs only curl and a POSIX system.
#
# Usage: keep-token.sh MOUNT ROLE FILE
#   for example: keep-token.sh bcgov-jwt myapi /run/myapi/token
#
# Set VAULT_ADDR to the Vault server's address and VAULT_TOKEN to your token. FILE's
# folder must be private to you. The script runs until it is stopped.
set -eu

mount=${1:?usage: keep-token.sh MOUNT ROLE FILE} role=${2:?} file=${3:?}
: "${VAULT_ADDR:?}" "${VAULT_TOKEN:?}"
umask 077 # the file is for its owner only

# ask sends a request to Vault. The token reaches curl through a pipe, since
# everyone on the machine can see command lines.
ask() {
  printf 'X-Vault-Token: %s\n' "$VAULT_TOKEN" |
    curl --silent --show-error --max-time 60 --header @- --request "$1" "$VAULT_ADDR/v1/$2"
}

# field extracts a field of the response. Tokens (RFC 6750) and numbers have no other
# characters, so no general JSON parser is needed.
field() { printf '%s\n' "$response" | sed -n 's|.*"'"$1"'":"\{0,1\}\([A-Za-z0-9._~+/=-]\{1,\}\)[",}].*|\1|p'; }
errors() { printf '%s\n' "$response" | sed -n 's|.*"errors":\[\(.*\)\].*|\1|p'; }

retry=1
while :; do
  # A lease ends with the Vault token that read it, so renew that too. The response
  # contains the Vault token.
  ask POST auth/token/renew-self >/dev/null || true

  response=$(ask GET "$mount/creds/$role") || response=
  token=$(field access_token)
  if [ -z "$token" ]; then
    # The old token stays in the file: it is valid for at least the margin.
    printf '%s\n' "$(date): no new token, retrying in $retry s: $(errors)" >&2
    sleep "$retry"
    retry=$((retry < 16 ? retry * 2 : 30))
    continue
  fi
  retry=1

  printf %s "$token" >"$file.new"
  mv -f "$file.new" "$file" # atomically: no reader sees a partial token

  # With delivery=leased, shortly before the lease ends; with unleased and shared,
  # after ttl. Both leave at least the margin before the token expires.
  ttl=$(field ttl) lease=$(field lease_duration)
  sleep "${ttl:-$((lease * 9 / 10 + 1))}"
done
