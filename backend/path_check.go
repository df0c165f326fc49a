package backend

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
)

func (b *backend) pathCheck() *framework.Path {
	return &framework.Path{
		Pattern:      "check/(?P<role>[^/]+)",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields: map[string]*framework.FieldSchema{
			"role": {Type: framework.TypeString, Description: "The role's name.", Required: true},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback: b.readCheck, Summary: "Try each step of a token's way and report.",
				Responses: okResponse("The report.", responseSchemas([]responseField{
					{name: "ok", kind: framework.TypeBool, description: "Whether a token was obtained."},
					{name: "report", kind: framework.TypeString, description: "One line for each step."},
					{name: "failed_step", kind: framework.TypeString, description: "The step that failed; empty if none did."},
					{name: "error", kind: framework.TypeString, description: "What went wrong."},
					{name: "hint", kind: framework.TypeString, description: "What it most likely means, and what to do next."},
				})),
				DisplayAttrs: &framework.DisplayAttributes{OperationVerb: "check", OperationSuffix: "role"},
			},
		},
		HelpSynopsis:    "Try each step of a token's way and report.",
		HelpDescription: strings.TrimSpace(checkHelp),
	}
}

func (b *backend) readCheck(ctx context.Context, req *logical.Request, data *framework.FieldData) (*logical.Response, error) {
	name, role, err := b.roleIn(ctx, req, data)
	if err != nil {
		return nil, err
	}
	config, err := b.config.get(ctx, req.Storage, configStoragePath)
	if err != nil {
		return nil, err
	}
	ctx, cancel := config.client.WithTimeout(ctx)
	defer cancel()
	c := &check{tokenRequest: &tokenRequest{backend: b, req: req, name: name, role: role, config: config}}
	err = c.walk(ctx)
	var failure *stepFailure
	if err != nil && !errors.As(err, &failure) {
		return nil, err
	}
	return c.response(failure), nil
}

func (c *check) response(failure *stepFailure) *logical.Response {
	data := map[string]any{
		"ok": failure == nil, "failed_step": "", "error": "",
		"hint": fmt.Sprintf("All is well. Get a token: vault read %screds/%s", c.req.MountPoint, c.name),
	}
	if failure != nil {
		c.line(failure.step, "FAILED", failure.text)
		c.line("next", "", failure.hint)
		data["failed_step"], data["error"], data["hint"] = failure.step, failure.text, failure.hint
	}
	data["report"] = strings.Join(c.lines, "\n")
	return &logical.Response{Data: data}
}

const checkHelp = `
Walks the way of a token and reports each step in a line: the role, its key, whether the
registration is complete, whether the host is allowed, connection and TLS, the clock,
discovery, whether the provider accepts the key, and the token itself. The token is
thrown away, and revoked where that can be done. Nothing is stored.

The answer is always a report: ok says whether a token was obtained, and otherwise
failed_step, error and hint say what is wrong and what to do next.

    vault read -field=report bcgov-jwt/check/myapi
`
