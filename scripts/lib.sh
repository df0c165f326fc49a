# shellcheck shell=bash
# What the scripts share; sourced, never run. Written for bash 3.2 (macOS) and
# without flock, which not every system has.

# What is slow to get is got once for every clone, into the user's cache folder.
# shellcheck disable=SC2034 # used by those who source this
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/vault-plugin-bcgov-jwt

log() { printf '%s\n' "$*" >&2; }

# die MESSAGE [HINT...]: ends the script.
die() {
  log "error: $1"
  shift
  while [ $# -gt 0 ]; do
    log "  $1"
    shift
  done
  exit 1
}

# need COMMAND HINT: ends the script where COMMAND is missing.
need() { command -v "$1" >/dev/null || die "$1 is not installed." "$2"; }

# elapsed: how long the script has run, as 1m05s.
elapsed() { printf '%dm%02ds' $((SECONDS / 60)) $((SECONDS % 60)); }

# free_port prints a port where nothing listens, nor on the next one, which
# a Vault dev server takes for its cluster.
free_port() {
  local port
  while :; do
    port=$((20000 + RANDOM % 12000))
    listens "$port" || listens $((port + 1)) || break
  done
  echo "$port"
}

listens() { (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# lock DIR: waits until this process alone has DIR, empty, to make something
# in; what is whole is moved out of it, then unlock DIR. The link DIR.lock points
# at its holder's process id; that of a dead one is taken over.
lock() {
  local holder told=
  mkdir -p "$(dirname "$1")" && [ -w "$(dirname "$1")" ] ||
    die "$(dirname "$1") cannot be written to." "Set XDG_CACHE_HOME to a folder that can."
  until ln -s $$ "$1.lock" 2>/dev/null; do
    holder=$(readlink "$1.lock") || { sleep 0.1; continue; }
    if ! kill -0 "$holder" 2>/dev/null; then
      rm -f "$1.lock"
      continue
    fi
    [ -n "$told" ] || log "Waiting for process $holder, which is making the same thing."
    told=yes
    sleep 1
  done
  rm -rf "$1"
  mkdir "$1"
}

unlock() { rm -rf "$1" "$1.lock"; }

# on_path COMMAND NAME MAJOR MINOR: prints the absolute path of the PATH's COMMAND,
# if that calls itself NAME and is of this version or later.
on_path() {
  local path version
  path=$(type -P "$1") || return 1
  version=$("$path" version 2>/dev/null) || version="it does not tell its version"
  if [[ $version =~ ^$2\ v([0-9]+)\.([0-9]+) ]] &&
    ((BASH_REMATCH[1] > $3 || (BASH_REMATCH[1] == $3 && BASH_REMATCH[2] >= $4))); then
    printf '%s/%s\n' "$(cd "$(dirname "$path")" && pwd)" "$1"
  else
    log "Passing over $path (${version%%$'\n'*}): $2 $3.$4 or later is needed."
    return 1
  fi
}

# make_once NAME FUNCTION: leaves the cache folder's NAME in $home. Unless it is
# there, the function makes it, in the empty folder $work/out.
make_once() {
  home=$CACHE/$1
  if [ -d "$home" ]; then return; fi
  work=$home.making
  child=
  lock "$work"
  trap stop_making EXIT
  if [ ! -d "$home" ]; then
    mkdir "$work/out"
    "$2"
    mv "$work/out" "$home"
  fi
  stop_making
  trap - EXIT
}

# stop_making leaves nothing running and nothing half made, also on Ctrl-C.
stop_making() {
  [ -z "$child" ] || kill "$child" 2>/dev/null || true
  unlock "$work"
}

# pin MODULE: prints a short text that changes with the files of a Go module.
pin() {
  need go "Go 1.26 or later: https://go.dev/doc/install"
  need git "git: https://git-scm.com/downloads"
  cat "$1"/* | git hash-object --stdin | cut -c 1-12
}

# compile WHAT DURATION MODULE OUTPUT ARGUMENT...: for make_once. Builds a program
# at the versions that the folder MODULE pins. The arguments are go build's.
compile() {
  local what=$1 module=$3 output=$4 total
  log "Building $what from source: about $2, the first time only."
  shift 4
  cd "$module"
  export CGO_ENABLED=0 GOWORK=off
  # Listing the packages downloads their sources, and counts what there is to do.
  watch 'modules downloaded' go list -deps "$@" >"$work/packages"
  total=$(wc -l <"$work/packages")
  watch "of about $((total)) packages compiled" \
    go build -v -buildvcs=false -ldflags '-s -w' -o "$output" "$@"
  log "Built $what in $(elapsed)."
}

# watch UNIT COMMAND...: runs the command and says every 15 seconds how far it
# is, by the lines that it has written to stderr.
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
    die "this failed: $*"
  }
  child=
}
