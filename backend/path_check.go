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
	return roleReadPath("check", textOf("check"), operation(b.readCheck,
		"Test each step of obtaining a token and report the results.",
		okResponse("The report.", declaredFields("check")), "check", "role"))
}

func (b *backend) readCheck(
	ctx context.Context, req *logical.Request, data *framework.FieldData,
) (*logical.Response, error) {
	name, role, err := b.requestedRole(ctx, req, data)
	if err != nil {
		return nil, err
	}
	client, err := b.clients.get(ctx, req.Storage, configStoragePath)
	if err != nil {
		return nil, err
	}
	ctx, cancel := client.WithTimeout(ctx)
	defer cancel()
	r := &tokenRequest{backend: b, req: req, name: name, role: role, client: client}
	c := &check{tokenRequest: r}
	c.line("step", "result", "") // in the CLI's table only the first line is indented
	err = c.run(ctx)
	var failure *stepFailure
	if err != nil && !errors.As(err, &failure) {
		return nil, err
	}
	return c.response(failure), nil
}

func (c *check) response(failure *stepFailure) *logical.Response {
	data := map[string]any{
		"ok": failure == nil, "failed_step": "", "error": "",
		"hint": fmt.Sprintf("To obtain a token: vault read %screds/%s", c.req.MountPoint, c.name),
	}
	if failure != nil {
		c.line(failure.step, "FAILED", "see error and hint")
		data["failed_step"], data["error"], data["hint"] = failure.step, failure.text, failure.hint
	}
	data["report"] = strings.Join(c.lines, "\n")
	return &logical.Response{Data: data}
}
