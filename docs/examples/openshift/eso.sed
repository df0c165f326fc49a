# Changes ../kubernetes/eso.yaml for BC Gov's Vault. Its login has no audience.
s|server: .*|server: https://vault.developer.gov.bc.ca\
    namespace: platform-services|
s|mountPath: .*|mountPath: k8s-silver|
s|role: .*|role: abc123-nonprod|
/serviceAccountRef:/,$ s|name: myapi$|name: abc123-vault|
/audiences:/,/- vault/d
s|namespace: myapp|namespace: abc123-dev|
