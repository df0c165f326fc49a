package integrationtest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

// TestKeysSurviveKill kills the plugin and the whole Vault, with its data on disk, while keys are rotated, activated, destroyed, imported and switched, and creds
// is read all the time. The provider knows one version at each moment, and that one must go on working: nothing is registered anew after a kill.
func TestKeysSurviveKill(t *testing.T) {
	t.Parallel()
	kills := 10
	if soaking() {
		kills = 50
	}
	vault := startRaftVault(t)
	p, _ := twoNodes(t, func() int { return 0 })
	m := vault.newMount(t)
	m.write(t, "config", p.config)
	c := &churn{m: m, p: p}
	for i := range 2 {
		name := fmt.Sprintf("churned-%d", i)
		c.add(t, name, m.newClient(t, p, name, map[string]any{"type": "ecdsa-p256"}))
		m.read(t, "creds/"+name)
	}
	for i := range kills {
		done := c.start(t.Context())
		pass(t, 100*time.Millisecond+arbitrary(t, 700*time.Millisecond))
		c.dying.Store(true)
		if i%2 == 0 {
			plugin := vault.pluginProcess(t, pluginName)
			require.NoError(t, syscall.Kill(plugin, syscall.SIGKILL))
			requireGone(t, plugin)
			m.eventuallyServed(t)
			c.over.Store(true)
			<-done
		} else {
			vault.kill(t)
			c.over.Store(true)
			<-done
			vault.restart(t)
		}
		c.dying.Store(false)
		c.over.Store(false)
		c.requireWhole(t)
	}
	require.Greater(t, c.operations, kills, "operations between kills")
	require.Empty(t, c.failures)
	require.NoError(t, m.showPrivateKeys(t.Context()))
	log, err := os.ReadFile(vault.logFile())
	require.NoError(t, err)
	shared.witness.saw("the log of the Vault that was killed", string(log))
}

// churn changes keys without a pause, and reads creds, until what it changes dies.
type churn struct {
	m    *mount
	p    *provider
	keys []*churnedKey

	dying      atomic.Bool // from now on failures are no wonder
	over       atomic.Bool
	operations int
	failures   []string // while nothing was killed
}

// churnedKey is a key as its operator knows it.
type churnedKey struct {
	name, clientID string
	registered     string // the public key that the provider knows
	highest        int    // the highest version number seen
	pem            string // of an imported one: what was imported
}

func (c *churn) add(t *testing.T, name, clientID string) {
	t.Helper()
	c.keys = append(c.keys, &churnedKey{name: name, clientID: clientID, registered: c.m.read(t, "keys/"+name).text(t, "public_key"), highest: 1})
}

// start changes and reads until something fails, or it is over.
func (c *churn) start(ctx context.Context) <-chan struct{} {
	done := make(chan struct{})
	imported, err := newImport()
	go func() {
		defer close(done)
		for step := 0; err == nil && !c.over.Load(); step++ {
			key := c.keys[step%len(c.keys)]
			if step == 3 {
				c.keys = append(c.keys, imported)
				err = c.imports(ctx, imported)
			} else {
				err = c.step(ctx, key, step/len(c.keys))
			}
			if err == nil {
				c.operations++
			}
		}
		if err != nil && !c.dying.Load() {
			c.failures = append(c.failures, err.Error())
		}
	}()
	return done
}

func newImport() (*churnedKey, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if err := shared.witness.addPrivateKey(private); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	public, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, err
	}
	return &churnedKey{
		name: "imported-" + rand.Text(), clientID: newClientID(), highest: 1,
		pem:        string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		registered: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
	}, nil
}

// imports is what an operator does to use a key that was made elsewhere. Each part may be done already.
func (c *churn) imports(ctx context.Context, key *churnedKey) error {
	if err := c.register(ctx, key, key.registered); err != nil {
		return err
	}
	present, err := c.request(ctx, http.MethodGet, "keys/"+key.name, nil, http.StatusOK, http.StatusNotFound)
	if err != nil {
		return err
	}
	if present.status == http.StatusNotFound {
		if _, err := c.request(ctx, http.MethodPost, "keys/"+key.name+"/import", fields("private_key", key.pem)); err != nil {
			return err
		}
	}
	if _, err := c.request(ctx, http.MethodPost, "keys/"+key.name, fields("client_id", key.clientID, "issuer", c.p.issuer)); err != nil {
		return err
	}
	if _, err := c.request(ctx, http.MethodPost, "roles/"+key.name, nil); err != nil {
		return err
	}
	return c.readCreds(ctx, key)
}

