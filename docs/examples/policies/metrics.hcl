# Prometheus reads the metrics of one mount, and nothing else: create its token with
# -no-default-policy.

# Counters and the state of the keys. No secret is among them.
path "bcgov-jwt/metrics" {
  capabilities = ["read"]
}
