#!/usr/bin/env bash
# Builds and runs Ory Hydra on 127.0.0.1, for integration tests: the version that
# scripts/modules/hydra pins. Its database is a file that is deleted when Hydra has ended.
#
# Usage: scripts/hydra.sh check      check prerequisites; fail if one is missing
#        scripts/hydra.sh fetch      build it once; print its path
#        scripts/hydra.sh run PORT   become Hydra (the caller owns the process), with its admin API
#                                    on the next port; ready when /health/ready returns 200
#
# ISSUER is its issuer identifier (default: http://127.0.0.1:PORT).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

module=$here/modules/hydra
version=$(sed -n 's|^require github.com/ory/hydra/v2 v||p' "$module/go.mod")

check() {
  need go "Go 1.26 or later: https://go.dev/doc/install"
  need cc "A C compiler, for SQLite (Debian: apt install gcc, macOS: xcode-select --install)"
}

build_hydra() {
  CGO=1 compile "Ory Hydra $version" "three minutes" "$module" "$work/out/hydra" \
    -tags sqlite,json1 .
}

# fetch sets $home.
fetch() {
  check
  build_once "hydra-$version-$(pin "$module")" build_hydra
}

# run waits for locks of the database; SQLite in memory would fail instead, at concurrent requests.
run() {
  local dir
  fetch
  dir=$(mktemp -d)
  # exec keeps the process ID.
  (while kill -0 $$ 2>/dev/null; do sleep 1; done; rm -rf "$dir") >/dev/null 2>&1 </dev/null &
  export DSN="sqlite://$dir/db?_fk=true&_journal_mode=WAL&_busy_timeout=10000"
  export SQA_OPT_OUT=true LOG_LEVEL=warn
  "$home/hydra" migrate sql --read-from-env --yes
  export SERVE_PUBLIC_HOST=127.0.0.1 SERVE_PUBLIC_PORT=$1
  export SERVE_ADMIN_HOST=127.0.0.1 SERVE_ADMIN_PORT=$(($1 + 1))
  export URLS_SELF_ISSUER=${ISSUER:-http://127.0.0.1:$1}
  export SECRETS_SYSTEM=only-for-tests-on-this-machine
  exec "$home/hydra" serve all --dev
}

case "${1:-} $#" in
'check 1') check ;;
'fetch 1') fetch && printf '%s/hydra\n' "$home" ;;
'run 2') run "$2" ;;
*)
  sed -n 's/^# \{0,1\}//; /^Usage/,/^$/p' "$0" >&2
  exit 2
  ;;
esac
