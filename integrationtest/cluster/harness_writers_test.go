package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// writers change the mount without a pause, and know what was acknowledged.
type writers struct {
	p       *harness.Provider
	imports []string         // private keys
	see     []*harness.Mount // the nodes that must see a new version before it is registered

	setting, triedSetting int
	roles                 []string
	imported              map[string]string // public keys by name
	versions              map[string]string // key ids of the rotated key's versions, by number
}

// The keys that are written to, each with a client at the provider and a role of its name.
const (
	settingsKey = "settings"
	rotatedKey  = "rotated"
)

func newWriters(t *testing.T, p *harness.Provider, see []*harness.Mount) *writers {
	t.Helper()
	w := &writers{
		p: p, see: see, imported: map[string]string{}, versions: map[string]string{},
	}
	for range 200 {
		_, privatePEM := harness.NewPrivateKey(t)
		w.imports = append(w.imports, privatePEM)
	}
	return w
}

// start starts the writers, each through one of the mounts.
func (w *writers) start(t *testing.T, prefix string, through []*harness.Mount) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for i, step := range []func(context.Context, *harness.Mount, string) error{
		w.writeSetting, w.writeRole, w.importKey, w.rotate,
	} {
		m := through[i%len(through)].WithConnections(t, 1)
		running.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				_ = step(context.WithoutCancel(ctx), m, fmt.Sprintf("%s-%d", prefix, n))
				time.Sleep(pause)
			}
		})
	}
	stop = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// request returns an error unless the request was acknowledged.
func request(
	ctx context.Context, m *harness.Mount, method, path string, body any,
) (harness.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	got, err := m.Request(ctx, method, path, body)
	if err == nil && got.Status >= http.StatusMultipleChoices {
		err = fmt.Errorf("%d %s", got.Status, got.ErrorText())
	}
	return got, err
}

// writeSetting writes numbers in ascending order.
func (w *writers) writeSetting(ctx context.Context, m *harness.Mount, _ string) error {
	w.triedSetting++
	n := w.triedSetting
	_, err := request(ctx, m, http.MethodPost, "keys/"+settingsKey,
		map[string]any{"common_name": strconv.Itoa(n)})
	if err == nil {
		w.setting = n
	}
	return err
}

func (w *writers) writeRole(ctx context.Context, m *harness.Mount, name string) error {
	_, err := request(ctx, m, http.MethodPost, "roles/"+name, map[string]any{"key": settingsKey})
	if err == nil {
		w.roles = append(w.roles, name)
	}
	return err
}

func (w *writers) importKey(ctx context.Context, m *harness.Mount, name string) error {
	if len(w.imports) == 0 {
		return nil
	}
	privatePEM := w.imports[0]
	w.imports = w.imports[1:]
	got, err := request(ctx, m, http.MethodPost, "keys/"+name+"/import",
		map[string]any{"private_key": privatePEM})
	if err == nil {
		w.imported[name], _ = got.Data["public_key"].(string)
	}
	return err
}

// rotate does what an operator does: stage a version, register it, destroy the one before. After an
// error it begins again with what is there.
func (w *writers) rotate(ctx context.Context, m *harness.Mount, _ string) error {
	const path = "keys/" + rotatedKey
	staged, err := request(ctx, m, http.MethodPost, path+"/rotate", nil)
	if err != nil {
		return err
	}
	number := fmt.Sprint(staged.Data["staged_version"])
	w.versions[number], _ = staged.Data["key_id"].(string)
	for _, node := range w.see {
		for seen := ""; seen != number; time.Sleep(pause) {
			got, err := request(ctx, node, http.MethodGet, path, nil)
			if err != nil {
				return err
			}
			seen = fmt.Sprint(got.Data["staged_version"])
		}
	}
	clientID, _ := staged.Data["client_id"].(string)
	publicKey, _ := staged.Data["public_key"].(string)
	if err := w.p.Put(ctx, keycloak.PortalClient(clientID, publicKey)); err != nil {
		return err
	}
	if _, err := request(ctx, m, http.MethodGet, "creds/"+rotatedKey, nil); err != nil {
		return err
	}
	for older := range w.versions {
		if older == number {
			continue
		}
		delete(w.versions, older) // whether or not it is acknowledged
		body := map[string]any{"version": older}
		if _, err := request(ctx, m, http.MethodPost, path+"/destroy", body); err != nil {
			return err
		}
	}
	return nil
}

// requireKept requires that each node has all that was acknowledged. The writers are stopped.
func (w *writers) requireKept(t *testing.T, e engine) {
	t.Helper()
	require.NotEmpty(t, w.roles)
	require.NotEmpty(t, w.imported)
	require.NotEmpty(t, w.versions)
	e.eventually(t, seenWithin, "keys/"+settingsKey, func(got harness.Response) bool {
		stored, err := strconv.Atoi(got.Text(t, "common_name"))
		return err == nil && stored >= w.setting && stored <= w.triedSetting
	})
	for _, role := range w.roles {
		e.eventually(t, seenWithin, "roles/"+role, func(got harness.Response) bool {
			return got.Data["key"] == settingsKey
		})
	}
	for name, publicKey := range w.imported {
		e.eventually(t, seenWithin, "keys/"+name, func(got harness.Response) bool {
			return got.Data["public_key"] == publicKey
		})
	}
	for number, keyID := range w.versions {
		version := "keys/" + rotatedKey + "/versions/" + number
		e.eventually(t, seenWithin, version, func(got harness.Response) bool {
			return got.Data["key_id"] == keyID
		})
	}
	t.Logf("acknowledged: %d of %d settings, %d roles, %d imports, version %s of the rotated key",
		w.setting, w.triedSetting, len(w.roles), len(w.imported), newest(w.versions))
}

func newest(versions map[string]string) (number string) {
	most := 0
	for version := range versions {
		if n, err := strconv.Atoi(version); err == nil {
			most = max(most, n)
		}
	}
	return strconv.Itoa(most)
}
