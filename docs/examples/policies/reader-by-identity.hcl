# A reader of the role that has the name of its identity: one policy for all teams, and
# one role for each entity. Vault fills in the name of the entity that the token belongs
# to; a token without one is denied.
#
# A role per group: "{{identity.groups.names.myapi-team.metadata.role}}", where the
# group's metadata names the role.
#
# Whoever may rename entities decides who reads which role: give nobody else
# identity/entity.

path "bcgov-jwt/creds/{{identity.entity.name}}" {
  capabilities = ["read"]
}
