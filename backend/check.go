package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/exchange"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

// check tests each step of obtaining a token. Each adds a line; the first that fails is the last.
type check struct {
	*tokenRequest // its key is nil before checkKey
	lines         []string
}

type stepFailure struct {
	step, text, hint string
}

func (f *stepFailure) Error() string { return f.step + ": " + f.text }

func (c *check) line(step, outcome, text string) {
	line := fmt.Sprintf("%-12s %-6s %s", step, outcome, text)
	c.lines = append(c.lines, strings.TrimSpace(line))
}

func (c *check) passed(step, format string, args ...any) {
	c.line(step, "ok", fmt.Sprintf(format, args...))
}

// failedStep turns a provider's error, or one about the key, into a stepFailure. Other errors pass
// unchanged. The discovery document makes the advice on a rejection more precise, even if the key
// does not need it.
func (c *check) failedStep(ctx context.Context, step string, err error) error {
	failure, ok := errors.AsType[*tokenendpoint.Error](err)
	if !ok {
		return misconfigured("key", c.failed(err))
	}
	if failure.Reason.Kind() == tokenendpoint.KindRejected {
		c.checkIssuer(ctx)
	}
	situation := c.situation()
	situation.checking = true
	return &stepFailure{step: step, text: failure.Error(), hint: situation.advice(failure)}
}

// misconfigured turns a userError, which ends in the next step, into a stepFailure.
func misconfigured(step string, err error) error {
	if _, ok := errors.AsType[userError](err); !ok {
		return err
	}
	text, hint, _ := strings.Cut(err.Error(), "; ")
	return &stepFailure{step: step, text: text, hint: capitalized(hint)}
}

func (c *check) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		c.checkRole, c.checkKey, c.checkRegistration, c.checkConnection, c.checkDiscovery,
		c.checkToken,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	c.checkIssuer(ctx)
	c.checkRevocation()
	return nil
}

func (c *check) checkRole(context.Context) error {
	scopes := "no scopes"
	if len(c.role.Scopes) > 0 {
		scopes = "scopes " + strings.Join(c.role.Scopes, " ")
	}
	c.passed("role", "%q requests %s with key %q", c.name, scopes, c.role.Key)
	return nil
}

func (c *check) checkKey(ctx context.Context) error {
	key, err := c.keyOfRole(ctx, c.req, c.name, c.role)
	if err != nil {
		return misconfigured("key", err)
	}
	c.key = key
	if key.Settings().Disabled {
		return misconfigured("key", checkUsable(c.req.MountPoint, key))
	}
	active := key.Active(c.now())
	c.passed("key", "%q is %s, version %d is active, kid %s, algorithm %s",
		key.Name(), key.Type(), active.Number(), active.KeyID(), key.Settings().Algorithm)
	return nil
}

func (c *check) checkRegistration(context.Context) error {
	if !registered(c.key.Settings()) {
		return &stepFailure{
			step: "registration", text: unregistered(c.key),
			hint: registrationAdvice(c.req.MountPoint, c.key),
		}
	}
	if err := checkUsable(c.req.MountPoint, c.key); err != nil {
		return misconfigured("registration", err)
	}
	c.passed("registration", "client %q at %s", c.key.Settings().ClientID, c.key.Settings().Issuer)
	return nil
}

// firstURL returns the URL that is contacted first: token_endpoint, or the issuer for discovery.
func (c *check) firstURL() string {
	return cmp.Or(c.key.Settings().TokenEndpoint, c.key.Settings().Issuer)
}

