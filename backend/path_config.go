package backend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathConfig() *framework.Path {
	settings := configFields()
	responses := okResponse("The configuration.", withSettings(settings))
	return &framework.Path{
		Pattern: "config",
		Fields:  fieldSchemas(settings, nil),
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: operation(b.readConfig,
				"Read the mount's configuration.", responses, "read", "configuration"),
			logical.UpdateOperation: forwarded(operation(b.writeConfig,
				"Configure the mount.", responses, "configure", "")),
			logical.PatchOperation: forwarded(operation(b.writeConfig,
				"Update the mount's configuration.", responses, "patch", "configuration")),
			logical.DeleteOperation: forwarded(operation(b.deleteConfig,
				"Restore the defaults.", noContentResponse(), "delete", "configuration")),
		},
		HelpSynopsis:    "Network settings of the mount. Optional.",
		HelpDescription: textOf("config"),
	}
}

func (b *backend) readConfig(
	ctx context.Context, req *logical.Request, _ *framework.FieldData,
) (*logical.Response, error) {
	settings, err := readConfigEntry(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	return configResponse(settings), nil
}

func (b *backend) writeConfig(
	ctx context.Context, req *logical.Request, _ *framework.FieldData,
) (*logical.Response, error) {
	unlock, err := b.mountLocks.lock(ctx, configStoragePath)
	if err != nil {
		return nil, err
	}
	defer unlock()
	settings, err := readConfigEntry(ctx, req.Storage)
	if err != nil {
		return nil, err
	}
	before, defaults := settings, defaultConfig()
	if err := apply(configFields(), &settings, &defaults, req.Data); err != nil {
		return nil, err
	}
	client, err := b.newClient(ctx, settings)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	resp := configResponse(settings)
	if !reflect.DeepEqual(before, settings) {
		unreachable, err := b.unreachableKeys(ctx, req.Storage, client)
		if err != nil {
			return nil, err
		}
		if len(unreachable) > 0 {
			resp.AddWarning("These keys' URLs are not allowed, so their roles return no " +
				"tokens: " + abbreviate(unreachable) + ". Check allowed_hosts and, for http, " +
				"allow_insecure_endpoints.")
		}
		defer b.configChanged()
		entry := configEntry{Format: configFormat, Settings: settings}
		if err := storage.Put(ctx, req.Storage, configStoragePath, entry); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// unreachableKeys returns the names of the keys with a URL that the client would not contact.
func (b *backend) unreachableKeys(
	ctx context.Context, s logical.Storage, client *tokenendpoint.Client,
) ([]string, error) {
	names, err := keyring.List(ctx, s)
	if err != nil {
		return nil, err
	}
	var unreachable []string
	for _, name := range names {
		key, err := keyring.LoadSummary(ctx, s, name, b.now())
		if err != nil && !storage.Unreadable(err) {
			return nil, err
		}
		if key != nil && registered(key.Settings) &&
			client.CheckURL(cmp.Or(key.Settings.TokenEndpoint, key.Settings.Issuer)) != nil {
			unreachable = append(unreachable, name)
		}
	}
	return unreachable, nil
}

func (b *backend) deleteConfig(
	ctx context.Context, req *logical.Request, _ *framework.FieldData,
) (*logical.Response, error) {
	unlock, err := b.mountLocks.lock(ctx, configStoragePath)
	if err != nil {
		return nil, err
	}
	defer unlock()
	_, err = readConfigEntry(ctx, req.Storage)
	if _, newer := errors.AsType[*storage.NewerFormatError](err); newer {
		return nil, err
	}
	defer b.configChanged()
	if err := req.Storage.Delete(ctx, configStoragePath); err != nil {
		return nil, fmt.Errorf("delete the configuration: %w", err)
	}
	return nil, nil
}

func configResponse(settings tokenendpoint.Config) *logical.Response {
	resp := &logical.Response{Data: toResponse(configFields(), &settings)}
	if settings.AllowInsecure {
		resp.AddWarning("allow_insecure_endpoints is on: assertions and tokens may cross the " +
			"network unencrypted. For development only.")
	}
	return resp
}
