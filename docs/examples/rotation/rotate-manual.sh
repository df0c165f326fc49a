#!/bin/sh
# Replaces the key pair of a key with registration=manual, without a failed read.
#
# Usage: rotate-manual.sh MOUNT KEY ROLE
#   for example: rotate-manual.sh bcgov-jwt myapi myapi
#
# It stages a new key pair, prints the public key, and waits until you have pasted it in
# the API Services Portal. Vault then switches on its own. To stop waiting, press
# Ctrl-C: nothing is lost, and a second run continues with the same key pair.
#
# Set VAULT_ADDR to the Vault server's address and VAULT_TOKEN to your token, which
# needs read on keys/KEY and creds/ROLE, list on keys/KEY/versions, and update on
# keys/KEY/rotate.
# POLL_SECONDS (10) is the polling interval.
set -eu

mount=${1:?usage: rotate-manual.sh MOUNT KEY ROLE} key=${2:?} role=${3:?}

if [ "$(vault read -field=disabled "$mount/keys/$key")" = true ]; then
  echo "key $key is disabled; enable it with: vault write $mount/keys/$key disabled=false" >&2
  exit 1
fi

if [ "$(vault read -field=registration "$mount/keys/$key")" != manual ]; then
  echo "key $key does not have registration=manual; use rotate-jwks.sh" >&2
  exit 1
fi

# If a read fails now, the cause is a different one, which a rotation does not fix.
vault read -field=key_id "$mount/creds/$role" >/dev/null

# A shared token stays in use for minutes, whatever the provider accepts. Only its
# response has no expires_in.
if ! vault read -field=expires_in "$mount/creds/$role" >/dev/null 2>&1; then
  echo "role $role has delivery=shared; name a role of this key with delivery=leased or unleased" >&2
  exit 1
fi

# The new version is staged: the active one continues to sign.
new=$(vault write -f -field=key_id "$mount/keys/$key/rotate")
echo "Replace the public key in the API Services Portal (Update Public Key) with:"
vault read -field=public_key "$mount/keys/$key"

# Once the portal has the new key, the provider rejects the old one. The next read of
# creds, by any reader, signs with the new one.
echo "Waiting until the provider accepts it ..."
until [ "$(vault read -field=key_id "$mount/creds/$role")" = "$new" ]; do
  sleep "${POLL_SECONDS:-10}"
done

echo "The new key is in use. The versions now:"
vault list -detailed "$mount/keys/$key/versions"
