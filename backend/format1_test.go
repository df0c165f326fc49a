package backend

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

// format1Time is when the entries in testdata/format1 were last written.
var format1Time = time.Date(2026, time.November, 2, 12, 0, 0, 0, time.UTC)

// format1Storage returns a storage with the entries in testdata/format1.
func format1Storage(t *testing.T) *countingStorage {
	t.Helper()
	s := newStorage()
	root := os.DirFS(filepath.Join("testdata", "format1"))
	require.NoError(t, fs.WalkDir(root, ".", func(path string, file fs.DirEntry, err error) error {
		if err != nil || file.IsDir() || path == "README.md" {
			return err
		}
		value, err := fs.ReadFile(root, path)
		if err != nil {
			return err
		}
		return s.InmemStorage.Put(t.Context(), &logical.StorageEntry{Key: path, Value: value})
	}))
	return s
}

// format1Mount returns a mount over the entries in testdata/format1 at this time, and a provider.
func format1Mount(t *testing.T, at time.Time) (*mount, *provider) {
	t.Helper()
	m := mountOver(t, format1Storage(t), &clock{})
	p := newProvider(t, idp.Options{})
	pass(m, p, time.Until(at))
	return m, p
}

// format1Settings returns the defaults that format 1 was written with, and the changes of a key.
func format1Settings(
	name string, algorithm jose.SignatureAlgorithm, changes ...func(*keyring.Settings),
) keyring.Settings {
	settings := keyring.Settings{
		CommonName: name, Algorithm: algorithm, AssertionTTL: 45 * time.Second, SendKeyID: true, Registration: keyring.Manual,
		AllowedRoles: []string{"*"}, PrepublishPeriod: 5 * time.Minute, OverlapPeriod: 24 * time.Hour,
	}
	for _, change := range changes {
		change(&settings)
	}
	return settings
}

func TestFormat1_KeysAreReadAsWritten(t *testing.T) {
	t.Parallel()
	const issuer = "https://dev.loginproxy.gov.bc.ca/auth/realms/apigw"
	m, _ := format1Mount(t, format1Time)
	want := map[string]struct {
		settings keyring.Settings
		versions []string // number, origin, state, activation, acceptance
	}{
		"rsa-2048": {
			settings: format1Settings("My API", jose.PS384, func(s *keyring.Settings) {
				s.DeletionAllowed, s.ClientID, s.Issuer, s.Audience = true, "ABC-DEV", issuer, "https://audience.example"
				s.TokenEndpoint = issuer + "/protocol/openid-connect/token"
				s.RevocationEndpoint = issuer + "/protocol/openid-connect/revoke"
				s.AssertionTTL, s.SendKeyID = time.Minute, false
				s.PrepublishPeriod, s.OverlapPeriod = 10*time.Minute, 48*time.Hour
			}),
			versions: []string{
				"3 generated staged",
				"2 generated active 11:00 by provider, accepted 11:00",
				"1 generated retired 09:00 by creation, accepted 09:00",
			},
		},
		"ecdsa-p256": {
			settings: format1Settings("ecdsa-p256", jose.ES256, func(s *keyring.Settings) {
				s.Registration, s.AutoRotatePeriod, s.ClientID, s.Issuer = keyring.ByJWKS, 720*time.Hour, "ABC-TEST", issuer
			}),
			versions: []string{"2 generated staged 12:05 by schedule", "1 generated active 12:00 by creation, accepted 12:00"},
		},
		"ecdsa-p521": {
			settings: format1Settings("ecdsa-p521", jose.ES512),
			versions: []string{"2 generated active 12:00 by operator", "1 generated retired 12:00 by creation"},
		},
		"rsa-3072": {
			settings: format1Settings("rsa-3072", jose.RS256, func(s *keyring.Settings) { s.Disabled = true }),
			versions: []string{"1 generated active 12:00 by creation"},
		},
		"rsa-4096": {
			settings: format1Settings("rsa-4096", jose.RS256),
			versions: []string{"1 imported active 12:00 by creation"},
		},
		"ecdsa-p384": {
			settings: format1Settings("ecdsa-p384", jose.ES384),
			versions: []string{"1 generated active 12:00 by creation"},
		},
		"ed25519": {
			settings: format1Settings("ed25519", jose.EdDSA),
			versions: []string{"1 generated active 12:00 by creation"},
		},
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(want)), m.list("keys/"))
	for name, want := range want {
		key, err := keyring.Load(t.Context(), m.storage, name)
		require.NoError(t, err)
		require.Equal(t, name, string(key.Type()), "keys are named by their types")
		require.Equal(t, want.settings, key.Settings(), name)
		require.Equal(t, want.versions, versionLines(key, m.now()), name)
	}
	require.Equal(t, 3, m.write("keys/ecdsa-p384/rotate", nil).Data["staged_version"], "the destroyed version's number is not reused")
}

// versionLines describes the versions of a key, newest first.
func versionLines(key *keyring.Key, now time.Time) []string {
	var lines []string
	for _, v := range key.Versions() {
		line := fmt.Sprintf("%d %s %s", v.Number(), v.Origin(), key.State(v, now))
		if !v.ActivationTime().IsZero() {
			line += fmt.Sprintf(" %s by %s", v.ActivationTime().Format("15:04"), v.ActivatedBy())
		}
		if !v.AcceptedTime().IsZero() {
			line += ", accepted " + v.AcceptedTime().Format("15:04")
		}
		lines = append(lines, line)
	}
	return lines
}

