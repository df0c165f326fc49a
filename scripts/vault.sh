#!/usr/bin/env bash
# Prints the absolute path of a usable vault binary: the one on the PATH if it is 1.16 or
# later, otherwise the version pinned in scripts/modules/vault/go.mod, built on first use and
# kept in the user's cache folder. Everything else goes to stderr.
#
# Usage: vault=$(scripts/vault.sh)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

on_path vault Vault 1 16 && exit

module=$here/modules/vault
pinned=$(pin "$module")
version=$(sed -n 's|^require github.com/hashicorp/vault v||p' "$module/go.mod")

build_vault() {
  compile "Vault $version" "five minutes" "$module" "$work/out/vault" -tags minimal .
}

build_once "vault-$version-$pinned" build_vault
printf '%s/vault\n' "$home"
