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

// fieldText is a line of help/fields.txt.
type fieldText struct{ name, kind, text string }

// fieldTexts returns the lines of a section of help/fields.txt.
func fieldTexts(section string) []fieldText {
	_, rest, _ := strings.Cut(help("fields"), "\n["+section+"]\n")
	block, _, _ := strings.Cut(rest, "\n\n")
	var fields []fieldText
	for line := range strings.SplitSeq(block, "\n") {
		declared, text, _ := strings.Cut(line, ": ")
		name, kind, _ := strings.Cut(declared, " ")
		fields = append(fields, fieldText{name, kind, text})
	}
	return fields
}
