package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/useragent"
	"github.com/hashicorp/vault/sdk/logical"
)

const (
	configStoragePath = "config"
	configFormat      = 1
)

// configEntry is the stored form. Its format increases when older code would misread it.
type configEntry struct {
	Format   int                  `json:"format"`
	Settings tokenendpoint.Config `json:"settings"`
}

func defaultConfig() tokenendpoint.Config {
	return tokenendpoint.Config{RequestTimeout: 10 * time.Second, MaxRetries: 2}
}

func configFields() []field[tokenendpoint.Config] {
	type config = tokenendpoint.Config
	return []field[config]{
		newField("allowed_hosts", framework.TypeCommaStringSlice,
			func(c *config) *[]string { return &c.AllowedHosts }, anyValue),
		newField("ca_cert", framework.TypeString,
			func(c *config) *string { return &c.CACert }, anyValue),
		newField("request_timeout", framework.TypeDurationSecond,
			func(c *config) *time.Duration { return &c.RequestTimeout },
			between(time.Second, 45*time.Second)),
		newField("max_retries", framework.TypeInt,
			func(c *config) *int { return &c.MaxRetries }, maxRetries),
		newField("allow_insecure_endpoints", framework.TypeBool,
			func(c *config) *bool { return &c.AllowInsecure }, anyValue),
		newField("proxy_url", framework.TypeString,
			func(c *config) *string { return &c.ProxyURL }, trimmed),
	}
}

// readConfigEntry returns the stored settings, or the defaults if nothing is stored.
func readConfigEntry(ctx context.Context, s logical.Storage) (tokenendpoint.Config, error) {
	entry := configEntry{Settings: defaultConfig()}
	_, err := storage.Get(ctx, s, configStoragePath, configFormat, &entry)
	if err != nil {
		return tokenendpoint.Config{}, fmt.Errorf("the configuration: %w", err)
	}
	return entry.Settings, nil
}

func (b *backend) loadClient(
	ctx context.Context, s logical.Storage, _ string,
) (*tokenendpoint.Client, error) {
	settings, err := readConfigEntry(ctx, s)
	if err != nil {
		return nil, err
	}
	client, err := b.newClient(ctx, settings)
	if err != nil {
		return nil, fmt.Errorf("the stored configuration: %w", err)
	}
	return client, nil
}

// configChanged drops what this node caches of the configuration, also after a failed write.
func (b *backend) configChanged() {
	b.clients.drop(configStoragePath)
	b.tokens.DropIf(func(tokenInputs) bool { return true })
}

// newClient returns a client with these settings, or a userError about one of them.
func (b *backend) newClient(
	ctx context.Context, settings tokenendpoint.Config,
) (*tokenendpoint.Client, error) {
	options := tokenendpoint.Options{UserAgent: b.userAgent(ctx), Now: b.now}
	client, err := tokenendpoint.New(settings, options)
	if _, ok := errors.AsType[*tokenendpoint.FieldError](err); ok {
		err = userError{err}
	}
	return client, err
}

// userAgent names the plugin and, if known, the Vault that runs it.
func (b *backend) userAgent(ctx context.Context) string {
	plugin := "vault-plugin-bcgov-jwt/" + strings.TrimPrefix(b.build.Version, "v")
	environment, err := b.System().PluginEnv(ctx)
	if err != nil || environment == nil {
		return plugin
	}
	return useragent.PluginString(environment, plugin)
}
