#!/usr/bin/env bash
# Prints the absolute path of a program that runs the plugin; see scripts/vault.sh and
# scripts/openbao.sh. vault-oldest is the oldest Vault that README claims.
#
# Usage: binary=$(scripts/host.sh vault|vault-oldest|openbao)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

case "$*" in
vault) exec "$here/vault.sh" ;;
vault-oldest) exec "$here/vault.sh" oldest ;;
openbao) exec "$here/openbao.sh" ;;
*) die "HOST is \"$*\"; it must be vault, vault-oldest or openbao." ;;
esac
