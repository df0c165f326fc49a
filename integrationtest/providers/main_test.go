// Package providers tests the engine at real identity providers of other makers, and at other
// versions of Keycloak than the one of the other packages.
package providers

import (
	"os"
	"testing"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
