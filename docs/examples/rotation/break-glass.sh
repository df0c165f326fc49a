#!/bin/sh
# Replaces and destroys a key pair whose private key may be known to others.
#
# Usage: break-glass.sh MOUNT KEY ROLE [VERSION]
#   for example: break-glass.sh bcgov-jwt myapi myapi
#
# VERSION is the compromised version, by default the active one. If the script is
# interrupted, run it again with VERSION. If that version no longer exists, it is
# already destroyed: with registration=jwks, run rotate-jwks.sh, so that the provider
# fetches the key set once more.
#
# The provider stops the thief, not Vault: it must forget the old public key. With
# registration=manual, you paste the new one in the API Services Portal; with
# registration=jwks, the provider must fetch the key set again. The script waits for
# that. In the meantime, reads of creds continue.
#
# Set VAULT_ADDR to the Vault server's address and VAULT_TOKEN to your token, which
# needs read on keys/KEY, creds/ROLE and check/ROLE, and update on keys/KEY/rotate,
# keys/KEY/activate and keys/KEY/destroy.
# POLL_SECONDS (10) is the polling interval.
set -eu

mount=${1:?usage: break-glass.sh MOUNT KEY ROLE [VERSION]} key=${2:?} role=${3:?}

if [ "$(vault read -field=disabled "$mount/keys/$key")" = true ]; then
  echo "key $key is disabled; enable it with: vault write $mount/keys/$key disabled=false" >&2
  exit 1
fi
active() { vault read -field=active_version "$mount/keys/$key"; }
bad=${4:-$(active)}

# destroy removes the private key from Vault, and the public key from the key set.
destroy() {
  vault write -field=active_version "$mount/keys/$key/destroy" version="$bad" >/dev/null
  echo "Destroyed version $bad in Vault."
}

# replace_manual waits for a person. Reads continue: Vault switches when the provider
# rejects the old key.
replace_manual() {
  # A shared token stays in use for minutes, whatever the provider accepts. Only its
  # response has "ttl" but no "expires_in".
  if vault read -field=ttl "$mount/creds/$role" >/dev/null 2>&1 &&
    ! vault read -field=expires_in "$mount/creds/$role" >/dev/null 2>&1; then
    echo "role $role has delivery=shared; name a role of this key with delivery=leased or unleased" >&2
    exit 1
  fi
  vault write -f -field=key_id "$mount/keys/$key/rotate" >/dev/null
  echo "Immediately replace the public key in the API Services Portal (Update Public Key) with:"
  vault read -field=public_key "$mount/keys/$key"
  echo "Waiting until the provider accepts it ..."
  while [ "$(active)" = "$bad" ]; do
    # Any read of creds switches, once the new key is registered.
    vault read -field=key_id "$mount/creds/$role" >/dev/null || true
    sleep "${POLL_SECONDS:-10}"
  done
  # Show that the provider rejects the old version, before it is destroyed.
  vault read -field=report "$mount/check/$role" | grep "^version"
}

# next_version creates another version, and waits until the provider accepts it.
# Keycloak fetches the key set again when it meets an unknown key, at most every 10 s;
# until then it rejects the key.
next_version() {
  new=$(vault write -f -field=key_id "$mount/keys/$key/rotate")
  echo "Waiting until the provider accepts the key $new ..."
  until [ "$(vault read -field=key_id "$mount/creds/$role")" = "$new" ]; do
    # Before prepublish_period has passed, if the provider accepts it already.
    vault write -f "$mount/keys/$key/activate" >/dev/null 2>&1 || sleep "${POLL_SECONDS:-10}"
  done
}

# replace_jwks creates two versions. The first replaces the compromised one. When the
# provider accepts the second, it has fetched the key set without the compromised one,
# and so has forgotten it.
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
echo "The new key is in use. Tokens obtained with the old one work until they expire."