func TestFormat1_RolesAndConfigAreReadAsWritten(t *testing.T) {
	t.Parallel()
	m, _ := format1Mount(t, format1Time)
	want := map[string]role{
		"rsa-2048": {Key: "rsa-2048", Delivery: leasedDelivery},
		"shared":   {Key: "ecdsa-p256", Delivery: sharedDelivery},
		"unleased": {Key: "ed25519", Delivery: unleasedDelivery},
		"everything": {
			Key: "rsa-2048", Delivery: leasedDelivery, Scopes: []string{"openid", "a.read"},
			Parameters:    []string{"resource=https://api.example/v1", "audience=one=two"},
			RefreshMargin: 90 * time.Second, RevokeTokens: true, AllowAssertion: true,
		},
	}
	require.ElementsMatch(t, slices.Collect(maps.Keys(want)), m.list("roles/"))
	for name, want := range want {
		found, err := loadRole(t.Context(), m.storage, name)
		require.NoError(t, err)
		key, err := keyring.Load(t.Context(), m.storage, want.Key)
		require.NoError(t, err)
		want.Format, want.KeyID = 1, key.ID()
		require.Equal(t, want, *found, name)
		require.Contains(t, m.read("keys/" + want.Key).Data["roles"], name, "by the index")
	}

	settings, err := readConfigEntry(t.Context(), m.storage)
	require.NoError(t, err)
	require.Contains(t, settings.CACert, "-----BEGIN CERTIFICATE-----\n")
	settings.CACert = ""
	require.Equal(t, tokenendpoint.Config{
		AllowedHosts: []string{"*.loginproxy.gov.bc.ca"}, RequestTimeout: 20 * time.Second, MaxRetries: 3,
		AllowInsecure: true, ProxyURL: "http://proxy.example:3128",
	}, settings)
}

func TestFormat1_IndexesFindTheirKeys(t *testing.T) {
	t.Parallel()
	m, _ := format1Mount(t, format1Time)
	for path, value := range m.storage.entries(t) {
		var index struct {
			Name string `json:"name"`
		}
		require.NoError(t, json.Unmarshal([]byte(value), &index), path)
		if id, ok := strings.CutPrefix(path, "key-id/"); ok {
			key, err := keyring.Load(t.Context(), m.storage, index.Name)
			require.NoError(t, err)
			require.Equal(t, id, key.ID())
			require.Equal(t, key.Settings().Registration == keyring.ByJWKS, m.jwks(logical.ReadOperation, id) != nil, index.Name)
		}
		if keyID, ok := strings.CutPrefix(path, "spki/"); ok {
			name, err := keyring.NameByKeyID(t.Context(), m.storage, keyID)
			require.NoError(t, err)
			require.Equal(t, index.Name, name)
		}
	}
}

func TestFormat1_ReadsWriteNothing(t *testing.T) {
	t.Parallel()
	m, _ := format1Mount(t, format1Time)
	m.read("config")
	m.read("wrapping_key")
	for _, name := range m.list("keys/") {
		m.read("keys/" + name)
	}
	for _, name := range m.list("roles/") {
		m.read("roles/" + name)
	}
	m.runPeriodic()
	require.Zero(t, m.storage.writes())
}

func TestFormat1_WrappingKeyUnwraps(t *testing.T) {
	t.Parallel()
	m, _ := format1Mount(t, format1Time)
	private, public := newPEM(t)
	block, _ := pem.Decode([]byte(private))
	ciphertext := base64.StdEncoding.EncodeToString(wrap(t, m, sha256.New, block.Bytes))
	require.Equal(t, public, m.write("keys/imported/import", map[string]any{"ciphertext": ciphertext}).Data["public_key"])
}

// TestFormat1_KeysSignAndRotate replaces each key at the provider, when it was stored and long after its certificate expired.
func TestFormat1_KeysSignAndRotate(t *testing.T) {
	t.Parallel()
	for when, at := range map[string]time.Time{"as stored": format1Time, "20 years later": format1Time.AddDate(20, 0, 0)} {
		for _, name := range []string{"rsa-2048", "rsa-3072", "rsa-4096", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "ed25519"} {
			t.Run(name+" "+when, func(t *testing.T) {
				t.Parallel()
				m, p := format1Mount(t, at)
				m.write("config", map[string]any{"allowed_hosts": "", "ca_cert": "", "proxy_url": "", "max_retries": 0})
				m.write("keys/"+name, map[string]any{
					"client_id": "my-client", "issuer": p.issuer(), "token_endpoint": "", "revocation_endpoint": "", "audience": "",
					"send_key_id": "", "disabled": false, "deletion_allowed": true,
				})
				m.write("roles/user", map[string]any{"key": name})
				register := func() (keyID any) {
					key := m.read("keys/" + name).Data
					require.NoError(t, p.idp.PutClient("apigw", keycloak.PortalClient("my-client", key["public_key"].(string))))
					return key["key_id"]
				}
				require.Equal(t, register(), m.read("creds/user").Data["key_id"])
				pass(m, p, 72*time.Hour) // what is scheduled becomes active, what is retired expires
				m.runPeriodic()
				m.write("keys/"+name+"/rotate", nil)
				require.Equal(t, register(), m.read("creds/user").Data["key_id"])
				require.Equal(t, mountOver(t, m.storage, m.clock).read("keys/"+name), m.read("keys/"+name))

				for _, role := range m.read("keys/" + name).Data["roles"].([]string) {
					m.delete("roles/" + role)
				}
				m.delete("keys/" + name)
				for path, value := range m.storage.entries(t) {
					require.NotContains(t, path, name)
					require.NotContains(t, value, fmt.Sprintf("%q", name), path)
				}
			})
		}
	}
}
