#!/usr/bin/env bash
# Draws the main steps of scripts/demo.sh, whose output it reads, as a terminal: an SVG of its own
# background, for light pages and dark ones. Tokens are cut, and lines that are too long; where
# lines of an output are left out, there is an ellipsis.
#
# Usage: scripts/demo.sh embedded | scripts/picture.sh >docs/demo.svg
set -euo pipefail

exec awk '
# draw adds a line of a class: c, a command, d, a comment, or o, output.
function draw(class, text) {
  if (length(text) > columns) text = substr(text, 1, columns - 1) "…"
  gsub(/&/, "\\&amp;", text)
  gsub(/</, "\\&lt;", text)
  y += 18
  lines = lines sprintf("<text class=\"%s\" x=\"16\" y=\"%d\">%s</text>\n", class, y, text)
}

function draw_ellipsis() {
  if (omitted) draw("d", "…")
  omitted = 0
}

BEGIN {
  columns = 98
  y = 8
  # What is shown of the outputs of the commands that match; other commands are not shown.
  keep[" secrets enable "] = "."
  keep[" -f -field=public_key "] = "^(-----|MII)"
  keep[" client_id="] = "^(client_id|issuer|next_step) "
  keep[" -f [^ ]*/roles/"] = "^delivery "
  keep[" -field=report "] = "."
  keep[" read [^ ]*/creds/"] = "^(lease_duration|access_token|expires_at|token_type) "
  keep[" curl .*Bearer"] = "^(HTTP|[{])"
  note[" client_id="] = "# The API Services Portal takes this key, and shows Client ID and Issuer:"
}

/^\$ / {
  draw_ellipsis()
  wanted = ""
  for (command in keep) if ($0 ~ command) {
    wanted = keep[command]
    y += 9
    if (command in note) draw("d", note[command])
  }
  in_command = 1
}

# Empty lines, and what the demo itself says.
wanted == "" || /^(\(|[0-9]\. |Done|$)/ { next }

in_command && /^(\$|  )/ { draw("c", $0); next }
{ in_command = 0 }

$0 !~ wanted { omitted = 1; next }
/^(-----END|[{])/ { draw_ellipsis() }
{
  if (match($0, /eyJ/)) $0 = substr($0, 1, RSTART + 39) "…"
  draw("o", $0)
}

END {
  draw_ellipsis()
  width = columns * 8.4 + 32
  height = y + 18
  printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" ", width, height
  printf "viewBox=\"0 0 %d %d\" xml:space=\"preserve\">\n", width, height
  print "<title>From a key pair in Vault to a call of the API, as make demo shows it</title>"
  print "<style>"
  print "text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre }"
  print ".c { fill: #79c0ff; font-weight: bold } .o { fill: #e6edf3 } .d { fill: #8b949e }"
  print "</style>"
  print "<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#0d1117\"/>"
  print lines "</svg>"
}'
