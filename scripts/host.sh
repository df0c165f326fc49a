#!/usr/bin/env bash
# Prints the absolute path of a program that runs the plugin; see scripts/vault.sh and
# scripts/openbao.sh. vault-oldest is the oldest Vault that README claims. Without an argument it
# is the vault or bao on the PATH, otherwise the one that is ready soonest.
#
# Usage: binary=$(scripts/host.sh [vault|vault-oldest|openbao])
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

# choose prefers a program that is installed, and a download of seconds to a build of minutes.
choose() {
  "$here/vault.sh" installed || "$here/openbao.sh" installed && return
  case $(uname -sm) in
  'Linux x86_64' | 'Linux aarch64')
    python3 -m pip --version >/dev/null 2>&1 && exec "$here/openbao.sh"
    ;;
  esac
  exec "$here/vault.sh"
}

case "$*" in
'') choose ;;
vault) exec "$here/vault.sh" ;;
vault-oldest) exec "$here/vault.sh" oldest ;;
openbao) exec "$here/openbao.sh" ;;
*) die "HOST is \"$*\"; it must be vault, vault-oldest or openbao." ;;
esac
