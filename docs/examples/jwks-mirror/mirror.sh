#!/bin/sh
# Copies the key set of a key with registration=jwks from Vault to a public place, once. Run it
# from a timer. Needs only curl and a POSIX system, and no Vault token.
#
# Usage: mirror.sh URL TARGET
#   for example: mirror.sh "$VAULT_ADDR$JWKS_PATH" /var/www/jwks/jwks.json
#
# URL is Vault's address followed by the key's jwks_path, any namespace included. TARGET is one of
#   FILE                      which a web server serves; replaced atomically
#   https://…/configmaps/NAME a ConfigMap by the Kubernetes API, as the pod's service account
#   https://…                 an object store, with PUT
#
# Optional environment:
#   VAULT_CACERT     file with Vault's certificate authority
#   PUT_CONFIG       curl config file with what the object store requires, such as
#                    header = "Authorization: Bearer …", or user and aws-sigv4
#   PUBLIC_URL       where the object store serves the copy; an identical one is not sent again
#   SERVICE_ACCOUNT  folder with token and ca.crt, if not the usual one
#
# On any failure the script prints one line, exits with 1, and leaves the old copy in place.
set -eu

url=${1:?usage: mirror.sh URL TARGET} target=${2:?usage: mirror.sh URL TARGET}
LC_ALL=C
export LC_ALL
newline='
'
limit=65536 # bytes; the largest key set has 10 RSA-4096 keys, about 8 KB

fail() {
  echo "mirror.sh: nothing copied: $*" >&2
  exit 1
}

# request runs curl, whose last line of output is the HTTP status.
request() {
  curl --silent --show-error --fail --proto '=http,https' --connect-timeout 5 --max-time 10 \
    --write-out '\n%{http_code}' "$@" 2>&1
}

# reason extracts curl's error from a response, or its status.
reason() {
  error=$(printf '%s\n' "$1" | sed -n 's/^.*curl: \(([0-9]*) .*\)/\1/p' | head -n 1)
  echo "${error:-HTTP ${1##*"$newline"}}"
}

# fetch sets document to the body of a 200. Redirects are not followed. Reading no more than the
# limit takes head, since older versions of curl limit only a Content-Length; curl's failure comes
# through the pipe as the status 0.
fetch() {
  response=$({ request "$@" || printf '\n0'; } | head -c "$limit" | tr '\000' ' ')
  [ ${#response} -lt "$limit" ] || fail "$url: the response is larger than $limit bytes"
  [ "${response##*"$newline"}" = 200 ] || fail "$url: $(reason "${response%"${newline}0"}")"
  document=${response%"$newline"*}
  document=${document%"$newline"}
}

# validate accepts what Vault publishes and nothing else: compact JSON with at least one public
# key, whose members are strings or lists of strings. A regular expression describes that in full,
# which no general JSON parser would check, and which leaves no character that needs escaping.
validate() {
  string='"[A-Za-z0-9_.:/+=#-]*"'
  member="$string:($string|\[$string(,$string)*\])"
  key="\{($member,)*\"kty\":\"(RSA|EC|OKP)\"(,$member)*\}"
  private='"(d|p|q|dp|dq|qi|oth|k)":'
  line=$(printf '%s' "$document" | tr '\n' ' ')
  printf '%s\n' "$line" | grep -Eqx "\{\"keys\":\[$key(,$key)*\]\}" ||
    fail "$url: the response is not a key set"
  ! printf '%s\n' "$line" | grep -Eq "$private" || fail "$url: the response holds a private key"
}

# send runs curl with a request body on standard input or in a config file.
send() {
  response=$(request --output /dev/null "$@") || response="$response${newline}failed"
  case ${response##*"$newline"} in
    2??) ;;
    *) fail "${target%%\?*}: $(reason "${response%"${newline}failed"}")" ;;
  esac
}

to_file() {
  [ ! -d "$target" ] || fail "$target is a folder"
  [ "$document" != "$(cat "$target" 2>/dev/null)" ] || return 0
  temporary=$target.$$
  trap 'rm -f "$temporary"' EXIT
  {
    printf '%s\n' "$document" >"$temporary" &&
      chmod 644 "$temporary" &&
      mv -f "$temporary" "$target"
  } 2>/dev/null || fail "$target could not be written"
}

# to_configmap needs only the verb patch: a patch that changes nothing leaves the ConfigMap as it
# is. The token reaches curl through a pipe, since everyone on the machine can see command lines.
to_configmap() {
  account=${SERVICE_ACCOUNT:-/var/run/secrets/kubernetes.io/serviceaccount}
  token=$(cat "$account/token" 2>/dev/null) || fail "$account/token could not be read"
  escaped=$(printf '%s' "$document" | sed 's/"/\\"/g')
  printf 'header = "Authorization: Bearer %s"\ndata-raw = {"data":{"jwks.json":"%s"}}\n' \
    "$token" "$escaped" |
    send --cacert "$account/ca.crt" --request PATCH --config - \
      --header 'Content-Type: application/merge-patch+json' "$target"
}

to_object_store() {
  if [ -n "${PUBLIC_URL:-}" ]; then
    public=$(request "$PUBLIC_URL" | head -c "$limit") || true
    [ "$public" != "$document${newline}200" ] || return 0
  fi
  printf '%s' "$document" |
    send ${PUT_CONFIG:+--config "$PUT_CONFIG"} --request PUT --data-binary @- \
      --header 'Content-Type: application/jwk-set+json' \
      --header 'Cache-Control: max-age=60' "$target"
}

# Whoever can change the response registers their own key.
case $url in
  https://* | http://127.0.0.1:* | http://localhost:*) ;;
  *) fail "$url: https:// is required" ;;
esac
fetch ${VAULT_CACERT:+--cacert "$VAULT_CACERT"} "$url"
validate
case $target in
  http://*) fail "$target: https:// is required" ;;
  https://*/configmaps/*) to_configmap ;;
  https://*) to_object_store ;;
  *) to_file ;;
esac
