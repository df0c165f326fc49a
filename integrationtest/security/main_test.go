// Package security tests that no secret is revealed, that reads can be audited, and the example
// policies.
package security

import (
	"os"
	"testing"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
