# OpenBao fetches the plugin from its image, and registers it. Add this to the configuration of each
# node; the release notes state the SHA-256 of the binary for the nodes' platform.

plugin_directory         = "/var/lib/openbao/plugins"
plugin_auto_download     = true
plugin_auto_register     = true
plugin_download_behavior = "fail"

plugin "secret" "vault-plugin-bcgov-jwt" {
  image       = "ghcr.io/bcgov/vault-plugin-bcgov-jwt"
  version     = "v0.1.0" # the image's tag
  binary_name = "vault-plugin-bcgov-jwt"
  sha256sum   = "0000000000000000000000000000000000000000000000000000000000000000"
}
