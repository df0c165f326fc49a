package rotation

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// churn changes keys without a pause, and reads creds, until what serves them is killed.
type churn struct {
	m    *harness.Mount
	p    *harness.Provider
	keys []*churnedKey

	killing    atomic.Bool // from now on failures are expected
	stopped    atomic.Bool
	operations int
	failures   []string // while nothing was being killed
}

// churnedKey is a key as its operator knows it.
type churnedKey struct {
	name, clientID string
	registered     string // the public key that the provider knows
	highest        int    // the highest version number seen
	privatePEM     string // of an imported one
}

func (c *churn) add(t *testing.T, name, clientID string) {
	t.Helper()
	registered := c.m.Read(t, "keys/"+name).Text(t, "public_key")
	c.keys = append(c.keys, &churnedKey{
		name: name, clientID: clientID, registered: registered, highest: 1,
	})
}

// start changes and reads until something fails or it is stopped.
func (c *churn) start(t *testing.T) <-chan struct{} {
	t.Helper()
	done := make(chan struct{})
	imported := newImport(t)
	go func() {
		defer close(done)
		ctx := t.Context()
		var err error
		for step := 0; err == nil && !c.stopped.Load(); step++ {
			key := c.keys[step%len(c.keys)]
			if step == 3 {
				c.keys = append(c.keys, imported)
				err = c.importKey(ctx, imported)
			} else {
				err = c.step(ctx, key, step/len(c.keys))
			}
			if err == nil {
				c.operations++
			}
		}
		if err != nil && !c.killing.Load() {
			c.failures = append(c.failures, err.Error())
		}
	}()
	return done
}

func newImport(t *testing.T) *churnedKey {
	t.Helper()
	key, privatePEM := harness.NewPrivateKey(t)
	return &churnedKey{
		name: "imported-" + rand.Text(), clientID: harness.NewClientID(), highest: 1,
		privatePEM: privatePEM, registered: harness.PublicPEM(t, key),
	}
}

// importKey does what an operator does to use a key that was created elsewhere. Each part may be
// done already.
func (c *churn) importKey(ctx context.Context, key *churnedKey) error {
	if err := c.register(ctx, key, key.registered); err != nil {
		return err
	}
	present, err := c.request(ctx, http.MethodGet, "keys/"+key.name, nil, http.StatusNotFound)
	if err != nil {
		return err
	}
	if present.Status == http.StatusNotFound {
		err := c.write(ctx, "keys/"+key.name+"/import", "private_key", key.privatePEM)
		if err != nil {
			return err
		}
	}
	settings := map[string]any{"client_id": key.clientID, "issuer": c.p.Issuer}
	if _, err := c.request(ctx, http.MethodPost, "keys/"+key.name, settings); err != nil {
		return err
	}
	if _, err := c.request(ctx, http.MethodPost, "roles/"+key.name, nil); err != nil {
		return err
	}
	return c.readCreds(ctx, key)
}

// step does the next thing to a key: stage, register and switch by a read; destroy what the
// provider does not know; stage, activate untested and register.
func (c *churn) step(ctx context.Context, key *churnedKey, step int) error {
	var err error
	switch step % 6 {
	case 0, 3:
		_, err = c.request(ctx, http.MethodPost, "keys/"+key.name+"/rotate", nil)
	case 1:
		err = c.registerShown(ctx, key)
	case 4:
		var got harness.Response
		got, err = c.request(ctx, http.MethodGet, "keys/"+key.name, nil)
		if err == nil && got.Data["staged_version"] != float64(0) {
			err = c.write(ctx, "keys/"+key.name+"/activate", "force", true)
		}
	case 5:
		err = c.registerShown(ctx, key)
	case 2:
		err = c.destroyOthers(ctx, key)
	}
	if err != nil {
		return err
	}
	return c.readCreds(ctx, key)
}

// write writes one field.
func (c *churn) write(ctx context.Context, path, field string, value any) error {
	_, err := c.request(ctx, http.MethodPost, path, map[string]any{field: value})
	return err
}

