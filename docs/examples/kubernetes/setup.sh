#!/bin/sh
# Provides pods of a Kubernetes cluster with the access tokens of a key.
#
# Usage: setup.sh MOUNT KEY AUTH NAMESPACE SERVICE_ACCOUNT
#   for example: setup.sh bcgov-jwt myapi kubernetes myapp myapi
#
# AUTH is the path of Vault's Kubernetes auth method, configured for the cluster. The
# operators log in as SERVICE_ACCOUNT:
#   kubectl --namespace NAMESPACE create serviceaccount SERVICE_ACCOUNT
#
# If a step fails, what the script has created is deleted. Run it again to change the
# service account.
#
# Set VAULT_ADDR to the Vault server's address and VAULT_TOKEN to your token, which
# needs create, read, update and delete on MOUNT/roles/*, sys/policies/acl/* and
# auth/AUTH/role/*.
set -eu

mount=${1:?usage: setup.sh MOUNT KEY AUTH NAMESPACE SERVICE_ACCOUNT} key=${2:?} auth=${3:?}
namespace=${4:?} service_account=${5:?}

created=
undo() {
  status=$?
  [ "$status" -eq 0 ] || for path in $created; do
    vault delete "$path" >/dev/null && echo "Deleted $path again." >&2
  done
  exit "$status"
}
trap undo EXIT
trap 'exit 130' INT TERM

# exists reports whether an entry exists. Only a clear answer counts: undo must not
# delete what was there before.
exists() {
  if found=$(vault read "$1" 2>&1); then return 0; fi
  case $found in "No value found"*) return 1 ;; esac
  echo "$found" >&2
  exit 1
}

# put writes an entry: PATH, then its settings.
put() {
  exists "$1" || created="$1 $created"
  vault write "$@" >/dev/null
}

# role creates a role: NAME DELIVERY. One that readers use already is not changed.
role() {
  if exists "$mount/roles/$1"; then
    for setting in "key=$key" "delivery=$2"; do
      if [ "$(vault read -field="${setting%%=*}" "$mount/roles/$1")" != "${setting#*=}" ]; then
        echo "role $1 exists and does not have $setting; change or delete it first" >&2
        exit 1
      fi
    done
  else
    put "$mount/roles/$1" key="$key" delivery="$2"
  fi
}

policy() {
  put "sys/policies/acl/$mount-$1" \
    policy="path \"$mount/creds/$1\" { capabilities = [\"read\"] }"
}

# login_role writes a role of the auth method: NAME, then its settings.
login_role() {
  name=$1 && shift
  put "auth/$auth/role/$name" audience=vault \
    bound_service_account_names="$service_account" \
    bound_service_account_namespaces="$namespace" "$@"
  echo "Service account $namespace/$service_account can log in with role $name at auth/$auth."
}

# One role per delivery. Keep those that you use.
role "$key" leased
role "$key-shared" shared
role "$key-unleased" unleased

policy "$key"
policy "$key-shared"
policy "$key-unleased"

# Vault Secrets Operator renews its Vault token, which keeps the leases.
login_role "$key-vso" token_policies="$mount-$key,$mount-$key-shared" token_ttl=1h

# External Secrets Operator logs in for each refresh, so it uses batch tokens, which
# Vault does not store. It must not use the leased role: see eso.yaml.
login_role "$key-eso" token_policies="$mount-$key-shared,$mount-$key-unleased" token_ttl=5m token_type=batch
