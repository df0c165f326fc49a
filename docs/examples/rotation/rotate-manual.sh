#!/bin/sh
# Replaces the key pair of a key with registration=manual, without a failed read.
#
# Usage: rotate-manual.sh MOUNT KEY ROLE, such as: rotate-manual.sh bcgov-jwt myapi myapi
#
# It makes the new key pair, prints the public key, and waits until you have
# pasted that in the API Services Portal. Vault then switches over by itself.
# To stop waiting press Ctrl-C: nothing is lost, and a second run goes on with
# the same key pair.
#
# VAULT_ADDR and VAULT_TOKEN say which Vault and who you are. The token needs
# read on keys/KEY and creds/ROLE, and update on keys/KEY/rotate.
# POLL_SECONDS (10) is the time between two looks.
set -eu

mount=${1:?usage: rotate-manual.sh MOUNT KEY ROLE} key=${2:?} role=${3:?}

if [ "$(vault read -field=disabled "$mount/keys/$key")" = true ]; then
  echo "The key is disabled, so nothing can be tried: vault write $mount/keys/$key disabled=false" >&2
  exit 1
fi

if [ "$(vault read -field=registration "$mount/keys/$key")" != manual ]; then
  echo "$key does not have registration=manual: use rotate-jwks.sh" >&2
  exit 1
fi

# A key that cannot get a token now has another trouble, which a rotation does not mend.
vault read -field=key_id "$mount/creds/$role" >/dev/null

# A shared token stays for minutes whatever the provider accepts by now. Only it
# has no expires_in.
if ! vault read -field=expires_in "$mount/creds/$role" >/dev/null 2>&1; then
  echo "The role $role has delivery=shared: name another role of the key, such as one with delivery=unleased" >&2
  exit 1
fi

# The new version is "staged": it is there, but the present one goes on signing.
new=$(vault write -f -field=key_id "$mount/keys/$key/rotate")
echo "Replace the public key in the API Services Portal (Update Public Key) with:"
vault read -field=public_key "$mount/keys/$key"

# When the portal has the new key the provider refuses the old one. The next
# read of creds, by whoever it is, finds that out and signs with the new one.
echo "Waiting until the provider accepts it ..."
until [ "$(vault read -field=key_id "$mount/creds/$role")" = "$new" ]; do
  sleep "${POLL_SECONDS:-10}"
done

echo "The new key is in use. The versions now:"
vault read -format=json -field=versions "$mount/keys/$key"
echo
