package backend

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/useragent"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

const (
	configStoragePath = "config"
	configFormat      = 1
)

// configuration is the mount's configuration and the HTTP client that follows it.
type configuration struct {
	client *tokenendpoint.Client
}

func (c *configuration) close() { c.client.Close() }

// configEntry is the stored form. Its format is raised when older code would misread it.
type configEntry struct {
	Format   int            `json:"format"`
	Settings configSettings `json:"settings"`
}

type configSettings struct {
	AllowedHosts   []string      `json:"allowed_hosts"`
	CACert         string        `json:"ca_cert"`
	RequestTimeout time.Duration `json:"request_timeout"`
	MaxRetries     int           `json:"max_retries"`
	AllowInsecure  bool          `json:"allow_insecure_endpoints"`
	ProxyURL       string        `json:"proxy_url"`
}

func defaultConfig() tokenendpoint.Config {
	return tokenendpoint.Config{RequestTimeout: 10 * time.Second, MaxRetries: 2}
}

func configFields() []setting[tokenendpoint.Config] {
	type config = tokenendpoint.Config
	return []setting[config]{
		newSetting("allowed_hosts", framework.TypeCommaStringSlice,
			"Hosts that tokens may be requested from: `host` or `*.suffix` (not the apex), each with an optional `:port` (443 without). "+
				"Default: any host at a public address. Private and loopback addresses need their host listed.",
			func(c *config) *[]string { return &c.AllowedHosts }, anyValue),
		newSetting("ca_cert", framework.TypeString,
			"PEM certificates of the authorities to trust at the identity provider, in place of the system's.",
			func(c *config) *string { return &c.CACert }, anyValue),
		newSetting("request_timeout", framework.TypeDurationSecond,
			"How long one answer may take as a whole, with discovery and all attempts: 1s to 45s. Default: 10s.",
			func(c *config) *time.Duration { return &c.RequestTimeout }, between(time.Second, 45*time.Second)),
		newSetting("max_retries", framework.TypeInt,
			"How often a request is tried again after a connection error or the answers 429, 502, 503 and 504: 0 to 5. Default: 2.",
			func(c *config) *int { return &c.MaxRetries }, maxRetries),
		newSetting("allow_insecure_endpoints", framework.TypeBool,
			"For development only: allow http:// and loopback addresses.",
			func(c *config) *bool { return &c.AllowInsecure }, anyValue),
		newSetting("proxy_url", framework.TypeString,
			"A forward proxy (`http://proxy.example:3128`), or `environment` for HTTPS_PROXY and NO_PROXY of Vault's environment. "+
				"Needs allowed_hosts. Default: connect directly.",
			func(c *config) *string { return &c.ProxyURL }, trimmed),
	}
}

func between(least, most time.Duration) func(time.Duration) (time.Duration, error) {
	return func(value time.Duration) (time.Duration, error) {
		if value < least || value > most {
			return 0, fmt.Errorf("must be from %s to %s, not %s", compact(least), compact(most), compact(value))
		}
		return value, nil
	}
}

// compact writes a duration without its zero units: 1h, not 1h0m0s.
func compact(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

func maxRetries(value int) (int, error) {
	if value < 0 || value > 5 {
		return 0, fmt.Errorf("must be from 0 to 5, not %d", value)
	}
	return value, nil
}

func trimmed(value string) (string, error) { return strings.TrimSpace(value), nil }

func (b *backend) pathConfig() *framework.Path {
	settings := configFields()
	answers := ok("The configuration.", answerFields(settings, nil))
	return &framework.Path{
		Pattern:      "config",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:       schemas(settings, nil),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readConfig, Summary: "Read the mount's configuration.", Responses: answers,
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "configuration"},
			},
			logical.UpdateOperation: &framework.PathOperation{
				Callback: b.writeConfig, Summary: "Configure the mount.", Responses: answers,
				ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "configure"},
			},
			logical.PatchOperation: &framework.PathOperation{
				Callback: b.writeConfig, Summary: "Change parts of the mount's configuration.", Responses: answers,
				ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "patch", OperationSuffix: "configuration"},
			},
			logical.DeleteOperation: &framework.PathOperation{
				Callback: b.deleteConfig, Summary: "Restore the default configuration.", Responses: noContent(),
				ForwardPerformanceStandby: true, ForwardPerformanceSecondary: true,
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "delete", OperationSuffix: "configuration"},
			},
		},
		HelpSynopsis:    "Which hosts may be reached, and how. The mount works without it.",
		HelpDescription: strings.TrimSpace(configHelp),
	}
}

