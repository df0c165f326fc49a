package backend

import (
	_ "embed" // for the table
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

// diagnosisText explains its own form.
//
//go:embed diagnosis.txt
var diagnosisText string

// diagnosis is what a failure most likely means and what to do about it.
type diagnosis struct {
	reason          tokenendpoint.Reason
	meaning, remedy string
}

// diagnoses returns the table, which docs/troubleshooting.md is generated from.
func diagnoses() []diagnosis {
	var rows []diagnosis
	for block := range strings.SplitSeq(strings.TrimSpace(diagnosisText), "\n\n") {
		lines := strings.Split(block, "\n")
		if strings.HasPrefix(block, "#") || len(lines) != 3 {
			continue
		}
		for reason := range strings.FieldsSeq(lines[0]) {
			rows = append(rows, diagnosis{tokenendpoint.Reason(reason), lines[1], lines[2]})
		}
	}
	return rows
}

// diagnose returns the diagnosis of a reason; the zero value if there is none.
func diagnose(reason tokenendpoint.Reason) diagnosis {
	for _, row := range diagnoses() {
		if row.reason == reason {
			return row
		}
	}
	return diagnosis{}
}

// advice returns a failure's meaning and remedy, with names filled in; empty if unknown.
func advice(failure *tokenendpoint.Error, mount string, key *keyring.Key, role string) string {
	found := diagnose(failure.Reason)
	return strings.NewReplacer(
		"{mount}", mount, "{key}", key.Name(), "{role}", role,
		"{register}", registrationStep(mount, key), "{clock}", describeClock(failure),
	).Replace(strings.TrimSpace(found.meaning + " " + found.remedy))
}

func describeClock(failure *tokenendpoint.Error) string {
	ahead, known := failure.ClockDifference()
	switch {
	case !known:
		return "the response has no Date header to compare with"
	case ahead.Abs() <= 2*time.Second:
		return "by its Date header the clocks agree to within 2s"
	}
	return "by its Date header " + clockOffset(ahead)
}
