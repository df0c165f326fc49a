#!/bin/sh
# Lets the GitHub Actions jobs of one repository and branch read one role's tokens.
# GitHub stores no secret: a job logs in to Vault with an ID token.
#
# Usage: github-setup.sh MOUNT ROLE REPOSITORY_ID BRANCH
#   for example: github-setup.sh bcgov-jwt myapi 123456789 main
#
# For REPOSITORY_ID, run: gh api repos/my-org/my-repo --jq .id
#
# It enables the auth method (once), and writes the policy AUTH_PATH-ROLE and the
# auth method's role ROLE. Run it again to change the role, or for another one.
#
# Set VAULT_ADDR to the Vault server's address and VAULT_TOKEN to an administrator's
# token.
# AUTH_PATH (github) is the auth method's path.
# AUDIENCE (VAULT_ADDR) is the audience of the job's ID token.
# ISSUER (https://token.actions.githubusercontent.com) issues the ID tokens; on
# GitHub Enterprise Server it is https://HOSTNAME/_services/token.
# ISSUER_CA is a PEM file with the issuer's certificate authority, unless Vault's
# machine trusts it.
set -eu

mount=${1:?usage: github-setup.sh MOUNT ROLE REPOSITORY_ID BRANCH} role=${2:?} repository_id=${3:?} branch=${4:?}
auth=${AUTH_PATH:-github}
issuer=${ISSUER:-https://token.actions.githubusercontent.com}

vault auth list | grep -q "^$auth/ " || vault auth enable -path="$auth" jwt

# Vault fetches the issuer's public keys from its OpenID discovery document.
vault write "auth/$auth/config" oidc_discovery_url="$issuer" bound_issuer="$issuer" \
  jwt_supported_algs=RS256 oidc_discovery_ca_pem="${ISSUER_CA:+@$ISSUER_CA}"

# All that a job may do: read this role's tokens, and revoke its own Vault token.
vault policy write "$auth-$role" - <<END_OF_POLICY
path "$mount/creds/$role" {
  capabilities = ["read"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
END_OF_POLICY

# bound_audiences: rejects ID tokens for other services. GitHub's default audience
#   is the repository's owner, so any service that receives such a token could use
#   it here.
# bound_claims: all must match.
#   repository_id: a name can be reused by another repository, an id cannot.
#   ref: refs/heads/..., as a tag may have a branch's name.
#   event_name: pull_request_target and others have the base branch as their ref,
#     but may run a stranger's code.
# bound_claims_type: with "glob", a "*" in a value would match anything.
# claim_mappings: copied to the audit log of each read.
# user_claim: one Vault entity per repository.
# token_ttl: a job reads immediately. A long job logs in again.
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
