package integrationtest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
)

// mount is one mount of the plugin, for one test.
type mount struct {
	path   string // without a final slash
	uuid   string
	client *api.Client
}

// newMount mounts the plugin anew, with this configuration if any, until the test ends.
func newMount(t *testing.T, config map[string]any) *mount {
	t.Helper()
	m := mountPlugin(t, pluginName, pluginVersion)
	if config != nil {
		m.write(t, "config", config)
	}
	return m
}

func mountPlugin(t *testing.T, name, version string) *mount {
	t.Helper()
	m := unmounted(t, "jwt-"+strings.ToLower(rand.Text()))
	input := &api.MountInput{Type: name, Config: api.MountConfigInput{PluginVersion: version}}
	require.NoError(t, m.client.Sys().MountWithContext(t.Context(), m.path, input))
	m.adopt(t)
	return m
}

// unmounted is a path at which a test has yet to mount the plugin; adopt follows.
func unmounted(t *testing.T, path string) *mount {
	t.Helper()
	client, err := shared.Vault.client(shared.witness)
	require.NoError(t, err)
	return &mount{path: path, client: client}
}

// adopt makes the mount go with the test. Its private keys are made known to the witness before.
func (m *mount) adopt(t *testing.T) {
	t.Helper()
	info, err := m.client.Sys().GetMountWithContext(t.Context(), m.path)
	require.NoError(t, err)
	m.uuid = info.UUID
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if info, err := m.client.Sys().GetMountWithContext(ctx, m.path); err != nil || info == nil {
			return // the test disabled it
		}
		if err := m.showPrivateKeys(ctx); err != nil {
			t.Error(err)
		}
		if err := m.client.Sys().UnmountWithContext(ctx, m.path); err != nil {
			t.Error(err)
		}
	})
}

// answer is what Vault said.
type answer struct {
	status   int
	errors   []string
	warnings []string
	data     map[string]any
}

func (a answer) errorText() string { return strings.Join(a.errors, "\n") }

// do sends a request to a path below the mount, as a program without Vault's client library would.
func (m *mount) do(t *testing.T, method, path string, query url.Values, body any) answer {
	t.Helper()
	got, err := m.request(t.Context(), method, "/v1/"+m.path+"/"+path, query, body)
	require.NoError(t, err)
	return got
}

func (m *mount) request(ctx context.Context, method, path string, query url.Values, body any) (answer, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return answer{}, err
		}
		content = bytes.NewReader(encoded)
	}
	req, err := http.NewRequestWithContext(ctx, method, m.client.Address()+(&url.URL{Path: path, RawQuery: query.Encode()}).String(), content)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("X-Vault-Token", m.client.Token())
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := m.client.CloneConfig().HttpClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	return readAnswer(resp)
}

func readAnswer(resp *http.Response) (answer, error) {
	var body struct {
		Errors   []string       `json:"errors"`
		Warnings []string       `json:"warnings"`
		Data     map[string]any `json:"data"`
	}
	err := json.NewDecoder(resp.Body).Decode(&body)
	if errors.Is(err, io.EOF) { // 204
		err = nil
	}
	return answer{status: resp.StatusCode, errors: body.Errors, warnings: body.Warnings, data: body.Data}, err
}

func (m *mount) write(t *testing.T, path string, data map[string]any) answer {
	t.Helper()
	got := m.do(t, http.MethodPost, path, nil, data)
	require.Empty(t, got.errors, "write %s", path)
	require.Less(t, got.status, 300, "write %s", path)
	return got
}

func (m *mount) read(t *testing.T, path string) answer {
	t.Helper()
	got := m.do(t, http.MethodGet, path, nil, nil)
	require.Empty(t, got.errors, "read %s", path)
	require.Equal(t, http.StatusOK, got.status, "read %s", path)
	return got
}

func (m *mount) delete(t *testing.T, path string) {
	t.Helper()
	got := m.do(t, http.MethodDelete, path, nil, nil)
	require.Equal(t, http.StatusNoContent, got.status, "delete %s: %s", path, got.errorText())
}

// text is a field of an answer that is a string.
func (a answer) text(t *testing.T, field string) string {
	t.Helper()
	text, ok := a.data[field].(string)
	require.True(t, ok, "%s is no string", field)
	return text
}

