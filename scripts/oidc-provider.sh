#!/usr/bin/env bash
# Downloads and runs panva's oidc-provider on 127.0.0.1, for integration tests: the version that
# scripts/modules/oidc-provider pins, with the server program there. Everything is in memory.
#
# Usage: scripts/oidc-provider.sh check      check prerequisites; fail if one is missing
#        scripts/oidc-provider.sh fetch      download it once; print its folder
#        scripts/oidc-provider.sh run PORT   become the server (the caller owns the process), ready
#                                            when /.well-known/openid-configuration returns 200
#
# ISSUER is its issuer identifier (default: http://127.0.0.1:PORT).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

module=$here/modules/oidc-provider

check() {
  local release
  release=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/') || true
  [ "${release:-0}" -ge 20 ] ||
    die "oidc-provider needs Node.js 20 or later; found ${release:-none}." \
      "https://nodejs.org (Debian: apt install nodejs npm, macOS: brew install node)"
  need npm "npm, which downloads oidc-provider: https://nodejs.org"
}

download() {
  log "Downloading oidc-provider (first run only) ..."
  cp "$module"/* "$work/out"
  cd "$work/out"
  watch 'lines from npm' npm ci --ignore-scripts --no-audit --no-fund >/dev/null
  log "Downloaded oidc-provider in $(elapsed)."
}

# fetch sets $home.
fetch() {
  check
  build_once "oidc-provider-$(pin "$module")" download
}

run() {
  fetch
  exec node "$home/server.js" "$1"
}

case "${1:-} $#" in
'check 1') check ;;
'fetch 1') fetch && printf '%s\n' "$home" ;;
'run 2') run "$2" ;;
*)
  sed -n 's/^# \{0,1\}//; /^Usage/,/^$/p' "$0" >&2
  exit 2
  ;;
esac
