#!/usr/bin/env bash
# Prints the absolute path of zizmor, which audits GitHub workflows: the version pinned in
# scripts/modules/zizmor/requirements.txt, downloaded on first use and kept in the user's cache
# folder. Everything else goes to stderr.
#
# Usage: zizmor=$(scripts/zizmor.sh)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

pinned=$here/modules/zizmor
version=$(sed -n 's|^zizmor==\([^ ]*\).*|\1|p' "$pinned/requirements.txt")

download_zizmor() {
  download_wheel "zizmor $version" "$pinned/requirements.txt"
  mv "$work/wheel/bin/zizmor" "$work/out"
}

build_once "zizmor-$version-$(pin "$pinned")" download_zizmor
printf '%s/zizmor\n' "$home"
