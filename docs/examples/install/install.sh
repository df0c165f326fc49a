#!/bin/sh
# Installs a version of the plugin on Vault or OpenBao, upgrades to it, or rolls back to it. What is
# done already is not done again.
#
# Usage: install.sh copy VERSION [FOLDER]
#        install.sh use VERSION [MOUNT]
#
# copy, on each node, as a user who may write to PLUGIN_DIRECTORY: downloads the release, or takes
# it from FOLDER, verifies it against SHA256SUMS, and puts the binary beside those of other
# versions. It needs curl only for a download.
#
# use, once per cluster, after all nodes have the binary: registers it, and mounts it at MOUNT
# (default: bcgov-jwt), or lets the mount that is there use it. The token of VAULT_ADDR and
# VAULT_TOKEN needs policy.hcl. Run it for each mount. The binary's SHA-256 is PLUGIN_SHA256, or
# that of the file on this machine.
#
# As in: PLUGIN_DIRECTORY=/etc/vault.d/plugins install.sh copy v0.1.0
set -eu

name=vault-plugin-bcgov-jwt

die() {
  echo "error: $*" >&2
  exit 1
}

# copy FOLDER: an interrupted copy leaves no file by the final name.
copy() {
  [ ! -L "$PLUGIN_DIRECTORY" ] || die "PLUGIN_DIRECTORY must not be a symbolic link"
  work=$(mktemp -d "$PLUGIN_DIRECTORY/.install.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  trap 'exit 130' INT TERM
  file=${name}_${version#v}_$(platform)
  fetch SHA256SUMS "$1"
  want=$(awk -v file="$file" '$2 == file || $2 == "*" file { print $1 }' "$work/SHA256SUMS")
  [ -n "$want" ] || die "SHA256SUMS has no $file"
  if [ -e "$binary" ] && [ "$(sha256 "$binary")" = "$want" ]; then
    echo "$binary is there already"
    return
  fi
  fetch "$file" "$1"
  [ "$(sha256 "$work/$file")" = "$want" ] || die "$file does not have the sum of SHA256SUMS"
  chmod 755 "$work/$file"
  mv -f "$work/$file" "$binary"
  echo "copied $binary"
}

platform() {
  case $(uname -m) in
  x86_64) arch=amd64 ;;
  aarch64 | arm64) arch=arm64 ;;
  *) die "no release for $(uname -m)" ;;
  esac
  echo "$(uname -s | tr '[:upper:]' '[:lower:]')_$arch"
}

# fetch FILE FOLDER: from FOLDER, unless that is empty.
fetch() {
  if [ -n "$2" ]; then
    cp "$2/$1" "$work/$1"
  else
    curl --fail --silent --show-error --location --output "$work/$1" "$RELEASES/$version/$1"
  fi
}

sha256() {
  if command -v sha256sum >/dev/null; then sum=$(sha256sum "$1"); else sum=$(shasum -a 256 "$1"); fi
  echo "${sum%% *}"
}

# use MOUNT: registers by the path without a type, since there the server runs the plugin first, and
# rejects a wrong SHA-256. By the other path it would reject it only when it reloads the mount.
use() {
  if [ -e "$binary" ]; then
    sum=$(sha256 "$binary")
    [ "${PLUGIN_SHA256:=$sum}" = "$sum" ] || die "$binary does not have PLUGIN_SHA256"
  fi
  : "${PLUGIN_SHA256:?is the SHA-256 of $binary, which is not on this machine}"
  host write "sys/plugins/catalog/$name" sha256="$PLUGIN_SHA256" version="$version" \
    command="${binary##*/}"
  mounts=$(host secrets list)
  case $(echo "$mounts" | awk -v path="$1/" '$1 == path { print $2 }') in
  '') host secrets enable -path="$1" -plugin-version="$version" "$name" ;;
  "$name")
    host secrets tune -plugin-version="$version" "$1/"
    running "$1" || host plugin reload -plugin="$name" -scope=global # standbys too
    ;;
  *) die "$1/ is another engine" ;;
  esac
  running "$1" || die "$1/ does not run $version; see the server's log"
  echo "$1/ runs $version"
}

# running MOUNT: reads may fail while the plugin is reloaded.
running() {
  for pause in 0 1 1 1; do
    sleep "$pause"
    now=$(host read -field=version "$1/info" 2>/dev/null) || continue
    [ "$now" != "$version" ] || return 0
    break
  done
  return 1
}

host() { if command -v vault >/dev/null; then vault "$@"; else bao "$@"; fi; }

version=${2:-}
case $version in
v[0-9]*) ;;
*) die "usage: install.sh copy VERSION [FOLDER] | use VERSION [MOUNT], as in: copy v0.1.0" ;;
esac
: "${PLUGIN_DIRECTORY:?is the plugin_directory of the server}"
: "${RELEASES:=https://github.com/bcgov/$name/releases/download}"
binary=$PLUGIN_DIRECTORY/$name-$version
case $1 in
copy) copy "${3:-}" ;;
use) use "${3:-bcgov-jwt}" ;;
*) die "$1 is neither copy nor use" ;;
esac
