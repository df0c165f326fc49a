package main

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/prometheus/procfs"
	"golang.org/x/sync/errgroup"
)

// mount is a mount of the plugin with its own process, and what one of its size costs.
type mount struct {
	path string
	keys int // as many roles, each with a shared token

	start, list, scrape, scrapeAgain float64 // ms; scrape is the first after the start
	idle, warm, atEnd                float64 // MB resident: after the start, with every token, at the end
}

// fill creates the keys and roles of each mount, of the kinds that use the most memory, and then
// measures it.
func (b *benchmark) fill(ctx context.Context) error {
	keys, err := manyKeys(b.options.keys)
	if err != nil {
		return err
	}
	for _, m := range b.mounts {
		err := m.forEachKey(ctx, func(ctx context.Context, i int) error {
			name := keyName(i)
			return b.writeAll(ctx, []write{
				{m.path + "/keys/" + name + "/import", map[string]any{"private_key": keys[i]}},
				{m.path + "/keys/" + name, b.registration(name)},
				{m.path + "/roles/" + name, map[string]any{"delivery": "shared"}},
			})
		})
		if err != nil {
			return err
		}
		if err := b.measureMount(ctx, m); err != nil {
			return fmt.Errorf("%s: %w", m.path, err)
		}
	}
	return nil
}

// measureMount starts the plugin again first: creating keys uses more memory than holding them.
func (b *benchmark) measureMount(ctx context.Context, m *mount) error {
	const get = http.MethodGet
	for _, step := range []struct {
		into *float64
		call func(context.Context) error
	}{
		{&m.start, func(ctx context.Context) error { return b.restart(ctx, m) }},
		{&m.list, b.call("LIST", m.path+"/keys", "")},
		{&m.scrape, b.call(get, m.path+"/metrics", "")},
		{&m.scrapeAgain, b.call(get, m.path+"/metrics", "")},
	} {
		began := time.Now()
		if err := step.call(ctx); err != nil {
			return err
		}
		*step.into = milliseconds(time.Since(began))
	}
	// After the first read a key is stored again, as one that the provider accepted.
	for range 2 {
		err := m.forEachKey(ctx, func(ctx context.Context, i int) error {
			return b.call(get, m.path+"/creds/"+keyName(i), "")(ctx)
		})
		if err != nil {
			return err
		}
	}
	return b.noteMemory(m, &m.warm)
}

// restart starts the plugin's process again, until the first read. It notes the memory.
func (b *benchmark) restart(ctx context.Context, m *mount) error {
	_, err := b.vault.Sys().ReloadPluginWithContext(ctx, &api.ReloadPluginInput{Plugin: m.path})
	if err != nil {
		return err
	}
	if err := b.call(http.MethodGet, m.path+"/creds/leased", "")(ctx); err != nil {
		return err
	}
	return b.noteMemory(m, &m.idle)
}

func (m *mount) forEachKey(
	ctx context.Context, do func(ctx context.Context, i int) error,
) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(4 * runtime.GOMAXPROCS(0))
	for i := range m.keys {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

func keyName(i int) string { return fmt.Sprintf("key-%d", i) }

func (b *benchmark) noteMemory(m *mount, into *float64) error {
	process, err := b.pluginProcess(m.path)
	if err != nil {
		return err
	}
	stat, err := process.Stat()
	*into = float64(stat.ResidentMemory()) / (1 << 20)
	return err
}

// pluginProcess returns the process of the plugin by a name in Vault's catalog.
func (b *benchmark) pluginProcess(name string) (procfs.Proc, error) {
	processes, err := procfs.AllProcs()
	if err != nil {
		return procfs.Proc{}, err
	}
	for _, process := range processes {
		binary, err := process.Executable() // those of other users cannot be read
		if err == nil && binary == filepath.Join(b.server.PluginDirectory(), name) {
			return process, nil
		}
	}
	return procfs.Proc{}, fmt.Errorf("no process runs %s", name)
}
