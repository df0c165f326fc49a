output "public_keys" {
  description = "What to paste into the access request, by environment."
  value       = { for name, key in vault_generic_endpoint.key : name => key.write_data["public_key"] }
}
