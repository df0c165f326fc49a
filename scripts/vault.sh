#!/usr/bin/env bash
# Prints the absolute path of a usable vault binary: the one on the PATH if it is not older than
# the one in scripts/modules/vault-oldest/go.mod, otherwise the version pinned in
# scripts/modules/vault/go.mod, built on first use and kept in the user's cache folder. Everything
# else goes to stderr.
#
# Usage: vault=$(scripts/vault.sh)
#        vault=$(scripts/vault.sh installed)   the one on the PATH, or fail
#        vault=$(scripts/vault.sh oldest)      the oldest version itself, built even if there is
#                                              another on the PATH
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

# version_in MODULE: prints the version of Vault that the folder MODULE pins.
version_in() { sed -n 's|^require github.com/hashicorp/vault v||p' "$here/modules/$1/go.mod"; }

module=vault
if [ "${1:-}" = oldest ]; then
  module=vault-oldest
else
  on_path vault Vault "$(version_in vault-oldest)" && exit
  [ "${1:-}" != installed ] || exit 1
fi
version=$(version_in "$module")

build_vault() {
  compile "Vault $version" "five minutes" "$here/modules/$module" "$work/out/vault" -tags minimal .
}

build_once "vault-$version-$(pin "$here/modules/$module")" build_vault
printf '%s/vault\n' "$home"
