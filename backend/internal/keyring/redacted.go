package keyring

import (
	"fmt"
	"io"
)

// redacted is embedded in what holds a private key, which then prints and marshals as [private]:
// fmt would otherwise reach the key through unexported fields.
type redacted struct{}

// Format prints [private], whatever the verb.
func (redacted) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "[private]") // a fmt.State keeps its own errors
}

// MarshalJSON returns "[private]".
func (redacted) MarshalJSON() ([]byte, error) { return []byte(`"[private]"`), nil }
