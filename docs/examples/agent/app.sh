#!/bin/sh
# Stands in for your program: reads the token from its environment at startup, and
# calls API_URL with it until it is stopped. See exec.hcl.
set -eu
: "${ACCESS_TOKEN:?}" "${ACCESS_TOKEN_EXPIRES_AT:?}" "${API_URL:?}"
trap 'echo "stopped"; exit 0' TERM

echo "started with a token that is valid until $ACCESS_TOKEN_EXPIRES_AT"
while :; do
  # The token reaches curl through a pipe, since command lines are public.
  status=$(printf 'Authorization: Bearer %s\n' "$ACCESS_TOKEN" |
    curl --silent --output /dev/null --max-time 10 --write-out '%{http_code}' --header @- "$API_URL") || status="none"
  [ "$status" = 200 ] || echo "API response: $status"
  sleep 1
done
