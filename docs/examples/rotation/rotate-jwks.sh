#!/bin/sh
# Replaces the key pair of a key with registration=jwks, without a failed read.
#
# Usage: rotate-jwks.sh MOUNT KEY ROLE, for example: rotate-jwks.sh bcgov-jwt auto auto
#
# The provider fetches the new public key from Vault, so the script only waits. Ctrl-C
# stops the waiting, not the rotation.
#
# Set VAULT_ADDR to the Vault server's address and VAULT_TOKEN to your token, which
# needs read on keys/KEY, creds/ROLE and check/ROLE, list on keys/KEY/versions, and update
# on keys/KEY/rotate.
# POLL_SECONDS (10) is the polling interval.
set -eu

mount=${1:?usage: rotate-jwks.sh MOUNT KEY ROLE} key=${2:?} role=${3:?}

if [ "$(vault read -field=disabled "$mount/keys/$key")" = true ]; then
  echo "key $key is disabled; enable it with: vault write $mount/keys/$key disabled=false" >&2
  exit 1
fi

if [ "$(vault read -field=registration "$mount/keys/$key")" != jwks ]; then
  echo "key $key does not have registration=jwks; use rotate-manual.sh" >&2
  exit 1
fi

# The new version is published immediately, and signs after prepublish_period.
new=$(vault write -f -field=key_id "$mount/keys/$key/rotate")
echo "Published at $(vault read -field=jwks_path "$mount/keys/$key"). Waiting until it signs ..."

# Until then, and if the provider rejects the new version, the old one signs: reads do
# not fail.
until [ "$(vault read -field=key_id "$mount/creds/$role")" = "$new" ]; do
  sleep "${POLL_SECONDS:-10}"
done

echo "The new key is in use. The old one stays published for overlap_period:"
vault list -detailed "$mount/keys/$key/versions"
echo
vault read -field=report "$mount/check/$role"
