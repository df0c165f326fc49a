// Command hydra is Ory Hydra's own CLI and server, built from its public Go
// module at the version that go.mod pins. scripts/hydra.sh builds it.
package main

import "github.com/ory/hydra/v2/cmd"

func main() { cmd.Execute() }
