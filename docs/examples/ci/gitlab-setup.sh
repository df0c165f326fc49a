#!/bin/sh
# Lets the GitLab CI jobs of one project and branch read one role's creds.
# Nothing secret is stored in GitLab: a job shows Vault an ID token.
#
# Usage: gitlab-setup.sh MOUNT ROLE PROJECT_ID BRANCH
#   such as: gitlab-setup.sh bcgov-jwt myapi 12345678 main
#
# PROJECT_ID is on the project's page, behind the three dots at its name. The
# branch must be a protected one.
#
# It makes the auth method (once), a policy called AUTH_PATH-ROLE, and a role
# called ROLE in the auth method. It can be run again, to change the role or
# for another one.
#
# VAULT_ADDR and VAULT_TOKEN say which Vault and who you are: an administrator.
# AUTH_PATH (gitlab) is where the auth method is.
# AUDIENCE (VAULT_ADDR) is whom a job has to ask for an ID token for.
# ISSUER (https://gitlab.com) is who makes the ID tokens: your GitLab's URL.
# ISSUER_CA is a PEM file with the issuer's certificate authority, if Vault's
# machine does not know it.
set -eu

mount=${1:?usage: gitlab-setup.sh MOUNT ROLE PROJECT_ID BRANCH} role=${2:?} project_id=${3:?} branch=${4:?}
auth=${AUTH_PATH:-gitlab}
issuer=${ISSUER:-https://gitlab.com}

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
# bound_claims: all of them must hold.
#   project_id: a path can be given to another project later, an id not.
#   ref, ref_type: a tag may be called like a branch.
#   ref_protected: not everyone may push there.
#   pipeline_source: the pipeline of a merge request may run what a stranger
#     wrote.
# bound_claims_type: with "glob" a "*" in a value would match anything.
# claim_mappings: what the audit log tells of each read, besides.
# user_claim: one entity in Vault for each project.
# token_ttl: a job reads at once. A long job signs in again, while its ID token
#   lives.
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
