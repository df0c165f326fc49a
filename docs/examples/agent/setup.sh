#!/bin/sh
# Lets a Vault Agent read the tokens of one role: writes a policy and an AppRole
# role, and creates the two files with which the Agent logs in.
#
# Usage: setup.sh MOUNT ROLE NAME, for example: setup.sh bcgov-jwt myapi myapp
#
# NAME is the application's name, for the policy and the AppRole role; existing ones
# of that name are replaced. The files role_id and secret_id are written to the
# current folder. Run it again for a new secret_id; a running Agent uses it at its
# next login.
#
# Set VAULT_ADDR to the Vault server's address and VAULT_TOKEN to your token. The token
# must be allowed to write policies and AppRole roles, to list auth methods and, unless
# AppRole is enabled, to enable it.
set -eu

mount=${1:?usage: setup.sh MOUNT ROLE NAME} role=${2:?} name=${3:?}
umask 077 # the files are for their owner only

vault policy write "$name" - <<POLICY
path "$mount/creds/$role" {
  capabilities = ["read"]
}
POLICY

if ! vault auth list -format=json | grep -q '"approle/"'; then
  vault auth enable approle
fi

# The Agent renews its Vault token, and logs in again once a day and after a
# restart. So it uses its secret_id more than once, and needs a new one within 30
# days. If the Agent's address is known, bind both to it:
#   secret_id_bound_cidrs=10.0.0.7/32 token_bound_cidrs=10.0.0.7/32
vault write "auth/approle/role/$name" \
  token_policies="$name" token_ttl=1h token_max_ttl=24h \
  secret_id_ttl=720h secret_id_num_uses=0

role_id=$(vault read -field=role_id "auth/approle/role/$name/role-id")
secret_id=$(vault write -f -field=secret_id "auth/approle/role/$name/secret-id")
printf %s "$role_id" >role_id
printf %s "$secret_id" >secret_id
