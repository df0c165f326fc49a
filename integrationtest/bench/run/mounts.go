package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"net/http"
	"runtime"
	"slices"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/bench"
)

// The plugin is mounted twice, each time with its own process: with one key, and full of them.
const (
	oneMount  = "bcgov-jwt"
	fullMount = "bcgov-jwt-full"
)

// crowdSize is the number of concurrent readers of one shared token.
const crowdSize = 1000

// benchmark is one run and its results.
type benchmark struct {
	*servers
	report
	program *bench.Program
}

func newBenchmark(s *servers, o options) (*benchmark, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	program, err := bench.NewProgram(key, "program", s.provider, s.provider+"/token")
	return &benchmark{servers: s, report: report{options: o}, program: program}, err
}

// subject is something that is measured.
type subject struct {
	name string
	call func(context.Context) error
}

const (
	kvRead        = "KV v1 read"
	transitSign   = "transit/sign"
	noopRead      = "no-op read"
	noopLeased    = "no-op leased"
	goProgram     = "Go program"
	credsLeased   = "creds leased"
	credsUnleased = "creds unleased"
	credsShared   = "creds shared"
	assertion     = "assertion"
)

// subjects returns what is measured, in this order. What a goal compares is adjacent, so that other
// load on the machine affects both.
func (b *benchmark) subjects() []subject {
	// About as long as the signing input of an assertion.
	input := base64.StdEncoding.EncodeToString(make([]byte, 400))
	signature := `{"signature_algorithm":"pkcs1v15","input":"` + input + `"}`
	return []subject{
		{kvRead, b.call(http.MethodGet, "kv/bench", "")},
		{noopRead, b.call(http.MethodGet, noopName+"/read", "")},
		{credsShared, b.call(http.MethodGet, oneMount+"/creds/shared", "")},
		{inFull(credsShared), b.call(http.MethodGet, fullMount+"/creds/shared", "")},
		{transitSign, b.call(http.MethodPut, "transit/sign/bench/sha2-256", signature)},
		{assertion, b.call(http.MethodGet, oneMount+"/assertion/assertion", "")},
		{inFull(assertion), b.call(http.MethodGet, fullMount+"/assertion/assertion", "")},
		{noopLeased, b.call(http.MethodGet, noopName+"/leased", "")},
		{goProgram, b.program.Token},
		{credsLeased, b.call(http.MethodGet, oneMount+"/creds/leased", "")},
		{inFull(credsLeased), b.call(http.MethodGet, fullMount+"/creds/leased", "")},
		{credsUnleased, b.call(http.MethodGet, oneMount+"/creds/unleased", "")},
		{inFull(credsUnleased), b.call(http.MethodGet, fullMount+"/creds/unleased", "")},
	}
}

// inFull returns the name of the same subject in the full mount.
func inFull(name string) string { return name + ", full mount" }

// mount mounts everything, and notes the plugin's memory while it is idle.
func (b *benchmark) mount(ctx context.Context) error {
	for mount, command := range map[string]string{
		noopName: noopName, oneMount: pluginName, fullMount: pluginName,
	} {
		if err := b.mountPlugin(ctx, command, mount); err != nil {
			return err
		}
	}
	if err := b.noteMemory("just mounted", noopName, oneMount); err != nil {
		return err
	}
	for path, engine := range map[string]*api.MountInput{
		"kv":      {Type: "kv", Options: map[string]string{"version": "1"}},
		"transit": {Type: "transit"},
	} {
		if err := b.vault.Sys().MountWithContext(ctx, path, engine); err != nil {
			return err
		}
	}
	return b.writeAll(ctx, slices.Concat(
		[]write{
			{"kv/bench", map[string]any{"hello": "world"}},
			{"transit/keys/bench", map[string]any{"type": "rsa-2048"}},
		},
		b.setUp(oneMount), b.setUp(fullMount),
	))
}

// setUp returns writes that create a role for each delivery on a mount of the plugin.
func (b *benchmark) setUp(mount string) []write {
	return []write{
		{mount + "/config", map[string]any{"allow_insecure_endpoints": true}},
		{mount + "/keys/bench", b.registration("bench")},
		{mount + "/roles/leased", map[string]any{"key": "bench"}},
		{mount + "/roles/unleased", map[string]any{"key": "bench", "delivery": "unleased"}},
		{mount + "/roles/shared", map[string]any{"key": "bench", "delivery": "shared"}},
		{mount + "/roles/assertion", map[string]any{"key": "bench", "allow_assertion": true}},
	}
}

// registration returns what the provider's portal shows of a client.
func (b *benchmark) registration(clientID string) map[string]any {
	return map[string]any{
		"client_id": clientID, "issuer": b.provider, "token_endpoint": b.provider + "/token",
	}
}

// fill creates the keys and roles of the full mount, of the kinds that use the most memory: RSA,
// and a shared token.
func (b *benchmark) fill(ctx context.Context) error {
	keys, err := manyKeys(b.options.keys)
	if err != nil {
		return err
	}
	err = b.forEachKey(ctx, func(ctx context.Context, i int, name string) error {
		return b.writeAll(ctx, []write{
			{fullMount + "/keys/" + name + "/import", map[string]any{"private_key": keys[i]}},
			{fullMount + "/keys/" + name, b.registration(name)},
			{fullMount + "/roles/" + name, map[string]any{"delivery": "shared"}},
		})
	})
	if err != nil {
		return err
	}
	// Creating them uses more memory than holding them.
	_, err = b.vault.Sys().ReloadPluginWithContext(ctx, &api.ReloadPluginInput{Plugin: fullMount})
	return err
}

// warm reads a token of each role twice, so that everything is in memory: after the first read a
// key is stored again, as one that the provider accepted.
func (b *benchmark) warm(ctx context.Context) error {
	for range 2 {
		err := b.forEachKey(ctx, func(ctx context.Context, _ int, name string) error {
			return b.call(http.MethodGet, fullMount+"/creds/"+name, "")(ctx)
		})
		if err != nil {
			return err
		}
	}
	return b.noteMemory(fmt.Sprintf("%d keys, roles and tokens", b.options.keys), fullMount)
}

func (b *benchmark) forEachKey(
	ctx context.Context, do func(ctx context.Context, i int, name string) error,
) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4 * runtime.GOMAXPROCS(0))
	for i := range b.options.keys {
		group.Go(func() error { return do(ctx, i, fmt.Sprintf("key-%d", i)) })
	}
	return group.Wait()
}

// crowd reads one shared token with many concurrent readers, before a token exists.
func (b *benchmark) crowd(ctx context.Context) error {
	err := b.writeAll(ctx, []write{
		{oneMount + "/keys/crowd", b.registration("crowd")},
		{oneMount + "/roles/crowd", map[string]any{"delivery": "shared"}},
	})
	if err != nil {
		return err
	}
	read := b.call(http.MethodGet, oneMount+"/creds/crowd", "")
	group, reading := errgroup.WithContext(ctx)
	for range crowdSize {
		group.Go(func() error {
			for range 3 {
				if err := read(reading); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	b.crowdRequests, err = b.requests(ctx, "crowd")
	return err
}
