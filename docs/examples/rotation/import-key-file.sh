#!/bin/sh
# Creates a key from a private key file, such as client.key, or the one that the API
# Services Portal generated for you.
#
# Usage: import-key-file.sh MOUNT KEY FILE [wrapped]
#   for example: import-key-file.sh bcgov-jwt myapi client.key wrapped
#
# FILE is unencrypted PEM. With "wrapped", the private key is encrypted for this mount
# before it leaves this machine, so that nothing on the way to the plugin sees it, such
# as a proxy that terminates TLS. Needs openssl.
#
# Set VAULT_ADDR to the Vault server's address and VAULT_TOKEN to your token, which
# needs update on keys/KEY/import and read on keys/KEY; with "wrapped" also read on
# wrapping_key.
set -eu

mount=${1:?usage: import-key-file.sh MOUNT KEY FILE [wrapped]} key=${2:?} file=${3:?} way=${4:-plain}

if [ "$way" = wrapped ]; then
  # `vault transit import` expects base64 of PKCS#8. The pipe keeps copies of the
  # private key off the disk.
  openssl pkcs8 -topk8 -nocrypt -in "$file" -outform DER | openssl base64 -A |
    vault transit import "$mount/keys/$key" @/dev/stdin
else
  vault write -field=type "$mount/keys/$key/import" private_key=@"$file" >/dev/null
fi

# The public key in Vault must be the file's.
theirs=$(openssl pkey -in "$file" -pubout)
ours=$(vault read -field=public_key "$mount/keys/$key")
if [ "$theirs" != "$ours" ]; then
  echo "the public key in Vault does not match $file" >&2
  exit 1
fi

cat <<END
Imported. The registration at the provider does not change. Next:
  1. vault write $mount/keys/$key client_id=… issuer=… token_endpoint=…
  2. vault write -f $mount/roles/$key && vault read $mount/check/$key
  3. Delete $file and every copy of it: whoever has one can sign as this client.
  4. If the portal lets you replace the public key, run: rotate-manual.sh $mount $key $key
END
