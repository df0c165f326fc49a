package backend

import (
	"encoding/json"
	"fmt"
	"regexp"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestKeyVersions_ReadHasAllOfOneVersion(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	first := m.read("keys/myapi").Data
	m.write("keys/myapi/rotate", nil)
	for number, want := range map[int]map[string]any{1: first, 2: m.read("keys/myapi").Data} {
		data := m.read(fmt.Sprintf("keys/myapi/versions/%d", number)).Data
		require.Equal(t, number, data["version"])
		require.Equal(t, want["public_key"], data["public_key"])
		require.Equal(t, want["key_id"], data["key_id"])
		for name, value := range m.version(number) {
			require.Equal(t, value, data[name], name)
		}
		var jwk jose.JSONWebKey
		require.NoError(t, json.Unmarshal([]byte(data["jwk"].(string)), &jwk))
		require.True(t, jwk.IsPublic())
		require.Equal(t, data["key_id"], jwk.KeyID)
		certificate := m.do(logical.ReadOperation, "keys/myapi/certificate", map[string]any{"version": number}).Data
		for name, value := range certificate {
			require.Equal(t, value, data[name], name)
		}
		require.Len(t, certificate, 5)
	}
	require.Equal(t, m.read("keys/myapi/versions/2").Data["certificate"], m.read("keys/myapi/certificate").Data["certificate"],
		"by default the one to register now")
}

func TestKeyVersions_UnknownOneIsRejected(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	m.write("keys/myapi/rotate", nil)
	m.write("keys/myapi/destroy", map[string]any{"version": 2})
	for version, text := range map[string]string{
		"0":   "version: must be at least 1, not 0",
		"-1":  "version: must be at least 1, not -1",
		"x":   "version: must be a whole number",
		"1.0": "version: must be a whole number",
		"2":   `version: key "myapi" has no version 2; it has 1`,
	} {
		require.Equal(t, text, m.refused(logical.ReadOperation, "keys/myapi/versions/"+version, nil))
		require.Equal(t, text, m.refused(logical.ReadOperation, "keys/myapi/certificate", map[string]any{"version": version}))
	}
}

func TestKeyVersions_OfAnUnknownKeyAreNotFound(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	for _, path := range []string{"certificate", "jwks", "versions/1"} {
		require.Nil(t, m.do(logical.ReadOperation, "keys/none/"+path, nil), path)
	}
	require.Nil(t, m.do(logical.ListOperation, "keys/none/versions", nil))
}

func TestList_ShowsEachKeysState(t *testing.T) {
	t.Parallel()
	m, p := newReadyMount(t)
	registered := map[string]any{"type": "ed25519", "client_id": "c", "issuer": p.issuer()}
	for _, name := range []string{"waiting", "staged", "disabled"} {
		m.write("keys/"+name, registered)
	}
	m.write("keys/disabled", map[string]any{"disabled": true})
	m.write("keys/staged/rotate", nil)
	m.write("keys/unregistered", map[string]any{"type": "ed25519", "client_id": "c"})
	m.write("keys/damaged", registered)
	require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: "key/damaged", Value: []byte("{")}))
	m.read("creds/myapi")

	rows := m.rows("keys/")
	require.Len(t, rows, 6)
	require.Equal(t, map[string]any{
		"type": "ed25519", "client_id": "my-client", "issuer": p.issuer(), "active_version": 1, "staged_version": 0, "state": "ready",
	}, rows["myapi"])
	for _, name := range []string{"waiting", "staged", "disabled", "unregistered"} {
		require.Equal(t, name, rows[name].(map[string]any)["state"])
	}
	require.Equal(t, 2, rows["staged"].(map[string]any)["staged_version"])
	require.Equal(t, map[string]any{"state": "unreadable"}, rows["damaged"])
}

func TestList_ShowsEachRole(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	m.write("roles/other", map[string]any{"key": "myapi", "delivery": "shared", "scopes": "a,b"})
	require.Equal(t, map[string]any{
		"myapi": map[string]any{"key": "myapi", "delivery": "leased", "scopes": []string{}},
		"other": map[string]any{"key": "myapi", "delivery": "shared", "scopes": []string{"a", "b"}},
	}, m.rows("roles/"))
}

// TestList_ReadsEachEntryAndCachesNone: a list of thousands parses no private key.
func TestList_ReadsEachEntryAndCachesNone(t *testing.T) {
	t.Parallel()
	m := mountOver(t, format1Storage(t), &clock{})
	names := m.list("keys/")
	require.NotEmpty(t, names)
	require.Len(t, m.rows("roles/"), len(m.list("roles/")))
	require.Empty(t, m.keys.values)
	require.Empty(t, m.roles.values)

	for path, entry := range m.storage.entries(t) {
		entry = regexp.MustCompile(`"private_key":"[^"]+"`).ReplaceAllString(entry, `"private_key":"AAAA"`)
		require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: path, Value: []byte(entry)}))
	}
	for _, name := range names {
		require.NotEqual(t, "unreadable", m.rows("keys/")[name].(map[string]any)["state"], "no private key is parsed")
	}
	_, err := m.handle(t.Context(), logical.ReadOperation, "keys/"+names[0], nil)
	require.ErrorContains(t, err, "damaged", "a read parses it")
}

func TestList_OfKeysThatFailsIsAnError(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	m.storage.failNth(2, func(v verb) bool { return !v.writes() })
	_, err := m.handle(t.Context(), logical.ListOperation, "keys/", nil)
	require.ErrorIs(t, err, errStorage)
}

func TestKeyVersions_ListHasTheInstants(t *testing.T) {
	t.Parallel()
	m, _ := newReadyMount(t)
	m.read("creds/myapi")
	row := m.version(1)
	for _, field := range []string{"creation_time", "activation_time", "accepted_time"} {
		_, err := time.Parse(time.RFC3339, row[field].(string))
		require.NoError(t, err, field)
	}
	require.Empty(t, row["expire_time"])
	require.Len(t, row, 8)
}
