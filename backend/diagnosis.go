package backend

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

// diagnosis is what a failure most likely means and what to do about it.
type diagnosis struct {
	name            string // a tokenendpoint.Reason, for the portal's issuers after "portal:"
	meaning, remedy string
}

// diagnoses returns the table, which docs/troubleshooting.md is generated from.
func diagnoses() []diagnosis {
	var rows []diagnosis
	for block := range strings.SplitSeq(textOf("diagnosis"), "\n\n") {
		lines := strings.Split(block, "\n")
		if strings.HasPrefix(block, "#") || len(lines) != 3 {
			continue
		}
		for name := range strings.FieldsSeq(lines[0]) {
			rows = append(rows, diagnosis{name, lines[1], lines[2]})
		}
	}
	return rows
}

// diagnose returns the diagnosis of a reason, at an issuer of the portal its own if there is one.
func diagnose(reason tokenendpoint.Reason, portal bool) (found diagnosis) {
	for _, row := range diagnoses() {
		switch row.name {
		case string(reason):
			found = row
		case "portal:" + string(reason): // follows the other one
			if portal {
				return row
			}
		}
	}
	return found
}

// situation is what advice on a failure depends on.
type situation struct {
	mount, role string
	key         *keyring.Key
	metadata    tokenendpoint.Metadata // the issuer's, zero if not known
	checking    bool                   // whether `check` gives the advice
}

// advice returns a failure's meaning and remedy, with names filled in; empty if unknown.
func (s *situation) advice(failure *tokenendpoint.Error) string {
	reason := s.metadata.Refine(failure.Reason, string(s.key.Settings().Algorithm))
	found := diagnose(reason, ofPortal(s.key))
	provider, owner := registrar(s.key)
	check := ""
	if !s.checking {
		check = fmt.Sprintf(", then run `vault read %scheck/%s`", s.mount, s.role)
	}
	return strings.NewReplacer(
		"{mount}", s.mount, "{key}", s.key.Name(), "{role}", s.role, // names
		"{provider}", provider, "{owner}", owner,
		"{register}", registrationStep(s.mount, s.key), // how the provider gets the key
		"{clock}", describeClock(failure), // the measured difference between the clocks
		"{audience}", s.audienceRemedy(),
		"{algorithm}", s.registeredAlgorithm(), "{algorithms}", s.algorithmRemedy(),
		"{candidates}", s.candidates(failure), // causes, the likeliest first
		"{check}", check, // the next command, unless that is the one just run
	).Replace(strings.TrimSpace(found.meaning + " " + found.remedy))
}

// candidates lists what a provider that names no cause may have rejected, the likeliest first: the
// clocks, if they differ.
func (s *situation) candidates(failure *tokenendpoint.Error) string {
	ahead, measured := failure.ClockDifference()
	clock := "the clocks: " + describeClock(failure)
	var likely []string
	if ahead.Abs() > clockTolerance {
		likely = append(likely, clock)
	}
	likely = append(likely,
		"the public key. "+registrationStep(s.mount, s.key),
		fmt.Sprintf("client_id in `vault read %skeys/%s`, and whether that client is enabled and "+
			"uses private_key_jwt", s.mount, s.key.Name()),
		"the audience. "+s.audienceRemedy(),
		"the algorithm. "+s.registeredAlgorithm())
	if !measured || ahead.Abs() > 2*time.Second && ahead.Abs() <= clockTolerance {
		likely = append(likely, clock)
	}
	for i, cause := range likely {
		likely[i] = fmt.Sprintf("(%d) %s", i+1, cause)
	}
	return strings.Join(likely, "; ")
}

func (s *situation) write(settings string) string {
	return fmt.Sprintf("`vault write %skeys/%s %s`", s.mount, s.key.Name(), settings)
}

// audienceRemedy depends on what the key sends. Providers expect their issuer, as rfc7523bis
// requires, or their token endpoint, as older ones do.
func (s *situation) audienceRemedy() string {
	settings, audience := s.key.Settings(), s.key.Audience()
	endpoint := cmp.Or(s.metadata.TokenEndpoint, settings.TokenEndpoint)
	if endpoint == "" || strings.ContainsAny(endpoint, "$`;&|<>()'\"\\*?!{}") { // for a shell
		endpoint = "<token endpoint>"
	}
	fields := "audience=" + endpoint
	if settings.TokenEndpoint == "" {
		fields += " token_endpoint=" + endpoint
	}
	provider, _ := registrar(s.key)
	switch audience {
	case settings.Issuer:
		return fmt.Sprintf("It is the issuer, which must be exactly as %s shows it, trailing "+
			"slash included: %s. If the provider expects its token endpoint instead: %s",
			provider, s.write("issuer=<issuer>"), s.write(fields))
	case endpoint:
		return "Most providers expect their issuer, the default: " + s.write(`audience=""`)
	}
	return fmt.Sprintf("Most providers expect their issuer, the default: %s. Some expect their "+
		"token endpoint: %s", s.write(`audience=""`), s.write(fields))
}

// registeredAlgorithm is for a client that may be registered for another algorithm than the key's.
func (s *situation) registeredAlgorithm() string {
	if algorithms := s.key.Type().Algorithms(); len(algorithms) == 1 {
		return fmt.Sprintf("Register the client for %s, or create a key of a different type",
			algorithms[0])
	}
	return "Set the one that the client is registered for: " + s.write("algorithm=<algorithm>")
}

// algorithmRemedy names the algorithms that both the provider and the key's type have.
func (s *situation) algorithmRemedy() string {
	var usable []string
	for _, algorithm := range s.key.Type().Algorithms() {
		if slices.Contains(s.metadata.Algorithms, string(algorithm)) {
			usable = append(usable, string(algorithm))
		}
	}
	if len(usable) == 0 {
		return fmt.Sprintf("It lists none for a key of type %s: create a key of a different type",
			s.key.Type())
	}
	return "Set one of " + strings.Join(usable, ", ") + ": " + s.write("algorithm="+usable[0])
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
