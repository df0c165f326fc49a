#!/bin/sh
# Keeps a fresh access token in a file, for programs that read the file anew for
# each request. Needs curl, and nothing else that is not in every Unix.
#
# Usage: keep-token.sh MOUNT ROLE FILE
#   such as: keep-token.sh bcgov-jwt myapi /run/myapi/token
#
# VAULT_ADDR and VAULT_TOKEN say which Vault and who you are. FILE's folder must
# be yours alone. The script runs until it is stopped.
set -eu

mount=${1:?usage: keep-token.sh MOUNT ROLE FILE} role=${2:?} file=${3:?}
: "${VAULT_ADDR:?}" "${VAULT_TOKEN:?}"
umask 077 # what is written is for its owner alone

# ask sends a request to Vault. The token comes to curl through a pipe, since
# everyone on the machine may see a command line.
ask() {
  printf 'X-Vault-Token: %s\n' "$VAULT_TOKEN" |
    curl --silent --show-error --max-time 60 --header @- --request "$1" "$VAULT_ADDR/v1/$2"
}

# field takes a field out of an answer. Tokens and numbers have no other
# characters (RFC 6750), so this is all of JSON that is needed.
field() { printf '%s\n' "$answer" | sed -n 's|.*"'"$1"'":"\{0,1\}\([A-Za-z0-9._~+/=-]\{1,\}\)[",}].*|\1|p'; }
errors() { printf '%s\n' "$answer" | sed -n 's|.*"errors":\[\(.*\)\].*|\1|p'; }

retry=1
while :; do
  # A lease ends with the Vault token that it was read with, so that is kept
  # alive too. What comes back has the Vault token in it.
  ask POST auth/token/renew-self >/dev/null || true

  answer=$(ask GET "$mount/creds/$role") || answer=
  token=$(field access_token)
  if [ -z "$token" ]; then
    # The old token stays where it is: it is good for a margin more.
    printf '%s\n' "$(date): no new token, next try in $retry s: $(errors)" >&2
    sleep "$retry"
    retry=$((retry < 16 ? retry * 2 : 30))
    continue
  fi
  retry=1

  printf %s "$token" >"$file.new"
  mv -f "$file.new" "$file" # at once: no reader ever sees half a token

  # With delivery=leased, a little before the lease ends; with unleased and
  # shared, when the plugin would replace the token. Both come a margin before
  # the token expires.
  ttl=$(field ttl) lease=$(field lease_duration)
  sleep "${ttl:-$((lease * 9 / 10 + 1))}"
done
