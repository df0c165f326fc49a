#!/usr/bin/env bash
# Prints the absolute path of a folder with the programs that releases are made with:
# cyclonedx-gomod, crane, and pack, which is scripts/modules/release/main.go. They are built on
# first use and kept in the user's cache folder. Everything else goes to stderr.
#
# Usage: tools=$(scripts/release-tools.sh)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

module=$here/modules/release
# What pack compresses depends on the Go that builds it.
export GOTOOLCHAIN
GOTOOLCHAIN=$(sed -n 's/^toolchain //p' "$here/../go.mod")

build_tools() {
  compile "the release tools" "a minute" "$module" "$work/out/" \
    github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod \
    github.com/google/go-containerregistry/cmd/crane .
  mv "$work/out/release" "$work/out/pack"
}

build_once "release-tools-$GOTOOLCHAIN-$(pin "$module")" build_tools
printf '%s\n' "$home"
