package backend

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestWrappingKey_IsCreatedOnceAndKept(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.storage.failNth(1, verb.writes)
	require.Contains(t, m.failed(http.StatusInternalServerError, logical.ReadOperation, "wrapping_key", nil), errStorage.Error())
	m.storage.intercept(nil)
	require.Empty(t, m.storage.entries(t))

	var wait sync.WaitGroup
	for range 2 {
		wait.Go(func() { m.read("wrapping_key") })
	}
	wait.Wait()
	require.Equal(t, 2, m.storage.writes(), "the failed one and one more")
	public := m.read("wrapping_key").Data["public_key"].(string)
	block, rest := pem.Decode([]byte(public))
	require.Empty(t, rest)
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	require.NoError(t, err)
	require.Equal(t, 4096, parsed.(*rsa.PublicKey).N.BitLen())

	entries := m.storage.entries(t)
	require.Len(t, entries, 1)
	require.Contains(t, entries, "wrapping-key", "where the seal wraps")
	require.Contains(t, m.SpecialPaths().SealWrapStorage, "wrapping-key")
	restarted := mountOver(t, m.storage, m.clock)
	require.Equal(t, public, restarted.read("wrapping_key").Data["public_key"])
	require.NotContains(t, m.log.String(), strings.TrimSpace(entries["wrapping-key"]))
}

func TestWrappingKey_ReplacedByAnotherNodeIsReadAgain(t *testing.T) {
	t.Parallel()
	m := newMount(t)
	m.read("wrapping_key") // makes it
	first := m.read("wrapping_key").Data
	entry, err := m.storage.Get(t.Context(), "wrapping-key")
	require.NoError(t, err)
	// A newer format differs from the key in memory without generating another RSA key.
	require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: "wrapping-key", Value: []byte(`{"format":2}`)}))
	require.Equal(t, first, m.read("wrapping_key").Data, "kept in memory until invalidated")
	m.InvalidateKey(t.Context(), "wrapping-key")
	before := m.storage.entries(t)
	require.Contains(t, m.failed(http.StatusInternalServerError, logical.ReadOperation, "wrapping_key", nil), "newer version of this plugin")
	require.Contains(t, m.failed(http.StatusInternalServerError, logical.UpdateOperation, "keys/a/import", map[string]any{"ciphertext": "AAAA"}), "newer version of this plugin")
	require.Equal(t, before, m.storage.entries(t), "never overwritten")
	require.NoError(t, m.storage.Put(t.Context(), entry))
	require.Equal(t, first, m.read("wrapping_key").Data)

	require.NoError(t, m.storage.Put(t.Context(), &logical.StorageEntry{Key: "wrapping-key", Value: []byte(`{"format":"hunter2"`)}))
	m.InvalidateKey(t.Context(), "wrapping-key")
	require.NotContains(t, m.failed(http.StatusInternalServerError, logical.ReadOperation, "wrapping_key", nil), "hunter2")
}
