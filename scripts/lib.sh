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
