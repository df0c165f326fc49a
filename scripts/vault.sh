#!/usr/bin/env bash
# Prints the absolute path of a usable vault binary on stdout: the one on the
# PATH if it is 1.16 or later, otherwise the version that scripts/modules/vault/go.mod
# pins, built on first use into the user's cache folder. All else goes to stderr.
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

make_vault() { compile "Vault $version" "five minutes" "$module" "$work/out/vault" -tags minimal .; }

make_once "vault-$version-$pinned" make_vault
printf '%s/vault\n' "$home"
