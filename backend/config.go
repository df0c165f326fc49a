package backend

import (
	"context"
	"errors"
	"fmt"
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

func configFields() []field[tokenendpoint.Config] {
	type config = tokenendpoint.Config
	return []field[config]{
		newField("allowed_hosts", framework.TypeCommaStringSlice,
			"Hosts that tokens may be requested from: `host` or `*.suffix` (not the apex), each with an optional `:port` (443 without). "+
				"Default: any host at a public address. Private and loopback addresses need their host listed.",
			func(c *config) *[]string { return &c.AllowedHosts }, anyValue),
		newField("ca_cert", framework.TypeString,
			"PEM certificates of the authorities to trust at the identity provider, in place of the system's.",
			func(c *config) *string { return &c.CACert }, anyValue),
		newField("request_timeout", framework.TypeDurationSecond,
			"How long one answer may take as a whole, with discovery and all attempts: 1s to 45s. Default: 10s.",
			func(c *config) *time.Duration { return &c.RequestTimeout }, between(time.Second, 45*time.Second)),
		newField("max_retries", framework.TypeInt,
			"How often a request is tried again after a connection error or the answers 429, 502, 503 and 504: 0 to 5. Default: 2.",
			func(c *config) *int { return &c.MaxRetries }, maxRetries),
		newField("allow_insecure_endpoints", framework.TypeBool,
			"For development only: allow http:// and loopback addresses.",
			func(c *config) *bool { return &c.AllowInsecure }, anyValue),
		newField("proxy_url", framework.TypeString,
			"A forward proxy (`http://proxy.example:3128`), or `environment` for HTTPS_PROXY and NO_PROXY of Vault's environment. "+
				"Needs allowed_hosts. Default: connect directly.",
			func(c *config) *string { return &c.ProxyURL }, trimmed),
	}
}

// readConfigEntry reads the stored settings, or returns the defaults if nothing is stored.
func readConfigEntry(ctx context.Context, s logical.Storage) (tokenendpoint.Config, error) {
	entry := configEntry{Settings: configSettings(defaultConfig())}
	if _, err := storage.Get(ctx, s, configStoragePath, configFormat, &entry); err != nil {
		return tokenendpoint.Config{}, fmt.Errorf("the configuration: %w", err)
	}
	return tokenendpoint.Config(entry.Settings), nil
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

// configChanged forgets what this node holds of the configuration, whether or not the write of it succeeded.
func (b *backend) configChanged() {
	b.config.drop(configStoragePath)
	b.tokens.DropIf(func(tokenInputs) bool { return true })
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