func (c *check) checkConnection(ctx context.Context) error {
	connection, err := c.client.Connect(ctx, c.firstURL())
	failure, isFailure := errors.AsType[*tokenendpoint.Error](err)
	if isFailure && failure.Reason.Kind() == tokenendpoint.KindBlocked {
		return c.failedStep(ctx, "host", err)
	}
	endpoint, _ := url.Parse(c.firstURL()) // Connect has, too
	c.passed("host", "%s is allowed", endpoint.Host)
	if err != nil {
		return c.failedStep(ctx, "connect", err)
	}
	how := connection.Protocol
	if connection.TLSVersion != "" {
		how = connection.TLSVersion + ", " + how
	}
	if connection.Proxy != "" {
		how += ", through proxy " + connection.Proxy
	}
	c.passed("connect", "to %s (%s)", connection.Address, how)
	c.checkClock(connection)
	return nil
}

// clockTolerance is how early Keycloak accepts an assertion; one from the past has up to 60 s.
const clockTolerance = 15 * time.Second

// checkClock never fails: whether a difference matters, the provider decides at the token request.
func (c *check) checkClock(connection tokenendpoint.Connection) {
	ahead, known := connection.ClockDifference()
	ahead = ahead.Round(time.Second)
	switch {
	case !known:
		c.line("clock", "-", "the provider sends no Date header to compare with")
	case ahead.Abs() <= time.Second:
		c.passed("clock", "the clocks agree to within 1s")
	case ahead.Abs() <= clockTolerance:
		c.passed("clock", "%s", clockOffset(ahead))
	default:
		c.line("clock", "WARN", clockOffset(ahead)+"; synchronize it")
	}
}

func clockOffset(ahead time.Duration) string {
	side := " behind"
	if ahead < 0 {
		side = " ahead of"
	}
	return "this Vault node's clock is " + compact(ahead.Abs()) + side + " the provider's"
}

func (c *check) checkDiscovery(ctx context.Context) error {
	settings := c.key.Settings()
	if settings.TokenEndpoint != "" { // tokens do not need it: see checkIssuer
		return nil
	}
	metadata, err := c.client.Discover(ctx, settings.Issuer)
	if err != nil {
		return c.failedStep(ctx, "discovery", err)
	}
	c.passed("discovery", "the issuer matches, the token endpoint is %s", metadata.TokenEndpoint)
	return nil
}

// checkToken tries every live version, newest first, to show how far a rotation has come. A read of
// creds needs only one to be accepted.
func (c *check) checkToken(ctx context.Context) error {
	now := c.now()
	var accepted []*versionResult
	defer func() { c.revokeTokens(ctx, accepted) }()
	var rejected *versionResult // the active version
	for _, version := range c.key.Live(now) {
		r := &versionResult{version: version, state: c.key.State(version, now)}
		r.token, r.err = c.try(ctx, version)
		switch {
		case r.err == nil:
			accepted = append(accepted, r)
			c.passed(r.step(), "%s, and accepted by the provider%s", r.state, c.activation(r))
		case r.state != keyring.Active:
			c.line(r.step(), "-", r.rejection())
		case !exchange.KeyRejected(r.err):
			return c.failedStep(ctx, "token", r.err)
		default:
			rejected = r
		}
	}
	if len(accepted) == 0 {
		return c.failedStep(ctx, rejected.step(), rejected.err)
	}
	if rejected != nil {
		c.line(rejected.step(), "WARN", rejected.rejection()+c.cacheAdvice(rejected.version))
	}
	c.describeToken(accepted[0].token)
	return nil
}

// cacheAdvice tells how long the provider has not fetched the published key set for.
func (c *check) cacheAdvice(rejected *keyring.Version) string {
	settings := c.key.Settings()
	if settings.Registration != keyring.ByJWKS {
		return ""
	}
	age := c.now().Sub(rejected.CreationTime()).Truncate(time.Second)
	return fmt.Sprintf(". It is %s old, and reads continue with another version. If the provider "+
		"may cache the key set for that long, set prepublish_period (%s) to more than it does; "+
		"otherwise check that the provider can fetch the registered URL",
		compact(age), compact(settings.PrepublishPeriod))
}

// versionResult is the outcome of a token request with one version.
type versionResult struct {
	version *keyring.Version
	state   keyring.State
	token   *exchange.Token
	err     error
}

func (r *versionResult) step() string { return fmt.Sprintf("version %d", r.version.Number()) }

