// Package examples runs the examples of docs/examples as they stand.
package examples

import (
	"os"
	"testing"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }
