#!/usr/bin/env bash
# Fails if the code calls a function with a known vulnerability, or if PLUGIN was built with
# another Go than go.mod's, whose standard library it contains. Vulnerabilities that are imported
# or required, but not called, are only listed. The database is the Go module pinned in
# scripts/modules/vulndb, indexed on first use and kept in the user's cache folder: no web
# service is needed.
#
# Usage: scripts/vuln.sh PLUGIN
set -euo pipefail

cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

root=$PWD
module=$root/scripts/modules/vulndb
pinned=$(pin "$module")
version=$(sed -n 's|.*golang.org/x/vulndb v\([^ ]*\).*|\1|p' "$module/go.mod")

build_index() {
  compile "the vulnerability database $version" "a minute" "$module" "$work/indexdb" \
    golang.org/x/vulndb/cmd/indexdb
  "$work/indexdb" -vulns "$(go list -m -f '{{.Dir}}' golang.org/x/vulndb)/data/osv" \
    -out "$work/out"
  cd "$root"
}

build_once "vulndb-$version-$pinned" build_index
# Without cgo, as the plugin is built.
CGO_ENABLED=0 go tool -modfile=scripts/modules/tools/go.mod govulncheck \
  -db "file://$home" -show verbose ./... | sed -n '/^=== Symbol Results/,$p'

wanted=$(sed -n 's/^toolchain //p' go.mod)
built=$(go version "$1")
[ "${built##* }" = "$wanted" ] || die "$1 was built with ${built##* }, not $wanted."
log "$1 was built with $wanted."
