package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"net/http"
	"slices"

	"github.com/hashicorp/vault/api"
	"golang.org/x/sync/errgroup"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/bench"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

// oneMount has one key; its roles are measured.
const oneMount = "bcgov-jwt"

// crowdSize is the number of concurrent readers of one shared token.
const crowdSize = 1000

// benchmark is one run and its results.
type benchmark struct {
	*servers
	options options
	program *bench.Program
	mounts  []*mount // of the plugin, by size

	rounds        []round
	crowdRequests int
	parties       []party
}

func newBenchmark(s *servers, o options) (*benchmark, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	program, err := bench.NewProgram(key, "program", s.provider, s.provider+"/token")
	mounts := []*mount{
		{path: oneMount, keys: 1},
		{path: oneMount + "-some", keys: o.keys / 10},
		{path: oneMount + "-full", keys: o.keys},
	}
	return &benchmark{servers: s, options: o, program: program, mounts: mounts}, err
}

// full returns the largest mount.
func (b *benchmark) full() *mount { return b.mounts[len(b.mounts)-1] }

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
	floor         = "floor" // no-op leased and then Go program: what a leased read cannot save
	credsLeased   = "creds leased"
	credsUnleased = "creds unleased"
	credsShared   = "creds shared"
	assertion     = "assertion"
)

// inFull and withP256 return the name of a subject in the largest mount, and with a key of
// ecdsa-p256 instead of rsa-2048.
func inFull(name string) string   { return name + ", full mount" }
func withP256(name string) string { return name + ", P-256" }

// subjects returns what is measured, in this order. What a goal compares is adjacent, so that other
// load on the machine affects both.
func (b *benchmark) subjects() []subject {
	// About as long as the signing input of an assertion.
	input := base64.StdEncoding.EncodeToString(make([]byte, 400))
	signature := `{"signature_algorithm":"pkcs1v15","input":"` + input + `"}`
	read := func(path string) func(context.Context) error { return b.call(http.MethodGet, path, "") }
	one, full := oneMount, b.full().path
	return []subject{
		{kvRead, read("kv/bench")},
		{noopRead, read(noopName + "/read")},
		{credsShared, read(one + "/creds/shared")},
		{inFull(credsShared), read(full + "/creds/shared")},
		{transitSign, b.call(http.MethodPut, "transit/sign/bench/sha2-256", signature)},
		{assertion, read(one + "/assertion/assertion")},
		{withP256(assertion), read(one + "/assertion/assertion-p256")},
		{noopLeased, read(noopName + "/leased")},
		{goProgram, b.program.Token},
		{credsLeased, read(one + "/creds/leased")},
		{withP256(credsLeased), read(one + "/creds/leased-p256")},
		{inFull(credsLeased), read(full + "/creds/leased")},
		{credsUnleased, read(one + "/creds/unleased")},
		{inFull(credsUnleased), read(full + "/creds/unleased")},
	}
}

// mount mounts everything.
func (b *benchmark) mount(ctx context.Context) error {
	if err := b.mountPlugin(ctx, noopName, noopName); err != nil {
		return err
	}
	writes := []write{
		{"kv/bench", map[string]any{"hello": "world"}},
		{"transit/keys/bench", map[string]any{"type": "rsa-2048"}},
	}
	for path, engine := range map[string]*api.MountInput{
		"kv":      {Type: "kv", Options: map[string]string{"version": "1"}},
		"transit": {Type: "transit"},
	} {
		if err := b.vault.Sys().MountWithContext(ctx, path, engine); err != nil {
			return err
		}
	}
	for _, m := range b.mounts {
		if err := b.mountPlugin(ctx, harness.PluginName, m.path); err != nil {
			return err
		}
		writes = slices.Concat(writes, b.setUp(m.path))
	}
	return b.writeAll(ctx, writes)
}

// setUp returns writes that create a role for each delivery on a mount of the plugin.
func (b *benchmark) setUp(mount string) []write {
	p256 := b.registration("p256")
	p256["type"] = "ecdsa-p256"
	return []write{
		{mount + "/config", map[string]any{"allow_insecure_endpoints": true}},
		{mount + "/keys/bench", b.registration("bench")},
		{mount + "/keys/p256", p256},
		{mount + "/roles/leased", map[string]any{"key": "bench"}},
		{mount + "/roles/leased-p256", map[string]any{"key": "p256"}},
		{mount + "/roles/unleased", map[string]any{"key": "bench", "delivery": "unleased"}},
		{mount + "/roles/shared", map[string]any{"key": "bench", "delivery": "shared"}},
		{mount + "/roles/assertion", map[string]any{"key": "bench", "allow_assertion": true}},
		{mount + "/roles/assertion-p256", map[string]any{"key": "p256", "allow_assertion": true}},
	}
}

// registration returns what the provider's portal shows of a client.
func (b *benchmark) registration(clientID string) map[string]any {
	return map[string]any{
		"client_id": clientID, "issuer": b.provider, "token_endpoint": b.provider + "/token",
	}
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
