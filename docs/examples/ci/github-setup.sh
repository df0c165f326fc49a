#!/bin/sh
# Lets the GitHub Actions jobs of one repository and branch read one role's
# creds. Nothing secret is stored in GitHub: a job shows Vault an ID token.
#
# Usage: github-setup.sh MOUNT ROLE REPOSITORY_ID BRANCH
#   such as: github-setup.sh bcgov-jwt myapi 123456789 main
#
# REPOSITORY_ID is what this prints: gh api repos/my-org/my-repo --jq .id
#
# It makes the auth method (once), a policy called AUTH_PATH-ROLE, and a role
# called ROLE in the auth method. It can be run again, to change the role or
# for another one.
#
# VAULT_ADDR and VAULT_TOKEN say which Vault and who you are: an administrator.
# AUTH_PATH (github) is where the auth method is.
# AUDIENCE (VAULT_ADDR) is whom a job has to ask for an ID token for.
# ISSUER (https://token.actions.githubusercontent.com) is who makes the ID
# tokens; on GitHub Enterprise Server https://HOSTNAME/_services/token.
# ISSUER_CA is a PEM file with the issuer's certificate authority, if Vault's
# machine does not know it.
set -eu

mount=${1:?usage: github-setup.sh MOUNT ROLE REPOSITORY_ID BRANCH} role=${2:?} repository_id=${3:?} branch=${4:?}
auth=${AUTH_PATH:-github}
issuer=${ISSUER:-https://token.actions.githubusercontent.com}

vault auth list | grep -q "^$auth/ " || vault auth enable -path="$auth" jwt

# Vault fetches the issuer's public keys from its OpenID discovery document.
vault write "auth/$auth/config" oidc_discovery_url="$issuer" bound_issuer="$issuer" \
  jwt_supported_algs=RS256 oidc_discovery_ca_pem="${ISSUER_CA:+@$ISSUER_CA}"

# All that a job may do: get a token of this role, and end its Vault token.
vault policy write "$auth-$role" - <<END_OF_POLICY
path "$mount/creds/$role" {
  capabilities = ["read"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
END_OF_POLICY

# bound_audiences: an ID token that was made for another service is not taken.
#   By default GitHub makes them all for the repository's owner, so whoever is
#   shown one could use it here.
# bound_claims: all of them must hold.
#   repository_id: a name can be given to another repository later, an id not.
#   ref: refs/heads/..., as a tag may be called like a branch.
#   event_name: pull_request_target and others have the base branch as their
#     ref, and may run what a stranger wrote.
# bound_claims_type: with "glob" a "*" in a value would match anything.
# claim_mappings: what the audit log tells of each read, besides.
# user_claim: one entity in Vault for each repository.
# token_ttl: a job reads at once. A long job signs in again.
vault write "auth/$auth/role/$role" - <<END_OF_ROLE
{
  "role_type": "jwt",
  "bound_audiences": ["${AUDIENCE:-$VAULT_ADDR}"],
  "bound_claims_type": "string",
  "bound_claims": {
    "repository_id": "$repository_id",
    "ref": "refs/heads/$branch",
    "event_name": ["push", "schedule", "workflow_dispatch"]
  },
  "user_claim": "repository_id",
  "claim_mappings": {
    "repository": "repository",
    "run_id": "run_id",
    "actor": "actor"
  },
  "token_policies": ["$auth-$role"],
  "token_no_default_policy": true,
  "token_ttl": "5m",
  "token_max_ttl": "5m"
}
END_OF_ROLE
