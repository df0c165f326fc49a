// Command vault is HashiCorp Vault's own CLI, server and agent, built from
// its public Go module at the version that go.mod pins. scripts/vault.sh
// builds it where no recent vault is on the PATH.
package main

import (
	"os"

	"github.com/hashicorp/vault/command"
)

func main() {
	os.Exit(command.Run(os.Args[1:]))
}
