// Package rotation tests that keys are rotated without a failed read, and that they survive a
// crash.
package rotation

import (
	"os"
	"testing"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
