#!/bin/sh
# Replaces a key pair whose private key may be known to others, and destroys it.
#
# Usage: break-glass.sh MOUNT KEY ROLE [VERSION]
#   such as: break-glass.sh bcgov-jwt myapi myapi
#
# VERSION is the compromised one; without it, it is the active one. If the
# script was interrupted run it again with VERSION.
# If it then says that there is no such version, that is destroyed already:
# with registration=jwks run rotate-jwks.sh, so that the provider reads the key
# set once more.
#
# The thief is stopped by the provider, not by Vault: it has to forget the old
# public key. With registration=manual you paste the new one in the API
# Services Portal; with registration=jwks the provider has to read the key set
# again. The script waits for that. Meanwhile reads of creds go on.
#
# VAULT_ADDR and VAULT_TOKEN say which Vault and who you are. The token needs
# read on keys/KEY, creds/ROLE and check/ROLE, and update on keys/KEY/rotate,
# keys/KEY/activate and keys/KEY/destroy.
# POLL_SECONDS (10) is the time between two looks.
set -eu

mount=${1:?usage: break-glass.sh MOUNT KEY ROLE} key=${2:?} role=${3:?}

if [ "$(vault read -field=disabled "$mount/keys/$key")" = true ]; then
  echo "The key is disabled, so nothing can be tried: vault write $mount/keys/$key disabled=false" >&2
  exit 1
fi
active() { vault read -field=active_version "$mount/keys/$key"; }
bad=${4:-$(active)}

# destroy removes the private key from Vault, and the public one from the key set.
destroy() {
  vault write -field=active_version "$mount/keys/$key/destroy" version="$bad" >/dev/null
  echo "Version $bad is destroyed in Vault."
}

# replace_manual waits for a person. Readers go on: Vault switches over when
# the provider refuses the old key.
replace_manual() {
  # A shared token stays for minutes whatever the provider accepts by now.
  # "expires_in" is what only it does not have.
  if vault read -field=ttl "$mount/creds/$role" >/dev/null 2>&1 &&
    ! vault read -field=expires_in "$mount/creds/$role" >/dev/null 2>&1; then
    echo "The role $role has delivery=shared: name another role of the key, such as one with delivery=unleased" >&2
    exit 1
  fi
  vault write -f -field=key_id "$mount/keys/$key/rotate" >/dev/null
  echo "Replace the public key in the API Services Portal (Update Public Key) AT ONCE with:"
  vault read -field=public_key "$mount/keys/$key"
  echo "Waiting until the provider accepts it ..."
  while [ "$(active)" = "$bad" ]; do
    # Any read of creds switches over, once the new key is there.
    vault read -field=key_id "$mount/creds/$role" >/dev/null || true
    sleep "${POLL_SECONDS:-10}"
  done
  # See for yourself that the provider refuses the old one, before it is gone.
  vault read -field=report "$mount/check/$role" | grep "^version"
}

# next_version makes another version, and waits until the provider accepts it.
# Keycloak reads the key set again when it meets a key that it does not know,
# at most every 10 s; until then it refuses.
next_version() {
  new=$(vault write -f -field=key_id "$mount/keys/$key/rotate")
  echo "Waiting until the provider accepts the key $new ..."
  until [ "$(vault read -field=key_id "$mount/creds/$role")" = "$new" ]; do
    # Sooner than after activation_delay, if the provider accepts it already.
    vault write -f "$mount/keys/$key/activate" >/dev/null 2>&1 || sleep "${POLL_SECONDS:-10}"
  done
}

# replace_jwks makes two versions. The first takes the place of the
# compromised one. When the provider accepts the second, it has read the key
# set after the compromised one was gone from it, and so has forgotten that.
replace_jwks() {
  next_version
  destroy
  next_version
}

registration=$(vault read -field=registration "$mount/keys/$key")
if [ "$bad" != "$(active)" ]; then
  destroy
  [ "$registration" = manual ] || next_version
elif [ "$registration" = jwks ]; then
  replace_jwks
else
  replace_manual
  destroy
fi
echo "The new key is in use. Tokens that were got with the old one work until they expire."
