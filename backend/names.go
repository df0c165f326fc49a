package backend

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
)

// validName matches names of keys and roles. Path patterns accept more, for a clear error.
var validName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)

// nameIn returns the name in a request's path.
func nameIn(data *framework.FieldData, field string) (string, error) {
	name, _ := data.Raw[field].(string)
	if err := checkName(name); err != nil {
		return "", userErrorf("%s: %w", field, err)
	}
	return name, nil
}

func checkName(name string) error {
	if !validName.MatchString(name) || strings.Contains(name, "..") {
		return fmt.Errorf("%q must be 1 to 128 letters, digits, '_', '-' or '.', start with a "+
			"letter, digit or '_', and not contain '..'", shorten(name))
	}
	return nil
}
