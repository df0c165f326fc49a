#!/usr/bin/env bash
# Runs make targets one after another, continues after failures, and ends with a summary.
# Fails if any target failed. A target may have variables, as in 'integration HOST=openbao'.
#
# Usage: scripts/steps.sh TARGET...
set -uo pipefail

cd "$(dirname "$0")/.." || exit
summary=
failed=0

for target in "$@"; do
  printf '\n== %s\n' "$target"
  start=$SECONDS
  # shellcheck disable=SC2086 # the variables are words of their own
  if make --no-print-directory $target; then
    result=ok
  else
    result=FAILED
    failed=$((failed + 1))
  fi
  summary+=$(printf '%-34s %-7s %4ds' "$target" "$result" $((SECONDS - start)))$'\n'
done

printf '\n== summary\n%s' "$summary"
if [ "$failed" -gt 0 ]; then
  echo "$failed of $# steps FAILED"
  exit 1
fi
echo "all $# steps passed in ${SECONDS}s"
