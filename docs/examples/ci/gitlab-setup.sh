#!/bin/sh
# Lets the GitLab CI jobs of one project and branch read one role's tokens. GitLab
# stores no secret: a job logs in to Vault with an ID token.
#
# Usage: gitlab-setup.sh MOUNT ROLE PROJECT_ID BRANCH
#   for example: gitlab-setup.sh bcgov-jwt myapi 12345678 main
#
# PROJECT_ID is on the project's page, in the menu beside its name. The branch must
# be protected.
#
# It enables the auth method (once), and writes the policy AUTH_PATH-ROLE and the
# auth method's role ROLE. Run it again to change the role, or for another one.
#
# Set VAULT_ADDR to the Vault server's address and VAULT_TOKEN to an administrator's
# token.
# AUTH_PATH (gitlab) is the auth method's path.
# AUDIENCE (VAULT_ADDR) is the audience of the job's ID token.
# ISSUER (https://gitlab.com) issues the ID tokens: your GitLab's URL.
# ISSUER_CA is a PEM file with the issuer's certificate authority, unless Vault's
# machine trusts it.
set -eu

mount=${1:?usage: gitlab-setup.sh MOUNT ROLE PROJECT_ID BRANCH} role=${2:?} project_id=${3:?} branch=${4:?}
auth=${AUTH_PATH:-gitlab}
issuer=${ISSUER:-https://gitlab.com}

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

# bound_audiences: rejects ID tokens for other services.
# bound_claims: all must match.
#   project_id: a path can be reused by another project, an id cannot.
#   ref, ref_type: a tag may have a branch's name.
#   ref_protected: not everyone may push there.
#   pipeline_source: a merge request's pipeline may run a stranger's code.
# bound_claims_type: with "glob", a "*" in a value would match anything.
# claim_mappings: copied to the audit log of each read.
# user_claim: one Vault entity per project.
# token_ttl: a job reads immediately. A long job logs in again, while its ID token
#   is valid.
vault write "auth/$auth/role/$role" - <<END_OF_ROLE
{
  "role_type": "jwt",
  "bound_audiences": ["${AUDIENCE:-$VAULT_ADDR}"],
  "bound_claims_type": "string",
  "bound_claims": {
    "project_id": "$project_id",
    "ref": "$branch",
    "ref_type": "branch",
    "ref_protected": "true",
    "pipeline_source": ["push", "schedule", "web"]
  },
  "user_claim": "project_id",
  "claim_mappings": {
    "project_path": "project_path",
    "job_id": "job_id",
    "user_login": "user_login"
  },
  "token_policies": ["$auth-$role"],
  "token_no_default_policy": true,
  "token_ttl": "5m",
  "token_max_ttl": "5m"
}
END_OF_ROLE
