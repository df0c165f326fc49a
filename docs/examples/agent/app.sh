#!/bin/sh
# Stands for your program: it takes the token from its environment when it starts,
# and calls API_URL with it until it is stopped. See exec.hcl.
set -eu
: "${ACCESS_TOKEN:?}" "${ACCESS_TOKEN_EXPIRES_AT:?}" "${API_URL:?}"
trap 'echo "stopped"; exit 0' TERM

echo "started with a token that is good until $ACCESS_TOKEN_EXPIRES_AT"
while :; do
  # The token comes to curl through a pipe, since everyone may see a command line.
  status=$(printf 'Authorization: Bearer %s\n' "$ACCESS_TOKEN" |
    curl --silent --output /dev/null --max-time 10 --write-out '%{http_code}' --header @- "$API_URL") || status="no answer"
  [ "$status" = 200 ] || echo "the API: $status"
  sleep 1
done
