#!/usr/bin/env bash
# Downloads what a program of docs/examples needs, once, at the versions that it pins, and prints
# the folder, which is kept in the user's cache folder; java also compiles the program there.
# Everything else goes to stderr.
#
# Usage: libraries=$(scripts/example-libraries.sh python|node|java)
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

download_java() {
  log "Downloading spring-vault-core (first run only) ..."
  cp -R "$examples/java/pom.xml" "$examples/java/src" "$work/out"
  cd "$work/out"
  watch 'lines from Maven' maven --quiet compile
}

# maven prints its errors to stdout.
maven() { mvn --batch-mode "$@" >&2; }

case "$*" in
python)
  need python3 "Python 3 with pip: https://www.python.org"
  pinned=$(git hash-object "$examples/python/requirements.txt")
  ;;
node)
  need npm "Node.js 20 or later with npm: https://nodejs.org"
  pinned=$(git hash-object "$examples/node/package-lock.json")
  ;;
java)
  need java "Java 17 or later: https://adoptium.net"
  need mvn "Maven: https://maven.apache.org"
  pinned=$(cat "$examples/java/pom.xml" "$examples"/java/src/main/java/* | git hash-object --stdin)
  ;;
*) die "The example is \"$*\"; it must be python, node or java." ;;
esac
build_once "example-$1-${pinned:0:12}" "download_$1"
printf '%s\n' "$home"
