#!/usr/bin/env bash
# Downloads and runs a real Keycloak on 127.0.0.1, for demos and integration tests. Its
# database is in memory and its files are in the user's cache folder, so any number of
# instances can run side by side, each on its own port.
#
# Usage: scripts/keycloak.sh check            check prerequisites; fail if one is missing
#        scripts/keycloak.sh fetch            download it once; print its folder
#        scripts/keycloak.sh run PORT         become Keycloak (the caller owns the process), ready
#                                             when http://127.0.0.1:PORT/health/ready returns 200
#        scripts/keycloak.sh start PORT DIR   start it with its log in DIR, wait until it is
#                                             ready; print its base URL
#        scripts/keycloak.sh stop DIR         stop what start started
#
# The version is KEYCLOAK_VERSION (default: 26.5.6); the tests also know 26.4.7 and 26.7.3. The
# administrator is KC_BOOTSTRAP_ADMIN_USERNAME with the password KC_BOOTSTRAP_ADMIN_PASSWORD
# (default: admin, admin).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

version=${KEYCLOAK_VERSION:-26.5.6}
java=${JAVA_HOME:+$JAVA_HOME/bin/}java

# Options fixed at build time. The cache folder's name includes their hash.
build_options=(--db=dev-mem --health-enabled=true --http-management-health-enabled=false)
home=$CACHE/keycloak-$version-$(
  printf '%s' "${build_options[*]}" | git hash-object --stdin | cut -c 1-12
)

check() {
  local release
  release=$("$java" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p') || true
  [ "${release:-0}" -ge 17 ] ||
    die "Keycloak needs Java 17 or later; found ${release:-none} as $java." \
      "Install a JDK or set JAVA_HOME." \
      "Debian: apt install openjdk-17-jdk, macOS: brew install openjdk"
  [ -x "$home/bin/kc.sh" ] || need mvn "Maven, which downloads Keycloak: https://maven.apache.org \
(Debian: apt install maven, macOS: brew install maven)"
}

# fetch unpacks Keycloak into the cache folder and runs its build step there, so that no
# start has to.
fetch() {
  local work=$home.making
  check
  if [ ! -d "$home" ]; then
    lock "$work"
    # shellcheck disable=SC2064 # work is out of scope when the trap runs
    trap "unlock '$work'" EXIT
    [ -d "$home" ] || unpack "$work"
    unlock "$work"
    trap - EXIT
  fi
  printf '%s\n' "$home"
}

# unpack DIR creates Keycloak's folder, using DIR as a workspace.
unpack() {
  local archive=keycloak-quarkus-dist-$version.tar.gz
  log "Downloading Keycloak $version (165 MB) with Maven (first run only) ..."
  quietly "$1/log" mvn --batch-mode org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy \
    "-Dartifact=org.keycloak:keycloak-quarkus-dist:$version:tar.gz" "-DoutputDirectory=$1"
  log "Unpacking and building it (about 20 seconds) ..."
  tar -xzf "$1/$archive" -C "$1"
  quietly "$1/log" "$1/keycloak-$version/bin/kc.sh" build "${build_options[@]}"
  mv "$1/keycloak-$version" "$home"
  log "Prepared Keycloak $version in $(elapsed)."
}

# quietly LOG COMMAND...: shows the command's output only if it fails.
quietly() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    die "preparing Keycloak $version failed at: $1"
  }
}

# run PORT replaces this process with Java: kc.sh would stay as its parent and could be killed
# without it. The light compiler and collector suit a short-lived server.
run() {
  fetch >/dev/null
  export KC_BOOTSTRAP_ADMIN_USERNAME=${KC_BOOTSTRAP_ADMIN_USERNAME:-admin}
  export KC_BOOTSTRAP_ADMIN_PASSWORD=${KC_BOOTSTRAP_ADMIN_PASSWORD:-admin}
  exec "$java" -Xmx512m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \
    -Djava.util.logging.manager=org.jboss.logmanager.LogManager -Dkc.home.dir="$home" \
    -cp "$home/lib/quarkus-run.jar" io.quarkus.bootstrap.runner.QuarkusEntryPoint \
    start --optimized --cache=local --hostname-strict=false \
    --http-enabled=true --http-host=127.0.0.1 --http-port="$1"
}

# start PORT DIR
start() {
  local url=http://127.0.0.1:$1 pid deadline
  need curl "curl: https://curl.se"
  fetch >/dev/null
  mkdir -p "$2"
  "$0" run "$1" >"$2/keycloak.log" 2>&1 </dev/null &
  pid=$!
  deadline=$((SECONDS + 180))
  echo "$pid" >"$2/keycloak.pid"
  # shellcheck disable=SC2064 # a failed or interrupted start must not leave it running
  trap "stop '$2'" EXIT
  until curl --silent --fail --output /dev/null "$url/health/ready"; do
    if ! kill -0 "$pid" 2>/dev/null || [ "$SECONDS" -gt "$deadline" ]; then
      tail -n 20 "$2/keycloak.log" >&2
      die "Keycloak did not become ready on port $1; see the end of its log above."
    fi
    sleep 0.5
  done
  trap - EXIT
  printf '%s\n' "$url"
}

# stop DIR
stop() {
  local pid deadline=$((SECONDS + 15))
  [ -f "$1/keycloak.pid" ] || return 0
  pid=$(cat "$1/keycloak.pid")
  kill "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null; do
    [ "$SECONDS" -lt "$deadline" ] || kill -KILL "$pid" 2>/dev/null || true
    sleep 0.2
  done
  rm -f "$1/keycloak.pid"
}

case "${1:-} $#" in
'check 1' | 'fetch 1') "$1" ;;
'run 2' | 'stop 2') "$1" "$2" ;;
'start 3') "$1" "$2" "$3" ;;
*)
  sed -n 's/^# \{0,1\}//; /^Usage/,/^$/p' "$0" >&2
  exit 2
  ;;
esac
