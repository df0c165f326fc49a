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
# Set VAULT_ADDR to the Vault server's address and VAULT_TOKEN to your token, which
# needs create and update on MOUNT/roles/*, sys/policies/acl/* and auth/AUTH/role/*. An
# existing role KEY is changed to delivery=leased.
set -eu

mount=${1:?usage: setup.sh MOUNT KEY AUTH NAMESPACE SERVICE_ACCOUNT} key=${2:?} auth=${3:?}
namespace=${4:?} service_account=${5:?}

# One role per delivery. Keep those that you use.
vault write "$mount/roles/$key" key="$key" delivery=leased >/dev/null
vault write "$mount/roles/$key-shared" key="$key" delivery=shared >/dev/null
vault write "$mount/roles/$key-unleased" key="$key" delivery=unleased >/dev/null

policy() {
  vault policy write "$mount-$1" - <<END
path "$mount/creds/$1" { capabilities = ["read"] }
END
}

# login_role writes a role of the auth method: NAME, then its settings.
login_role() {
  name=$1 && shift
  vault write "auth/$auth/role/$name" audience=vault \
    bound_service_account_names="$service_account" \
    bound_service_account_namespaces="$namespace" "$@" >/dev/null
  echo "Service account $namespace/$service_account can log in with role $name at auth/$auth."
}

policy "$key"
policy "$key-shared"
policy "$key-unleased"

# Vault Secrets Operator renews its Vault token, which keeps the leases.
login_role "$key-vso" token_policies="$mount-$key,$mount-$key-shared" token_ttl=1h

# External Secrets Operator logs in for each refresh, so it uses batch tokens, which
# Vault does not store. It must not use the leased role: see eso.yaml.
login_role "$key-eso" token_policies="$mount-$key-shared,$mount-$key-unleased" token_ttl=5m token_type=batch
