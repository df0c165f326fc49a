# For install.sh use: to register versions of this plugin, and to mount and reload it. Whoever has
# it decides which binary of the plugin directory runs.

path "sys/plugins/catalog/vault-plugin-bcgov-jwt" {
  capabilities = ["update", "sudo"]
}

path "sys/plugins/reload/unknown/vault-plugin-bcgov-jwt" {
  capabilities = ["update", "sudo"]
}

# OpenBao's
path "sys/plugins/reload/backend" {
  capabilities = ["update", "sudo"]
}

path "sys/mounts" {
  capabilities = ["read"]
}

path "sys/mounts/bcgov-jwt" {
  capabilities = ["create", "read", "update"]
}

path "sys/mounts/bcgov-jwt/tune" {
  capabilities = ["read", "update"]
}

path "bcgov-jwt/info" {
  capabilities = ["read"]
}