func (c *churn) readCreds(ctx context.Context, key *churnedKey) error {
	_, err := c.request(ctx, http.MethodGet, "creds/"+key.name, nil)
	return err
}

// request requires success or one of these statuses.
func (c *churn) request(
	ctx context.Context, method, path string, body any, statuses ...int,
) (harness.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	got, err := c.m.Request(ctx, method, path, body)
	if err != nil {
		return got, err
	}
	if got.Status >= 300 && !slices.Contains(statuses, got.Status) {
		return got, fmt.Errorf("%s %s: %d %s", method, path, got.Status, got.ErrorText())
	}
	return got, nil
}

// registerShown registers the public key that a read returns: the staged one, or else the active
// one.
func (c *churn) registerShown(ctx context.Context, key *churnedKey) error {
	got, err := c.request(ctx, http.MethodGet, "keys/"+key.name, nil)
	if err != nil {
		return err
	}
	shown, _ := got.Data["public_key"].(string)
	return c.register(ctx, key, shown)
}

func (c *churn) register(ctx context.Context, key *churnedKey, publicKey string) error {
	key.registered = publicKey
	return c.p.Put(ctx, keycloak.PortalClient(key.clientID, publicKey))
}

// destroyOthers destroys each version that is not active and that the provider does not know.
func (c *churn) destroyOthers(ctx context.Context, key *churnedKey) error {
	got, err := c.request(ctx, "LIST", "keys/"+key.name+"/versions", nil)
	if err != nil {
		return err
	}
	versions, _ := got.Data["key_info"].(map[string]any)
	registered, err := keyIDOf(key.registered)
	if err != nil {
		return err
	}
	for number, version := range versions {
		version, _ := version.(map[string]any)
		if version["state"] == "active" || version["key_id"] == registered {
			continue
		}
		if err := c.write(ctx, "keys/"+key.name+"/destroy", "version", number); err != nil {
			return err
		}
	}
	return nil
}

// requireIntact checks every key after a kill: it is as before or as after the operation that was
// interrupted, and the provider, as it is, issues a token for it.
func (c *churn) requireIntact(t *testing.T) {
	t.Helper()
	for _, key := range c.keys {
		role := c.m.Do(t, http.MethodGet, "roles/"+key.name, nil, nil)
		if key.privatePEM != "" && role.Status == http.StatusNotFound {
			require.NoError(t, c.importKey(t.Context(), key), "the import is repeated")
		}
		got, versions := c.m.Read(t, "keys/"+key.name), c.m.Versions(t, key.name)
		newest := 0
		registered, err := keyIDOf(key.registered)
		require.NoError(t, err)
		known := false
		for _, number := range versions.Data["keys"].([]any) {
			n, err := strconv.Atoi(number.(string))
			require.NoError(t, err)
			newest = max(newest, n)
			known = known || versions.Version(t, n, "key_id") == registered
		}
		require.True(t, known, "%s lost the version that the provider knows", key.name)
		require.Contains(t, versions.Data["keys"], strconv.Itoa(got.Number(t, "active_version")))
		if staged := got.Number(t, "staged_version"); staged != 0 {
			require.Equal(t, newest, staged)
		}
		require.NoError(t, c.readCreds(t.Context(), key), "%s after the kill", key.name)
		c.requireNewNumber(t, key, newest)
	}
}

// requireNewNumber requires that the next version has a number that was never used.
func (c *churn) requireNewNumber(t *testing.T, key *churnedKey, newest int) {
	t.Helper()
	got := c.m.Read(t, "keys/"+key.name)
	if got.Number(t, "staged_version") != 0 {
		key.highest = max(key.highest, newest)
		return
	}
	require.NoError(t, c.destroyOthers(t.Context(), key)) // so that there is room
	staged := c.m.Write(t, "keys/"+key.name+"/rotate", nil).Number(t, "staged_version")
	require.Greater(t, staged, key.highest, "%s reused a number", key.name)
	key.highest = staged
	// From now on only the counter knows of it.
	c.m.Write(t, "keys/"+key.name+"/destroy", map[string]any{"version": staged})
}