func (r *versionResult) rejection() string {
	return fmt.Sprintf("%s, and not accepted: %s", r.state, exchange.Description(r.err))
}

// activation tells when a staged version that the provider accepts becomes active.
func (c *check) activation(r *versionResult) string {
	switch {
	case r.state != keyring.Staged:
		return ""
	case c.key.Settings().Registration == keyring.ByJWKS:
		return "; it signs from " + timestamp(r.version.ActivationTime())
	default:
		return "; it becomes active once the active version is rejected"
	}
}

// checkIssuer reads the discovery document of a key with a token_endpoint, and only warns.
func (c *check) checkIssuer(ctx context.Context) {
	settings := c.key.Settings()
	if settings.TokenEndpoint == "" {
		return
	}
	metadata, err := c.client.Discover(ctx, settings.Issuer)
	switch {
	case err != nil:
		c.line("discovery", "WARN", "not needed (token_endpoint is set) but failed: "+err.Error())
	case metadata.TokenEndpoint != settings.TokenEndpoint:
		c.line("discovery", "WARN", "the issuer matches, but its token endpoint is different: "+
			metadata.TokenEndpoint)
	default:
		c.passed("discovery", "the issuer and the token endpoint match")
	}
}

// describeToken reports the token as its reader obtains it, and inconsistencies in it.
func (c *check) describeToken(token *exchange.Token) {
	form := "opaque"
	if token.IsJWT {
		form = "a JWT"
	}
	scope := "no scope"
	if token.Scope != "" {
		scope = "scope " + token.Scope
	}
	used := "leased for"
	if c.role.Delivery != leasedDelivery {
		used = string(c.role.Delivery) + ", used for"
	}
	life := token.Lifetime
	c.passed("token", "%s, valid for %s, %s %s (%s margin), %s", form, compact(life), used,
		compact(c.role.usableLifetime(life)), compact(c.role.margin(life)), scope)
	if !c.role.keepsMargin(life) {
		c.line("margin", "WARN", marginTooLong(c.req.MountPoint, c.name, c.role, token))
	}
	expiry := token.RequestedAt.Add(life)
	difference := expiry.Sub(token.Expiry).Round(time.Second)
	if !token.Expiry.IsZero() && difference.Abs() > clockTolerance {
		c.line("expiry", "WARN", fmt.Sprintf("the token's own exp is %s, but expires_in says %s: "+
			"the provider's clock differs, or expires_in is wrong",
			timestamp(token.Expiry), timestamp(expiry)))
	}
	if len(token.MissingScopes) > 0 {
		c.line("scope", "WARN", missingScopes(c.req.MountPoint, c.name, token))
	}
}

// checkRevocation shows the provider's revocation endpoint, which an operator has to write: a
// discovered one is never used.
func (c *check) checkRevocation() {
	settings := c.key.Settings()
	if !c.role.RevokeTokens || settings.RevocationEndpoint != "" {
		return
	}
	text := noRevocationEndpoint(c.req.MountPoint, c.key.Name())
	switch shown := c.client.Known(settings.Issuer); {
	case shown.RevocationEndpoint != "":
		text += " (discovery shows " + shown.RevocationEndpoint + ")"
	case shown.RevocationError != nil:
		text += " (the one that discovery shows " + shown.RevocationError.Error() + ")"
	}
	c.line("revocation", "WARN", text)
}

// revokeTokens revokes the test tokens, best effort: nobody holds them, and they expire anyway.
func (c *check) revokeTokens(ctx context.Context, accepted []*versionResult) {
	if len(accepted) == 0 || c.key.Settings().RevocationEndpoint == "" {
		return
	}
	for _, r := range accepted {
		if err := c.revoke(ctx, r.version, r.token.AccessToken); err != nil {
			c.line("revocation", "-", "test token not revoked; it expires on its own: "+err.Error())
			return
		}
	}
	c.passed("revocation", "test token revoked")
}
