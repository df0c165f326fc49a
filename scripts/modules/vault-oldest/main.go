// Command vault is the oldest HashiCorp Vault that README claims, built from
// its public Go module at the version that go.mod pins. scripts/vault.sh
// builds it for make compat.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() {
	os.Exit(command.Run(os.Args[1:]))
}