// step does the next thing to a key: stage, register and switch by a read; stage, activate untried and register; destroy what the provider does not know.
func (c *churn) step(ctx context.Context, key *churnedKey, step int) error {
	var err error
	switch step % 6 {
	case 0, 3:
		_, err = c.request(ctx, http.MethodPost, "keys/"+key.name+"/rotate", nil)
	case 1:
		err = c.registerShown(ctx, key)
	case 4:
		var got answer
		got, err = c.request(ctx, http.MethodGet, "keys/"+key.name, nil)
		if err == nil && got.data["staged_version"] != float64(0) {
			_, err = c.request(ctx, http.MethodPost, "keys/"+key.name+"/activate", fields("force", true))
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

func (c *churn) readCreds(ctx context.Context, key *churnedKey) error {
	_, err := c.request(ctx, http.MethodGet, "creds/"+key.name, nil)
	return err
}

// request wants one of these statuses, or any success where none is given.
func (c *churn) request(ctx context.Context, method, path string, body any, statuses ...int) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	got, err := c.m.request(ctx, method, "/v1/"+c.m.path+"/"+path, nil, body)
	if err != nil {
		return got, err
	}
	if wanted := got.status < 300 || slices.Contains(statuses, got.status); !wanted {
		return got, fmt.Errorf("%s %s: %d %s", method, path, got.status, got.errorText())
	}
	return got, nil
}

// registerShown registers the public key that a read shows: the staged one, or else the active one.
func (c *churn) registerShown(ctx context.Context, key *churnedKey) error {
	got, err := c.request(ctx, http.MethodGet, "keys/"+key.name, nil)
	if err != nil {
		return err
	}
	shown, _ := got.data["public_key"].(string)
	return c.register(ctx, key, shown)
}

func (c *churn) register(ctx context.Context, key *churnedKey, publicKey string) error {
	key.registered = publicKey
	return c.p.put(ctx, keycloak.PortalClient(key.clientID, publicKey))
}

// destroyOthers destroys each version that is not active and that the provider does not know.
func (c *churn) destroyOthers(ctx context.Context, key *churnedKey) error {
	got, err := c.request(ctx, http.MethodGet, "keys/"+key.name, nil)
	if err != nil {
		return err
	}
	versions, _ := got.data["versions"].(map[string]any)
	registered, err := keyIDOf(key.registered)
	if err != nil {
		return err
	}
	for number, version := range versions {
		version, _ := version.(map[string]any)
		if version["state"] == "active" || version["key_id"] == registered {
			continue
		}
		if _, err := c.request(ctx, http.MethodPost, "keys/"+key.name+"/destroy", fields("version", number)); err != nil {
			return err
		}
	}
	return nil
}

// requireWhole looks at every key after a kill: it is as before or as after what was being done, and gets a token from the provider as that is.
func (c *churn) requireWhole(t *testing.T) {
	t.Helper()
	for _, key := range c.keys {
		if key.pem != "" && c.m.do(t, http.MethodGet, "roles/"+key.name, nil, nil).status == http.StatusNotFound {
			require.NoError(t, c.imports(t.Context(), key), "the import is done again")
		}
		got := c.m.read(t, "keys/"+key.name)
		versions, ok := got.data["versions"].(map[string]any)
		require.True(t, ok)
		newest := 0
		registered, err := keyIDOf(key.registered)
		require.NoError(t, err)
		known := false
		for number := range versions {
			n, err := strconv.Atoi(number)
			require.NoError(t, err)
			newest = max(newest, n)
			known = known || got.version(t, n, "key_id") == registered
		}
		require.True(t, known, "%s lost the version that the provider knows", key.name)
		require.Contains(t, versions, strconv.Itoa(got.number(t, "active_version")))
		if staged := got.number(t, "staged_version"); staged != 0 {
			require.Equal(t, newest, staged)
		}
		require.NoError(t, c.readCreds(t.Context(), key), "%s after the kill", key.name)
		c.requireCountsOn(t, key, newest)
	}
}

// requireCountsOn wants the next version's number to be one that was never given.
func (c *churn) requireCountsOn(t *testing.T, key *churnedKey, newest int) {
	t.Helper()
	got := c.m.read(t, "keys/"+key.name)
	if got.number(t, "staged_version") != 0 {
		key.highest = max(key.highest, newest)
		return
	}
	require.NoError(t, c.destroyOthers(t.Context(), key)) // so that there is room
	staged := c.m.write(t, "keys/"+key.name+"/rotate", nil).number(t, "staged_version")
	require.Greater(t, staged, key.highest, "%s used a number again", key.name)
	key.highest = staged
	c.m.write(t, "keys/"+key.name+"/destroy", map[string]any{"version": staged}) // now nothing but the count knows of it
}

// raftVault is a Vault server of one test's own, whose data outlives its process.
type raftVault struct {
	*vaultServer
	unsealKey string
}

func startRaftVault(t *testing.T) *raftVault {
	t.Helper()
	dir, err := temporaryDirectory()
	require.NoError(t, err)
	address, err := freeAddress()
	require.NoError(t, err)
	cluster, err := freeAddress()
	require.NoError(t, err)
	v := &raftVault{vaultServer: &vaultServer{Command: shared.Vault.Command, Address: address, Dir: dir}}
	t.Cleanup(func() {
		if v.PID != 0 {
			_ = syscall.Kill(-v.PID, syscall.SIGKILL)
			<-v.exited
		}
		require.NoError(t, os.RemoveAll(dir))
	})
	for _, folder := range []string{v.pluginDirectory(), v.home(), filepath.Join(dir, "raft")} {
		require.NoError(t, os.Mkdir(folder, 0o700))
	}
	copyFile(t, filepath.Join(shared.Vault.pluginDirectory(), pluginName), filepath.Join(v.pluginDirectory(), pluginName))
	config := fmt.Sprintf(`
		plugin_directory     = %q
		raw_storage_endpoint = true
		disable_mlock        = true
		log_level            = "debug"
		api_addr             = "http://%s"
		cluster_addr         = "http://%s"
		listener "tcp" {
			address         = "%s"
			cluster_address = "%s"
			tls_disable     = true
		}
		storage "raft" {
			path                   = %q
			node_id                = "one"
			performance_multiplier = 1
		}`, v.pluginDirectory(), address, cluster, address, cluster, filepath.Join(dir, "raft"))
	require.NoError(t, os.WriteFile(v.configFile(), []byte(config), 0o600))

	v.launch(t)
	client, err := v.client(nil)
	require.NoError(t, err)
	var made *api.InitResponse
	require.Eventually(t, func() bool {
		made, err = client.Sys().InitWithContext(t.Context(), &api.InitRequest{SecretShares: 1, SecretThreshold: 1})
		return err == nil
	}, startTimeout, 50*time.Millisecond, "vault operator init")
	v.RootToken, v.unsealKey = made.RootToken, made.KeysB64[0]
	v.unseal(t)
	client.SetToken(v.RootToken)
	require.NoError(t, v.register(t.Context(), client, pluginName, pluginName, pluginVersion))
	return v
}

func (v *raftVault) configFile() string { return filepath.Join(v.Dir, "vault.hcl") }

func (v *raftVault) newMount(t *testing.T) *mount {
	t.Helper()
	client, err := v.client(shared.witness)
	require.NoError(t, err)
	m := &mount{path: "killed", client: client}
	require.NoError(t, client.Sys().MountWithContext(t.Context(), m.path, &api.MountInput{Type: pluginName}))
	info, err := client.Sys().GetMountWithContext(t.Context(), m.path)
	require.NoError(t, err)
	m.uuid = info.UUID
	return m
}

func (v *raftVault) launch(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(v.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	defer log.Close()
	v.cmd = exec.Command(v.Command, "server", "-config="+v.configFile())
	v.cmd.Env = v.environment()
	v.cmd.Stdout, v.cmd.Stderr = log, log
	v.cmd.SysProcAttr = dieWithParent()
	v.cmd.SysProcAttr.Setpgid = true // so that its plugins can be killed with it
	require.NoError(t, v.cmd.Start())
	v.PID = v.cmd.Process.Pid
	exited := make(chan struct{})
	v.exited = exited
	cmd := v.cmd
	go func() {
		_ = cmd.Wait() // a killed server has no exit status worth telling
		close(exited)
	}()
}

func (v *raftVault) unseal(t *testing.T) {
	t.Helper()
	client, err := v.client(nil)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		status, err := client.Sys().UnsealWithContext(t.Context(), v.unsealKey)
		return err == nil && !status.Sealed
	}, startTimeout, 50*time.Millisecond, "vault operator unseal")
	require.Eventually(t, func() bool {
		health, err := client.Sys().HealthWithContext(t.Context())
		return err == nil && !health.Sealed && !health.Standby
	}, startTimeout, 50*time.Millisecond, "active")
}

// kill ends the server and its plugins as a power cut does.
func (v *raftVault) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, syscall.Kill(-v.PID, syscall.SIGKILL))
	<-v.exited
}

func (v *raftVault) restart(t *testing.T) {
	t.Helper()
	v.launch(t)
	v.unseal(t)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	source, err := os.Open(from)
	require.NoError(t, err)
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o700)
	require.NoError(t, err)
	_, err = io.Copy(target, source)
	require.NoError(t, errors.Join(err, target.Close()))
}
