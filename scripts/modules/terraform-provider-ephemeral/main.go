// Command terraform-provider-ephemeral stands in for HashiCorp's Vault provider, whose versions
// with ephemeral resources Go's module proxy does not serve. It has vault_generic_secret alone, as
// in version 5.11, and takes VAULT_ADDR and VAULT_TOKEN from the environment.
package main

import (
	"context"
	"encoding/json"
	"log"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/ephemeral"
	"github.com/hashicorp/terraform-plugin-framework/ephemeral/schema"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/vault/api"
)

func main() {
	newProvider := func() provider.Provider { return vaultProvider{} }
	err := providerserver.Serve(context.Background(), newProvider, providerserver.ServeOpts{
		Address: "registry.opentofu.org/hashicorp/vault",
	})
	if err != nil {
		log.Fatal(err)
	}
}

type vaultProvider struct{}

func (vaultProvider) Metadata(
	_ context.Context, _ provider.MetadataRequest, resp *provider.MetadataResponse,
) {
	resp.TypeName = "vault"
}

func (vaultProvider) Schema(context.Context, provider.SchemaRequest, *provider.SchemaResponse) {}

func (vaultProvider) Configure(
	context.Context, provider.ConfigureRequest, *provider.ConfigureResponse,
) {
}

func (vaultProvider) DataSources(context.Context) []func() datasource.DataSource { return nil }

func (vaultProvider) Resources(context.Context) []func() resource.Resource { return nil }

func (vaultProvider) EphemeralResources(context.Context) []func() ephemeral.EphemeralResource {
	return []func() ephemeral.EphemeralResource{
		func() ephemeral.EphemeralResource { return genericSecret{} },
	}
}

type genericSecret struct{}

// genericSecretModel holds the attributes that the example uses.
type genericSecretModel struct {
	Path types.String `tfsdk:"path"`
	Data types.Map    `tfsdk:"data"`
}

func (genericSecret) Metadata(
	_ context.Context, req ephemeral.MetadataRequest, resp *ephemeral.MetadataResponse,
) {
	resp.TypeName = req.ProviderTypeName + "_generic_secret"
}

func (genericSecret) Schema(
	_ context.Context, _ ephemeral.SchemaRequest, resp *ephemeral.SchemaResponse,
) {
	resp.Schema = schema.Schema{Attributes: map[string]schema.Attribute{
		"path": schema.StringAttribute{Required: true},
		"data": schema.MapAttribute{ElementType: types.StringType, Computed: true, Sensitive: true},
	}}
}

// Open reads the secret. What is not a string becomes JSON.
func (genericSecret) Open(
	ctx context.Context, req ephemeral.OpenRequest, resp *ephemeral.OpenResponse,
) {
	var model genericSecretModel
	resp.Diagnostics.Append(req.Config.Get(ctx, &model)...)
	secret, err := read(ctx, model.Path.ValueString())
	if err != nil {
		resp.Diagnostics.AddError("error reading from Vault", err.Error())
		return
	}
	texts := map[string]string{}
	for name, value := range secret {
		text, isText := value.(string)
		if !isText {
			encoded, _ := json.Marshal(value) // it was decoded from JSON
			text = string(encoded)
		}
		texts[name] = text
	}
	data, diagnostics := types.MapValueFrom(ctx, types.StringType, texts)
	resp.Diagnostics.Append(diagnostics...)
	model.Data = data
	resp.Diagnostics.Append(resp.Result.Set(ctx, &model)...)
}

// read reads with a child token, as HashiCorp's provider does.
func read(ctx context.Context, path string) (map[string]any, error) {
	client, err := api.NewClient(nil)
	if err != nil {
		return nil, err
	}
	child := &api.TokenCreateRequest{TTL: "20m"}
	token, err := client.Auth().Token().CreateWithContext(ctx, child)
	if err != nil {
		return nil, err
	}
	client.SetToken(token.Auth.ClientToken)
	secret, err := client.Logical().ReadWithContext(ctx, path)
	if err != nil || secret == nil {
		return nil, err
	}
	return secret.Data, nil
}
