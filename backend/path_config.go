package backend

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

func (b *backend) pathConfig() *framework.Path {
	settings := configFields()
	answers := okResponse("The configuration.", responseFields(settings, nil))
	return &framework.Path{
		Pattern:      "config",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields:       fieldSchemas(settings, nil),
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
				Callback: b.deleteConfig, Summary: "Restore the default configuration.", Responses: noContentResponse(),
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
	return configResponse(settings), nil
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
	return configResponse(settings), nil
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

func configResponse(settings tokenendpoint.Config) *logical.Response {
	resp := &logical.Response{Data: toResponse(configFields(), &settings)}
	if settings.AllowInsecure {
		resp.AddWarning("allow_insecure_endpoints is on: http:// and loopback endpoints are accepted, so that assertions and tokens may cross the network in clear. For development only.")
	}
	return resp
}

const configHelp = `
All settings have defaults, and deleting the configuration restores them. On a write an
absent field keeps its value and an empty one restores its default.

By default tokens are requested from any host at a public address. Name the hosts of
your identity provider in allowed_hosts to allow no other:

    vault write bcgov-jwt/config allowed_hosts=loginproxy.gov.bc.ca,*.loginproxy.gov.bc.ca

Link-local, multicast, reserved and cloud metadata addresses are refused always.
`
