#!/usr/bin/env bash
# Prints the absolute path of a folder with usable prometheus and promtool: that of the PATH's if
# they are 2.42 or later, otherwise that of Debian 12's package pinned in
# scripts/modules/prometheus/SHA256SUMS, which apt-get downloads on first use into the user's cache
# folder, without being root and without installing it. Everything else goes to stderr.
#
# Usage: prometheus=$(scripts/prometheus.sh)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

sums=$here/modules/prometheus/SHA256SUMS
version=$(sed -n '1s/.*prometheus_\(.*\)_.*/\1/p' "$sums")
hint="Install Prometheus 2.42 or later: https://prometheus.io/download"

# installed prints the folder of the PATH's, if they are recent enough.
installed() {
  local path printed
  path=$(type -P prometheus) && type -P promtool >/dev/null || return 1
  printed=$("$path" --version 2>&1) || return 1
  [[ $printed =~ ^prometheus,\ version\ ([0-9]+\.[0-9]+\.[0-9]+) ]] || return 1
  [ "$(version_number "${BASH_REMATCH[1]}")" -ge "$(version_number 2.42.0)" ] || return 1
  (cd "$(dirname "$path")" && pwd)
}

# apt runs apt-get with package lists of its own: the machine's may be empty, and are root's.
apt() {
  apt-get -qq -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" \
    -o APT::Sandbox::User=root "$@"
}

download() {
  local package
  need apt-get "$hint"
  need dpkg-deb "$hint"
  package=prometheus_${version}_$(dpkg --print-architecture).deb
  log "Downloading Prometheus ${version%%+*} (first run only) ..."
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
  cd "$work"
  watch 'lines from apt-get' apt update
  apt download "prometheus=$version" >&2 ||
    die "apt-get finds no prometheus $version." "$hint" "Or pin what it finds in $sums."
  grep -F "  $package" "$sums" | sha256sum --check --quiet >&2 ||
    die "$package is not the one pinned in $sums."
  dpkg-deb --extract "$package" "$work/files"
  mv "$work/files/usr/bin"/* "$work/out"
  log "Downloaded Prometheus in $(elapsed)."
}

installed && exit
build_once "prometheus-$version" download
printf '%s\n' "$home"
