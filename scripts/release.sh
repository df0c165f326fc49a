#!/usr/bin/env bash
# Makes the files of a release in bin/release, from the commit that is checked out: the plugin for
# each of PLATFORMS, bare and in an archive, its SBOM, an image, SHA256SUMS and the release notes.
# Whoever runs it on the same commit obtains the same bytes. If it fails, it leaves nothing behind.
#
# Usage: VERSION=v0.1.0 scripts/release.sh
#
# PLATFORMS are those of the release by default; as in PLATFORMS='linux/amd64 linux/arm64'.
set -euo pipefail

cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

name=vault-plugin-bcgov-jwt
source=https://github.com/bcgov/$name
image=ghcr.io/bcgov/$name
tested=linux/amd64 # where the tests run
platforms=${PLATFORMS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64}
version=${VERSION:-}
number=${version#v}

check() {
  local changed
  [ -n "$version" ] || die "a release needs a version." "make release VERSION=v0.1.0"
  [[ $version =~ ^v(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*)){2}(-[0-9A-Za-z.-]+)?$ ]] ||
    die "VERSION is '$version', which is not a version like v0.1.0."
  need git "git: https://git-scm.com/downloads"
  need jq "jq: https://jqlang.org"
  changed=$(git status --porcelain) || die "$PWD is not a git clone."
  [ -z "$changed" ] || die "the work tree has changes; commit or remove them:" "${changed:0:1000}"
  changes | grep -q . ||
    die "CHANGELOG.md has no changes of $version." "Add them below: ## [$number] - YYYY-MM-DD"
  ! git rev-parse --quiet --verify "refs/tags/$version" >/dev/null ||
    [ "$(git rev-parse "refs/tags/$version^{commit}")" = "$commit" ] ||
    die "the tag $version is of another commit." "git checkout $version"
}

# changes prints what CHANGELOG.md says of the version, without its heading.
changes() {
  awk -v heading="## [$number] - 20" '
    /^## / { inside = index($0, heading) == 1; next }
    /^\[[^]]*\]: / { next } # what the headings link to
    inside && (NF || begun) { begun = 1; print }' CHANGELOG.md
}

# pin_environment keeps the caller's settings from changing what is built.
pin_environment() {
  unset MAKEFLAGS MFLAGS MAKEOVERRIDES GOEXPERIMENT
  GOTOOLCHAIN=$(sed -n 's/^toolchain //p' go.mod)
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
  export GOTOOLCHAIN SOURCE_DATE_EPOCH
  export GOFLAGS=-mod=readonly GOWORK=off GOFIPS140=off GOAMD64=v1 GOARM64=v8.0
  export LC_ALL=C TZ=UTC
}

# release_platform OS/ARCH: makes its binary, SBOM and archive.
release_platform() {
  local os=${1%/*} arch=${1#*/} suffix='' archive=tar.gz base content sum
  [ "$os" != windows ] || suffix=.exe archive=zip
  base=${name}_${number}_${os}_$arch
  log "Building for $1 ..."
  GOOS=$os GOARCH=$arch make --no-print-directory build VERSION="$version" COMMIT="$short" \
    BINARY="$work/release/$base$suffix" >/dev/null
  sbom "$base$suffix" "$base.cdx.json"
  content=$work/archives/$base
  mkdir -p "$content"
  ln "$work/release/$base$suffix" "$content/$name$suffix"
  cp LICENSE "$content"
  if [ "$os" = linux ]; then
    images+=("$1=$work/images/$arch")
    mkdir -p "$work/images"
    cp -R "$content" "$work/images/$arch"
  fi
  archives+=("$base.$archive")
  sum=$(sha256 "$work/release/$base$suffix")
  rows+="| $1 | \`${sum%% *}\` | $(tests "$1") |"$'\n'
}

# tests OS/ARCH: prints what a user must know of the platform.
tests() { if [ "$1" = "$tested" ]; then echo "All run on it"; else echo "None: compiled only"; fi; }

# sbom BINARY FILE: writes a CycloneDX SBOM of the modules in BINARY. The license of the plugin's
# own module is stated, not looked up: whether it can be downloaded differs in time. The hashes of
# cyclonedx-gomod itself differ between machines.
sbom() {
  (cd "$work/release" && "$tools/cyclonedx-gomod" bin -json -std -licenses -noserial \
    -version "$version" "$1" 2>"$work/sbom.log") >"$work/sbom.json" || {
    cat "$work/sbom.log" >&2
    die "the SBOM of $1 failed."
  }
  jq --sort-keys 'del(.metadata.tools[].hashes, .metadata.component.evidence)
    | .metadata.timestamp = (env.SOURCE_DATE_EPOCH | tonumber | todate)
    | .metadata.component.licenses = [{license: {id: "Apache-2.0"}}]' \
    "$work/sbom.json" >"$work/release/$2"
}

# release_image makes an OCI layout with an image for each architecture of linux. Sets $digest.
release_image() {
  digest=$("$tools/pack" image "$work/layout" "$version" "$(git rev-parse HEAD)" "${images[@]}")
  find "$work/layout" -type f -exec chmod 644 {} +
  "$tools/pack" archive "$work/release/${name}_${number}_image.tar" "$work/layout"
}

notes() {
  printf '%s\n\n### Files\n\n| Platform | SHA-256 of the plugin | Tests |\n|---|---|---|\n%s' "$(changes)" "$rows"
  [ -z "$digest" ] || printf '\nImage: %s:%s@%s\n' "$image" "$version" "$digest"
  printf '\n[Verify what you downloaded](%s), and [upgrade](%s) as documented.\n' \
    "$source/blob/$version/docs/verify.md" "$source/blob/$version/docs/operating.md#upgrade"
}

# release_archives puts the notes into each archive, so that they are read with it.
release_archives() {
  local archive content
  for archive in "${archives[@]}"; do
    content=$work/archives/${archive%.tar.gz}
    content=${content%.zip}
    cp "$work/release/release-notes.md" "$content"
    "$tools/pack" archive "$work/release/$archive" "$content"
  done
}

sha256() { if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }

clean_up() {
  rm -rf "$work"
  rmdir bin 2>/dev/null || true
}

commit=$(git rev-parse HEAD 2>/dev/null) || die "$PWD is not a git clone."
short=$(git rev-parse --short=12 HEAD)
check
pin_environment
tools=$(scripts/release-tools.sh)

mkdir -p bin
work=$(mktemp -d "$PWD/bin/release.XXXXXX")
trap clean_up EXIT
trap 'exit 130' INT TERM
mkdir "$work/release"
archives=() images=() rows='' digest=''
for platform in $platforms; do release_platform "$platform"; done
[ "${#images[@]}" -eq 0 ] || release_image
notes >"$work/release/release-notes.md"
release_archives
(cd "$work/release" && sha256 -- *) >"$work/SHA256SUMS"
mv "$work/SHA256SUMS" "$work/release"
rm -rf bin/release
mv "$work/release" bin/release
log "Made bin/release in $(elapsed)."
cat bin/release/SHA256SUMS
