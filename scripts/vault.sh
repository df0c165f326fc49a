#!/usr/bin/env bash
# Prints the absolute path of a usable vault binary on stdout: the one on the
# PATH if it is 1.16 or later, otherwise the version that scripts/vault/go.mod
# pins, built on first use into the user's cache folder. All else goes to stderr.
#
# Usage: vault=$(scripts/vault.sh)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

# on_path prints the PATH's vault if it is recent enough.
on_path() {
  local path version
  path=$(type -P vault) || return 1
  version=$("$path" version 2>/dev/null) || version="it does not tell its version"
  if [[ $version =~ ^Vault\ v([0-9]+)\.([0-9]+) ]] &&
    ((BASH_REMATCH[1] > 1 || (BASH_REMATCH[1] == 1 && BASH_REMATCH[2] >= 16))); then
    printf '%s/vault\n' "$(cd "$(dirname "$path")" && pwd)"
  else
    log "Passing over $path ($version): Vault 1.16 or later is needed."
    return 1
  fi
}

# build compiles the pinned Vault in the folder $work.
build() {
  local total
  log "Building Vault $version from source: about five minutes, the first time only."
  cd "$here/vault"
  export CGO_ENABLED=0 GOWORK=off
  # Listing the packages downloads their sources, and counts what there is to do.
  watch 'modules downloaded' go list -tags minimal -deps . >"$work/packages"
  total=$(wc -l <"$work/packages")
  watch "of about $((total)) packages compiled" \
    go build -v -buildvcs=false -tags minimal -ldflags '-s -w' -o "$work/out/vault" .
  log "Built Vault $version in $(elapsed)."
}

# watch UNIT COMMAND...: runs the command and says every 15 seconds how far it
# is, by the lines that it has written to stderr.
watch() {
  local unit=$1 next=$((SECONDS + 15))
  shift
  "$@" 2>"$work/log" &
  child=$!
  while kill -0 "$child" 2>/dev/null; do
    sleep 1
    [ "$SECONDS" -lt "$next" ] && continue
    log "  $(elapsed): $(grep -c . "$work/log") $unit"
    next=$((SECONDS + 15))
  done
  wait "$child" || {
    tail -n 20 "$work/log" >&2
    die "building Vault $version failed: $*"
  }
  child=
}

# clean_up leaves nothing running and nothing half made, also on Ctrl-C.
clean_up() {
  [ -z "$child" ] || kill "$child" 2>/dev/null || true
  unlock "$work"
}

on_path && exit

need go "Go 1.26 or later: https://go.dev/doc/install"
need git "git: https://git-scm.com/downloads"
version=$(sed -n 's|^require github.com/hashicorp/vault v||p' "$here/vault/go.mod")
key=$(cat "$here"/vault/{go.mod,go.sum,main.go} | git hash-object --stdin | cut -c 1-12)
home=$CACHE/vault-$version-$key
work=$home.making

if [ ! -x "$home/vault" ]; then
  lock "$work"
  child=
  trap clean_up EXIT
  if [ ! -x "$home/vault" ]; then
    build
    mv "$work/out" "$home"
  fi
fi
printf '%s/vault\n' "$home"
