# With policy.hcl, the policy for an apply that sets plugin. Whoever has it decides which binary of
# the plugin directory runs.

path "sys/plugins/catalog/vault-plugin-bcgov-jwt" {
  capabilities = ["update", "sudo"]
}

path "sys/plugins/reload/backend" {
  capabilities = ["update"]
}
