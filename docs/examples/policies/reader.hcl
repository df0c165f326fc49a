# A reader obtains access tokens of one role: an application, a CI job, a person.
# Write a policy per role, with one rule and no "*".
#
# Deliberately omitted:
#   creds/*          would include every role that anyone adds later.
#   assertion/myapi  amounts to a token. Only for callers that reach the provider
#                    where Vault does not.
#   check/myapi      reveals the client, the hosts and the state of the key.

# The token. A reader needs nothing else: the response shows when to read again.
path "bcgov-jwt/creds/myapi" {
  capabilities = ["read"]
}
