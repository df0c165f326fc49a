#!/usr/bin/env bash
# Prints the absolute path of a CLI configuration file with which tofu and terraform
# take HashiCorp's Vault provider from a mirror on this machine, and nothing from
# the network. The provider is the one that scripts/modules/terraform-provider-vault/go.mod
# pins, built on first use into the user's cache folder. All else goes to stderr.
#
# Usage: export TF_CLI_CONFIG_FILE=$(scripts/terraform-provider-vault.sh)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

module=$here/modules/terraform-provider-vault
pinned=$(pin "$module")
version=3.3.1 # of the commit in go.mod: Go does not accept the module's tags since 2.0
registries=(registry.opentofu.org registry.terraform.io)

# make_mirror lays the provider out as the registries of both commands name it.
make_mirror() {
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

make_once "terraform-provider-vault-$version-$pinned" make_mirror
printf '%s/terraform.rc\n' "$home"
