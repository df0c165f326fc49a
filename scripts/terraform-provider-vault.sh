#!/usr/bin/env bash
# Prints the absolute path of a CLI configuration file that makes tofu and terraform install
# HashiCorp's Vault provider from a mirror on this machine and nothing from the network. The
# provider is pinned in scripts/modules/terraform-provider-vault/go.mod, built on first use and
# kept in the user's cache folder. Everything else goes to stderr.
#
# Usage: export TF_CLI_CONFIG_FILE=$(scripts/terraform-provider-vault.sh)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

module=$here/modules/terraform-provider-vault
pinned=$(pin "$module")
version=3.3.1 # the commit in go.mod; Go rejects the module's tags from 2.0 on
registries=(registry.opentofu.org registry.terraform.io)

# build_mirror places the provider where each command expects its own registry's copy.
build_mirror() {
  local provider=$work/terraform-provider-vault_v$version registry folder platform
  compile "HashiCorp's Vault provider $version" "two minutes" "$module" "$provider" \
    github.com/hashicorp/terraform-provider-vault
  platform=$(go env GOOS)_$(go env GOARCH)
  for registry in "${registries[@]}"; do
    folder=$work/out/$registry/hashicorp/vault/$version/$platform
    mkdir -p "$folder"
    ln "$provider" "$folder"
  done
  cat >"$work/out/terraform.rc" <<CONFIG
provider_installation {
  filesystem_mirror {
    path = "$home"
  }
}
CONFIG
}

build_once "terraform-provider-vault-$version-$pinned" build_mirror
printf '%s/terraform.rc\n' "$home"
