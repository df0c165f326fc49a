// Package engine tests what a user of the engine does and sees: keys, roles, imports, errors and
// upgrades.
package engine

import (
	"os"
	"testing"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
