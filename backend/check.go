package backend

import (
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

// check tests each step of obtaining a token. Each adds a line, and the first that fails ends it.
type check struct {
	*tokenRequest        // its key is nil before checkKey
	endpoint      string // the token endpoint, once known

	lines []string
}

// stepFailure ends a check.
type stepFailure struct {
	step, text, hint string
}

func (f *stepFailure) Error() string { return f.step + ": " + f.text }

func (c *check) line(step, outcome, text string) {
	c.lines = append(c.lines, fmt.Sprintf("%-12s %-6s %s", step, outcome, text))
}

func (c *check) passed(step, format string, args ...any) {
	c.line(step, "ok", fmt.Sprintf(format, args...))
}

// failed turns a provider's error into the end of the check; any other error stays what it is.
func (c *check) failedStep(step string, err error) error {
	failure, ok := errors.AsType[*tokenendpoint.Error](err)
	if !ok {
		return err
	}
	return &stepFailure{
		step: step, text: failure.Error(),
		hint: advice(failure, c.req.MountPoint, c.key, c.name),
	}
}

func (c *check) walk(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		c.checkRole, c.checkKey, c.checkRegistration, c.checkConnection, c.checkDiscovery, c.checkToken, c.checkIssuer,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (c *check) checkRole(context.Context) error {
	scopes := "no scopes"
	if len(c.role.Scopes) > 0 {
		scopes = "the scopes " + strings.Join(c.role.Scopes, " ")
	}
	c.passed("role", "%q asks for %s with the key %q", c.name, scopes, c.role.Key)
	return nil
}

func (c *check) checkKey(ctx context.Context) error {
	key, err := c.keyOfRole(ctx, c.req, c.name, c.role)
	if _, ok := errors.AsType[userError](err); ok {
		return &stepFailure{
			step: "key", text: err.Error(),
			hint: fmt.Sprintf("Give the role a key: vault write %sroles/%s key=…", c.req.MountPoint, c.name),
		}
	}
	if err != nil {
		return err
	}
	c.key = key
	active := key.Active(c.now())
	if key.Settings().Disabled {
		return &stepFailure{
			step: "key", text: fmt.Sprintf("key %q is disabled", key.Name()),
			hint: fmt.Sprintf("Enable it: vault write %skeys/%s disabled=false", c.req.MountPoint, key.Name()),
		}
	}
	c.passed("key", "%q is %s, version %d is active, kid %s, signs %s", key.Name(), key.Type(), active.Number(), active.KeyID(), key.Settings().Algorithm)
	return nil
}

func (c *check) checkRegistration(context.Context) error {
	if !registered(c.key) {
		return &stepFailure{
			step: "registration", text: unregistered(c.key),
			hint: registrationAdvice(c.req.MountPoint, c.key),
		}
	}
	c.passed("registration", "client %q at %s", c.key.Settings().ClientID, c.key.Settings().Issuer)
	return nil
}

// firstURL is where the way leads first: the token endpoint where the key has one, otherwise the issuer, for discovery.
func (c *check) firstURL() string {
	if endpoint := c.key.Settings().TokenEndpoint; endpoint != "" {
		return endpoint
	}
	return c.key.Settings().Issuer
}

func hostOf(endpoint string) string {
	parsed, err := url.Parse(endpoint)
	if err != nil {
		return endpoint
	}
	return parsed.Host
}

func (c *check) checkConnection(ctx context.Context) error {
	host := hostOf(c.firstURL())
	connection, err := c.config.client.Connect(ctx, c.firstURL())
	failure, isFailure := errors.AsType[*tokenendpoint.Error](err)
	if isFailure && failure.Reason.Kind() == tokenendpoint.KindBlocked {
		return c.failedStep("host", err)
	}
	c.passed("host", "%s is allowed", host)
	if err != nil {
		return c.failedStep("connect", err)
	}
	how := connection.Protocol
	if connection.TLSVersion != "" {
		how = connection.TLSVersion + ", " + how
	}
	if connection.Proxy != "" {
		how += ", through the proxy " + connection.Proxy
	}
	c.passed("connect", "to %s (%s)", connection.Address, how)
	c.checkClock(connection)
	return nil
}

// clockTolerance is what Keycloak forgives an assertion from the future; one from the past has up to 60 s.
const clockTolerance = 15 * time.Second

// checkClock only tells: whether a difference matters is the provider's to say, at the token request.
func (c *check) checkClock(connection tokenendpoint.Connection) {
	ahead, known := connection.ClockDifference()
	ahead = ahead.Round(time.Second)
	switch {
	case !known:
		c.line("clock", "-", "the provider sends no Date header to compare with")
	case ahead.Abs() <= time.Second:
		c.passed("clock", "the provider's is the same, to a second")
	case ahead.Abs() <= clockTolerance:
		c.passed("clock", "the provider's is %s", direction(ahead))
	default:
		c.line("clock", "WARN", fmt.Sprintf("the provider's is %s: synchronise this server's clock", direction(ahead)))
	}
}

func direction(ahead time.Duration) string {
	if ahead < 0 {
		return compact(-ahead) + " behind"
	}
	return compact(ahead) + " ahead"
}

func (c *check) checkDiscovery(ctx context.Context) error {
	endpoint, err := exchange.TokenEndpoint(ctx, c.config.client, c.key)
	if err != nil {
		return c.failedStep("discovery", err)
	}
	c.endpoint = endpoint
	if c.key.Settings().TokenEndpoint != "" {
		return nil // checkIssuer looks at the document once the token is there, as tokens do not need it
	}
	c.passed("discovery", "the issuer is right, the token endpoint is %s", endpoint)
	return nil
}

// checkToken tries every live version, newest first, so that a person sees what a rotation has come to. A read of creds
// needs one of them.
func (c *check) checkToken(ctx context.Context) error {
	now := c.now()
	var accepted []*attempt
	defer func() { c.discardTokens(ctx, accepted) }()
	var refusal *attempt // of the version that is to sign
	for _, version := range c.key.Live(now) {
		tried := &attempt{version: version, state: c.key.State(version, now)}
		tried.token, tried.err = c.try(ctx, version)
		switch {
		case tried.err == nil:
			accepted = append(accepted, tried)
			c.passed(tried.step(), "%s, and accepted by the provider%s", tried.state, c.consequence(tried))
		case tried.state != keyring.Active:
			c.line(tried.step(), "-", tried.refusal())
		case !exchange.KeyRefused(tried.err):
			return c.failedStep("token", tried.err)
		default:
			refusal = tried
		}
	}
	if len(accepted) == 0 {
		return c.failedStep(refusal.step(), refusal.err)
	}
	if refusal != nil {
		c.line(refusal.step(), "WARN", refusal.refusal())
	}
	c.describeToken(accepted[0].token)
	return nil
}

// attempt is what came of a token request with one version.
type attempt struct {
	version *keyring.Version
	state   keyring.State
	token   *exchange.Token
	err     error
}

func (a *attempt) step() string { return fmt.Sprintf("version %d", a.version.Number()) }

func (a *attempt) refusal() string {
	return fmt.Sprintf("%s, and not accepted: %s", a.state, exchange.Description(a.err))
}

// consequence is what becomes of a staged version that the provider accepts.
func (c *check) consequence(a *attempt) string {
	switch {
	case a.state != keyring.Staged:
		return ""
	case c.key.Settings().Registration == keyring.ByJWKS:
		return "; it signs from " + timestamp(a.version.ActivationTime()) + " on"
	default:
		return "; it becomes the active one when the active one is refused"
	}
}

// checkIssuer looks at the discovery document of a key that names its token endpoint, and only warns.
func (c *check) checkIssuer(ctx context.Context) error {
	settings := c.key.Settings()
	if settings.TokenEndpoint == "" {
		return nil
	}
	metadata, err := c.config.client.Discover(ctx, settings.Issuer)
	switch {
	case err != nil:
		c.line("discovery", "WARN", "tokens do not need it, as the key names its token_endpoint; but: "+err.Error())
	case metadata.TokenEndpoint != settings.TokenEndpoint:
		c.line("discovery", "WARN", "the issuer is right, but its document names another token endpoint: "+metadata.TokenEndpoint)
	default:
		c.passed("discovery", "the issuer is right, and its document names the same token endpoint")
	}
	return nil
}

// describeToken reports the token as its reader will have it, and what does not fit together in it.
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
		used = string(c.role.Delivery) + ", to be replaced after"
	}
	c.passed("token", "%s, good for %s, %s %s (%s before its end), %s", form, compact(token.Lifetime), used, compact(c.role.usableLifetime(token.Lifetime)),
		compact(c.role.margin(token.Lifetime)), scope)
	if !c.role.keepsMargin(token.Lifetime) {
		c.line("margin", "WARN", marginTooLong(c.req.MountPoint, c.name, c.role, token))
	}
	ends := token.RequestedAt.Add(token.Lifetime)
	if apart := ends.Sub(token.Expiry).Round(time.Second); !token.Expiry.IsZero() && apart.Abs() > clockTolerance {
		c.line("expiry", "WARN", fmt.Sprintf("the token's own exp is %s, but by expires_in it ends at %s: the provider's clock differs, or expires_in is wrong",
			timestamp(token.Expiry), timestamp(ends)))
	}
	if len(token.MissingScopes) > 0 {
		c.line("scope", "WARN", missingScopes(c.req.MountPoint, c.name, token))
	}
}

// discardTokens revokes the check's tokens where that can be done. Nobody has them, and they end by themselves.
func (c *check) discardTokens(ctx context.Context, accepted []*attempt) {
	if len(accepted) == 0 {
		return
	}
	for _, tried := range accepted {
		revoked, err := c.revoke(ctx, tried.version, tried.token.AccessToken)
		switch {
		case err != nil:
			c.line("revocation", "-", "what the check got was not revoked and ends by itself: "+err.Error())
			return
		case !revoked:
			c.line("revocation", "-", "the provider names no revocation endpoint; what the check got ends by itself")
			return
		}
	}
	c.passed("revocation", "what the check got was revoked")
}
