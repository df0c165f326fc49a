# A reader gets access tokens of one role: an application, a CI job, a person.
# Give each role a policy of its own; it has one rule, and no "*".
#
# Not here, on purpose:
#   creds/*          would give the tokens of every role that anyone adds later.
#   assertion/myapi  is as good as a token. Only for who must reach the provider
#                    when Vault cannot.
#   check/myapi      tells the client, the hosts and the state of the key.

# The token. That is all a reader needs: the answer says when to read again.
path "bcgov-jwt/creds/myapi" {
  capabilities = ["read"]
}
