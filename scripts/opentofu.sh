#!/usr/bin/env bash
# Prints the absolute path of a usable tofu or terraform: the one on the PATH if it is recent
# enough, otherwise the OpenTofu pinned in scripts/modules/opentofu/go.mod, built on first use
# and kept in the user's cache folder. Everything else goes to stderr.
#
# Usage: tofu=$(scripts/opentofu.sh)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

# No check for updates, no configuration of the user's.
export CHECKPOINT_DISABLE=1 TF_CLI_CONFIG_FILE=/dev/null
# Those that have ephemeral resources.
on_path tofu OpenTofu 1.11.0 && exit
on_path terraform Terraform 1.10.0 && exit

module=$here/modules/opentofu
pinned=$(pin "$module")
version=$(sed -n 's|^\tgithub.com/opentofu/opentofu v\([^ ]*\).*|\1|p' "$module/go.mod")

build_tofu() {
  compile "OpenTofu $version" "six minutes" "$module" "$work/out/tofu" \
    github.com/opentofu/opentofu/cmd/tofu
}

build_once "opentofu-$version-$pinned" build_tofu
printf '%s/tofu\n' "$home"
