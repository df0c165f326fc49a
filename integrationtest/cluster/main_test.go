// Package cluster tests the engine on three nodes that share their storage by raft.
package cluster

import (
	"os"
	"testing"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
