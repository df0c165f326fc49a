package backend

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

func (b *backend) pathConfig() *framework.Path {
	settings := configFields()
	responses := okResponse("The configuration.", responseFields(settings, nil))
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
		HelpDescription: help("config"),
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
	if err := b.validateConfig(ctx, settings); err != nil {
		return nil, err
	}
	if !reflect.DeepEqual(before, settings) {
		defer b.configChanged()
		entry := configEntry{Format: configFormat, Settings: configSettings(settings)}
		if err := storage.Put(ctx, req.Storage, configStoragePath, entry); err != nil {
			return nil, err
		}
	}
	return configResponse(settings), nil
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
