# Optional: registers a version of the plugin, and has the mount run it. The binary must be in the
# plugin directory of every node, named vault-plugin-bcgov-jwt-VERSION.

locals {
  # A changed value makes new resources, so that the next apply repeats a write that failed.
  plugin = { for plugin in var.plugin[*] : "${plugin.version} ${plugin.sha256}" => plugin }
}

# Without a type in the path, Vault runs the plugin to find it, so that a wrong sha256 fails here:
# after a failed reload, OpenBao would not serve the mount.
resource "vault_generic_endpoint" "registration" {
  for_each = local.plugin

  path = "sys/plugins/catalog/vault-plugin-bcgov-jwt"
  data_json = jsonencode({
    version = each.value.version
    sha256  = each.value.sha256
    command = "vault-plugin-bcgov-jwt-${each.value.version}"
  })
  disable_read   = true # without a version, a read finds none
  disable_delete = true # for a rollback
}

resource "vault_generic_endpoint" "tune" {
  for_each   = local.plugin
  depends_on = [vault_generic_endpoint.registration]

  path                 = "sys/mounts/${vault_mount.engine.path}/tune"
  data_json            = jsonencode({ plugin_version = each.value.version })
  ignore_absent_fields = true
  disable_delete       = true
}

# Reloads all mounts of the plugin.
resource "vault_generic_endpoint" "reload" {
  for_each = local.plugin

  path           = "sys/plugins/reload/backend"
  data_json      = jsonencode({ plugin = vault_mount.engine.type, scope = "global" })
  disable_read   = true
  disable_delete = true

  lifecycle {
    replace_triggered_by = [vault_generic_endpoint.tune[each.key]]
  }
}
