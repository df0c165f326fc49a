#!/usr/bin/env bash
# Runs the integration tests on HOST (scripts/host.sh; default: vault), those in the folders
# PACKAGES (default: all); all packages share one Keycloak. Slow builds run first, where their
# progress is visible. Without Java or Maven the Keycloak tests are skipped with a message, and so
# are those of the providers PROVIDERS (oidc-provider, hydra, keycloak; default: oidc-provider)
# without what they need; with CI=true that is an error.
#
# Usage: scripts/integration.sh [GO TEST FLAG...]
set -euo pipefail

cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

clean_up() {
  scripts/keycloak.sh stop "$dir"
  rm -rf "$dir"
}

export HOST=${HOST:-vault}
scripts/host.sh "$HOST" >/dev/null
if ! { scripts/opentofu.sh && scripts/terraform-provider-vault.sh; } >/dev/null; then
  [ "${CI:-}" != true ] || exit 1
  log "SKIPPED: the docs/examples/terraform test, for the reason above."
fi
languages=(python node)
[ "${SLOW:-}" != true ] || languages+=(java)
for language in "${languages[@]}"; do
  scripts/example-libraries.sh "$language" >/dev/null && continue
  [ "${CI:-}" != true ] || exit 1
  log "SKIPPED: the docs/examples/$language test, for the reason above."
done
if ! scripts/prometheus.sh >/dev/null; then
  [ "${CI:-}" != true ] || exit 1
  log "SKIPPED: the docs/examples/monitoring test, for the reason above."
fi
# Compiled in advance: otherwise tests that share a server would wait for it.
for module in manifests terraform-provider-ephemeral; do
  (cd "scripts/modules/$module" && go build -buildvcs=false -o /dev/null .)
done
(cd scripts/modules/vault && CGO_ENABLED=0 go build -buildvcs=false -o /dev/null \
  github.com/hashicorp/vault-plugin-auth-kubernetes/cmd/vault-plugin-auth-kubernetes)
if [ "${CI:-}" = true ] || scripts/keycloak.sh check; then
  dir=$(mktemp -d)
  trap clean_up EXIT
  trap 'exit 130' INT TERM
  export KC_BOOTSTRAP_ADMIN_USERNAME=admin KC_BOOTSTRAP_ADMIN_PASSWORD=admin
  BCGOV_JWT_TEST_KEYCLOAK=$(scripts/keycloak.sh start "$(free_port)" "$dir")
  export BCGOV_JWT_TEST_KEYCLOAK
else
  log "SKIPPED: the tests with a real Keycloak, for the reason above."
fi
for provider in ${PROVIDERS:-oidc-provider}; do
  [ "$provider" != keycloak ] || continue
  scripts/"$provider".sh fetch >/dev/null && continue
  [ "${CI:-}" != true ] || exit 1
  log "SKIPPED: the tests with $provider, for the reason above."
done
packages=./integrationtest/...
if [ "$HOST" = vault ]; then
  go test -count=1 -timeout 20m -run '^Test(Keycloak|RealProvider)' "$@" ./backend/
else # what the host runs
  packages=$(grep -l 'harness\.Main' ./integrationtest/*/main_test.go | xargs -n 1 dirname)
fi
[ -z "${PACKAGES:-}" ] || packages=$(printf './integrationtest/%s ' $PACKAGES)
# Two packages at a time: each has a server and runs six tests at once.
# shellcheck disable=SC2086 # one word for each package
go test -p 2 -count=1 -timeout 20m "$@" $packages
