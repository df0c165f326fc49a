#!/usr/bin/env bash
# Registers a key in the API Services Portal as its API provider: issues a consumer of a
# product environment, without an access request or an approval.
#
# Usage: register.sh MOUNT KEY, for example: register.sh bcgov-jwt myapi
#
# It creates the key, sends its public key to the portal, writes the client that the
# portal returns, creates a role of the key's name, and reads check. A key with
# registration=jwks is registered with the URL of its key set. Run it again after a
# failure: it does not repeat what is done.
#
# Set VAULT_ADDR to the Vault server's address and VAULT_TOKEN to your token, which needs
# create, read and update on keys/KEY and roles/KEY, and read on check/KEY. Needs curl
# and jq.
# PORTAL_TOKEN is an access token of your gateway's service account, which needs the scope
# CredentialIssuer.Generate.
# GATEWAY is the gateway's ID, and ENVIRONMENT_APP_ID the environment's appId, as in
# GET /ds/api/v3/gateways/GATEWAY/products: [].environments[].appId.
# APPLICATION (KEY) is the name of the application that the portal creates.
# PORTAL (https://api.gov.bc.ca) is https://api-gov-bc-ca.test.api.gov.bc.ca for tests.
# JWKS_ADDR (VAULT_ADDR) is Vault's address, as the provider sees it.
set -euo pipefail

usage='usage: register.sh MOUNT KEY'
mount=${1:?$usage} key=${2:?$usage} portal=${PORTAL:-https://api.gov.bc.ca}
: "${PORTAL_TOKEN:?}" "${GATEWAY:?}" "${ENVIRONMENT_APP_ID:?}"

fail() {
  echo "register.sh: $*" >&2
  exit 1
}
field() { vault read -field="$1" "$mount/keys/$key"; }

# post sends a body from standard input, and prints the response and its status. The token
# is on no command line.
post() {
  curl --silent --show-error --proto '=https' --max-time 60 --write-out '\n%{http_code}' \
    --header @<(printf 'Authorization: Bearer %s\n' "$PORTAL_TOKEN") \
    --header 'Content-Type: application/json' --data-binary @- "$1"
}

# Without fields, this changes nothing in an existing key.
vault write -f -field=key_id "$mount/keys/$key" >/dev/null

if [ -n "$(field client_id)" ]; then
  echo "$mount/keys/$key is registered already."
else
  name=clientCertificate value=$(field public_key) # a public key, whatever the portal calls it
  if [ "$(field registration)" = jwks ]; then
    name=jwksUrl value=${JWKS_ADDR:-$VAULT_ADDR}$(field jwks_path)
  fi
  response=$(jq -n --arg environment "$ENVIRONMENT_APP_ID" \
    --arg application "${APPLICATION:-$key}" --arg name "$name" --arg value "$value" \
    '{environmentAppId: $environment, application: {name: $application},
      controls: {($name): $value}}' |
    post "$portal/ds/api/v3/gateways/$GATEWAY/consumers") ||
    fail "no response from $portal; before you run this again, see the Consumers page: if the" \
      "consumer exists, revoke it there"

  # The response may have a client secret, which nothing needs: it is not printed.
  status=${response##*$'\n'} body=${response%$'\n'*}
  get() { printf '%s' "$body" | jq -er ".$1 // empty" 2>/dev/null; }
  [ "$status" = 201 ] || fail "$portal: HTTP $status $(get message || true)"
  if ! client_id=$(get clientId) || ! issuer=$(get issuer); then
    fail "$portal: the response has no clientId or issuer; revoke it on the Consumers page"
  fi
  registration=(client_id="$client_id" issuer="$issuer")
  vault write -field=client_id "$mount/keys/$key" "${registration[@]}" >/dev/null ||
    fail "the portal issued a client that Vault did not store; run:" \
      "vault write $mount/keys/$key ${registration[*]}"
  echo "Registered $mount/keys/$key as $client_id at $issuer."
fi

vault write -f -field=key "$mount/roles/$key" >/dev/null
check=$(vault read -format=json "$mount/check/$key")
printf '%s' "$check" | jq -r .data.report
printf '%s' "$check" | jq -e .data.ok >/dev/null ||
  fail "$(printf '%s' "$check" | jq -r '.data | .error + "\n" + .hint')"
echo "Read a token with: vault read $mount/creds/$key"
