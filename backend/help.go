package backend

import (
	"embed"
	"strings"
)

// helpTexts are what `vault path-help` prints below a path's synopsis, one file per path.
//
//go:embed help
var helpTexts embed.FS

// help returns the help text of this name. It panics for an unknown one, when the mount is made.
func help(name string) string {
	text, err := helpTexts.ReadFile("help/" + name + ".txt")
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(text))
}
