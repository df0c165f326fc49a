output "public_keys" {
  description = "Public key to paste into the access request, by environment."
  value       = { for name, key in vault_generic_endpoint.key : name => key.write_data["public_key"] }
}