func (b *backend) readConfig(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	settings, err := readConfigEntry(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	return configAnswer(settings), nil
}

func (b *backend) writeConfig(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	b.configLock.Lock()
	defer b.configLock.Unlock()
	settings, err := readConfigEntry(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	before, defaults := settings, defaultConfig()
	if err := apply(configFields(), &settings, &defaults, req.Data); err != nil {
		return nil, err
	}
	if err := b.validateConfig(ctx, settings); err != nil {
		return nil, err
	}
	if !reflect.DeepEqual(before, settings) {
		defer b.configChanged()
		if err := storage.Put(ctx, req.Storage, configStoragePath, configEntry{Format: configFormat, Settings: configSettings(settings)}); err != nil {
			return nil, err
		}
	}
	return configAnswer(settings), nil
}

// configChanged forgets what this node holds of the configuration, whether or not the write of it succeeded.
func (b *backend) configChanged() {
	b.config.drop(configStoragePath)
	b.tokens.DropIf(func(tokenInputs) bool { return true })
}

func (b *backend) validateConfig(ctx context.Context, settings tokenendpoint.Config) error {
	client, err := b.newClient(ctx, settings)
	if _, ok := errors.AsType[*tokenendpoint.FieldError](err); ok {
		return userError{err}
	}
	if err != nil {
		return err
	}
	client.Close()
	return nil
}

func (b *backend) deleteConfig(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	b.configLock.Lock()
	defer b.configLock.Unlock()
	_, err := readConfigEntry(ctx, req.Storage)
	if _, newer := errors.AsType[*storage.NewerFormatError](err); newer {
		return nil, err
	}
	defer b.configChanged()
	if err := req.Storage.Delete(ctx, configStoragePath); err != nil {
		return nil, fmt.Errorf("delete the configuration: %w", err)
	}
	return nil, nil
}

func configAnswer(settings tokenendpoint.Config) *logical.Response {
	resp := &logical.Response{Data: echoAll(configFields(), &settings)}
	if settings.AllowInsecure {
		resp.AddWarning("allow_insecure_endpoints is on: http:// and loopback endpoints are accepted, so that assertions and tokens may cross the network in clear. For development only.")
	}
	return resp
}

func (b *backend) loadConfiguration(ctx context.Context, s logical.Storage, _ string) (*configuration, error) {
	settings, err := readConfigEntry(ctx, s)
	if err != nil {
		return nil, err
	}
	client, err := b.newClient(ctx, settings)
	if err != nil {
		return nil, fmt.Errorf("the stored configuration: %w", err)
	}
	return &configuration{client: client}, nil
}

func (b *backend) newClient(ctx context.Context, settings tokenendpoint.Config) (*tokenendpoint.Client, error) {
	return tokenendpoint.New(settings, tokenendpoint.Options{UserAgent: b.userAgent(ctx), Now: b.now})
}

// userAgent names the plugin, and the Vault that runs it where that is known.
func (b *backend) userAgent(ctx context.Context) string {
	plugin := "vault-plugin-bcgov-jwt/" + strings.TrimPrefix(b.build.Version, "v")
	environment, err := b.System().PluginEnv(ctx)
	if err != nil || environment == nil {
		return plugin
	}
	return useragent.PluginString(environment, plugin)
}

// readConfigEntry reads the stored settings, or the default ones where nothing is stored.
func readConfigEntry(ctx context.Context, s logical.Storage) (tokenendpoint.Config, error) {
	entry := configEntry{Settings: configSettings(defaultConfig())}
	if _, err := storage.Get(ctx, s, configStoragePath, configFormat, &entry); err != nil {
		return tokenendpoint.Config{}, fmt.Errorf("the configuration: %w", err)
	}
	return tokenendpoint.Config(entry.Settings), nil
}

const configHelp = `
All settings have defaults, and deleting the configuration restores them. On a write an
absent field keeps its value and an empty one restores its default.

By default tokens are requested from any host at a public address. Name the hosts of
your identity provider in allowed_hosts to allow no other:

    vault write bcgov-jwt/config allowed_hosts=loginproxy.gov.bc.ca,*.loginproxy.gov.bc.ca

Link-local, multicast, reserved and cloud metadata addresses are refused always.
`
