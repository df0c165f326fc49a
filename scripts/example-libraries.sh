#!/usr/bin/env bash
# Downloads what a program of docs/examples needs, once, at the versions that it pins, and prints
# the folder, which is kept in the user's cache folder. Everything else goes to stderr.
#
# Usage: libraries=$(scripts/example-libraries.sh python|node)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

examples=$here/../docs/examples

download_python() {
  log "Downloading hvac (first run only) ..."
  watch 'lines from pip' python3 -m pip install --quiet --disable-pip-version-check \
    --only-binary :all: --target "$work/out" -r "$examples/python/requirements.txt"
}

download_node() {
  log "Downloading node-vault (first run only) ..."
  cp "$examples"/node/package*.json "$work/out"
  cd "$work/out"
  watch 'lines from npm' npm ci --ignore-scripts --no-audit --no-fund >/dev/null
}

case "$*" in
python)
  need python3 "Python 3 with pip: https://www.python.org"
  pinned=$(git hash-object "$examples/python/requirements.txt")
  ;;
node)
  need npm "Node.js 20 or later with npm: https://nodejs.org"
  pinned=$(git hash-object "$examples/node/package-lock.json")
  ;;
*) die "The example is \"$*\"; it must be python or node." ;;
esac
build_once "example-$1-${pinned:0:12}" "download_$1"
printf '%s\n' "$home"