// newClient makes a key of the mount and a client of the provider that belong together, and a role of the same name.
func (m *mount) newClient(t *testing.T, p *provider, name string, settings map[string]any) (clientID string) {
	t.Helper()
	clientID = newClientID()
	all := map[string]any{"client_id": clientID, "issuer": p.issuer}
	maps.Copy(all, settings)
	p.register(t, clientID, m.write(t, "keys/"+name, all).text(t, "public_key"))
	m.write(t, "roles/"+name, nil)
	return clientID
}

// named puts the mount's path in the place of {mount}.
func (m *mount) named(text string) string { return strings.ReplaceAll(text, "{mount}", m.path) }

// vault runs the vault command; {mount} in its arguments stands for the mount's path.
func (m *mount) vault(t *testing.T, args ...string) commandResult {
	t.Helper()
	args = slices.Clone(args)
	for i := range args {
		args[i] = m.named(args[i])
	}
	result, err := shared.Vault.run(t.Context(), args...)
	require.NoError(t, err)
	command := "vault " + strings.Join(args, " ")
	saw := shared.witness.saw
	if result.code == 0 && strings.Contains(command, "/creds/") {
		saw = shared.witness.sawToken
	}
	saw("what `"+command+"` printed", result.stdout+result.stderr)
	return result
}

// succeeds runs a vault command that must succeed, and returns what it printed on standard output.
func (m *mount) succeeds(t *testing.T, args ...string) string {
	t.Helper()
	result := m.vault(t, args...)
	require.Zero(t, result.code, "vault %s: %s", strings.Join(args, " "), result.stderr)
	return result.stdout
}

// stored is what Vault keeps at a storage path of the mount, before encryption; empty if there is nothing.
func (m *mount) stored(ctx context.Context, path string) (string, error) {
	secret, err := m.client.Logical().ReadWithContext(ctx, "sys/raw/logical/"+m.uuid+"/"+path)
	if err != nil || secret == nil {
		return "", err
	}
	value, _ := secret.Data["value"].(string)
	return value, nil
}

func (m *mount) mustBeStored(t *testing.T, path string) string {
	t.Helper()
	value, err := m.stored(t.Context(), path)
	require.NoError(t, err)
	require.NotEmpty(t, value, "nothing is stored at %s", path)
	return value
}

// showPrivateKeys makes the mount's private keys known to the witness.
func (m *mount) showPrivateKeys(ctx context.Context) error {
	if err := m.showWrappingKey(ctx); err != nil {
		return err
	}
	list, err := m.client.Logical().ListWithContext(ctx, "sys/raw/logical/"+m.uuid+"/key")
	if err != nil || list == nil {
		return err
	}
	names, _ := list.Data["keys"].([]any)
	for _, name := range names {
		name, _ := name.(string)
		keys, err := m.privateKeys(ctx, name)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if err := shared.witness.addPrivateKey(key); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *mount) showWrappingKey(ctx context.Context) error {
	stored, err := m.stored(ctx, "wrapping-key")
	if err != nil || stored == "" {
		return err
	}
	var entry struct {
		PrivateKey []byte `json:"private_key"`
	}
	if err := json.Unmarshal([]byte(stored), &entry); err != nil {
		return errors.New("the stored wrapping key is not as expected") // the cause may quote it
	}
	key, err := parsePKCS8(entry.PrivateKey)
	if err != nil {
		return fmt.Errorf("the stored wrapping key %w", err)
	}
	return shared.witness.addPrivateKey(key)
}

func parsePKCS8(der []byte) (crypto.Signer, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("is not PKCS#8") // the cause may quote it
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, errors.New("cannot sign")
	}
	return signer, nil
}

// privateKeys are those of all versions of a key.
func (m *mount) privateKeys(ctx context.Context, name string) ([]crypto.Signer, error) {
	stored, err := m.stored(ctx, "key/"+name)
	if err != nil {
		return nil, err
	}
	var entry struct {
		Versions []struct {
			PrivateKey []byte `json:"private_key"`
		} `json:"versions"`
	}
	if err := json.Unmarshal([]byte(stored), &entry); err != nil {
		return nil, errors.New("the stored key " + name + " is not as expected") // the cause may quote it
	}
	var keys []crypto.Signer
	for _, version := range entry.Versions {
		key, err := parsePKCS8(version.PrivateKey)
		if err != nil {
			return nil, fmt.Errorf("the stored private key of %s %w", name, err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}
