package harness

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// RawPath returns the path below sys/raw of a storage path of the mount.
func (m *Mount) RawPath(path string) string { return "sys/raw/" + m.storage + path }

// Stored returns what is stored at a storage path of the mount, before encryption.
func (m *Mount) Stored(t *testing.T, path string) string {
	t.Helper()
	value, err := m.stored(t.Context(), path)
	require.NoError(t, err)
	require.NotEmpty(t, value, "nothing is stored at %s", path)
	return value
}

// stored returns an empty string if nothing is stored.
func (m *Mount) stored(ctx context.Context, path string) (string, error) {
	secret, err := m.Client.WithNamespace("").Logical().ReadWithContext(ctx, m.RawPath(path))
	if err != nil || secret == nil {
		return "", err
	}
	value, _ := secret.Data["value"].(string)
	return value, nil
}

// StoredNames returns the names below a storage path of the mount.
func (m *Mount) StoredNames(t *testing.T, path string) []string {
	t.Helper()
	names, err := m.storedNames(t.Context(), path)
	require.NoError(t, err)
	require.NotEmpty(t, names, "nothing is stored below %s", path)
	return names
}

func (m *Mount) storedNames(ctx context.Context, path string) (names []string, err error) {
	list, err := m.Client.WithNamespace("").Logical().ListWithContext(ctx, m.RawPath(path))
	if err != nil || list == nil {
		return nil, err
	}
	keys, _ := list.Data["keys"].([]any)
	for _, key := range keys {
		name, _ := key.(string)
		names = append(names, name)
	}
	return names, nil
}

// RecordPrivateKeys records the mount's private keys. A test calls it before it deletes any.
func (m *Mount) RecordPrivateKeys(t *testing.T) {
	t.Helper()
	require.NoError(t, m.recordPrivateKeys(t.Context()))
}

func (m *Mount) recordPrivateKeys(ctx context.Context) error {
	if err := m.recordWrappingKey(ctx); err != nil {
		return err
	}
	names, err := m.storedNames(ctx, "key")
	if err != nil {
		return err
	}
	for _, name := range names {
		keys, err := m.privateKeys(ctx, name)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if err := Detector().AddPrivateKey(key); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *Mount) recordWrappingKey(ctx context.Context) error {
	stored, err := m.stored(ctx, "wrapping-key")
	if err != nil || stored == "" {
		return err
	}
	var entry struct {
		PrivateKey []byte `json:"private_key"`
	}
	if err := json.Unmarshal([]byte(stored), &entry); err != nil {
		// The cause may quote it.
		return errors.New("the stored wrapping key has an unexpected form")
	}
	key, err := parsePKCS8(entry.PrivateKey)
	if err != nil {
		return fmt.Errorf("the stored wrapping key %w", err)
	}
	return Detector().AddPrivateKey(key)
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

// PrivateKeys returns the stored private keys of all versions of a key.
func (m *Mount) PrivateKeys(t *testing.T, name string) []crypto.Signer {
	t.Helper()
	keys, err := m.privateKeys(t.Context(), name)
	require.NoError(t, err)
	return keys
}

func (m *Mount) privateKeys(ctx context.Context, name string) ([]crypto.Signer, error) {
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
		// The cause may quote it.
		return nil, fmt.Errorf("the stored key %s has an unexpected form", name)
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
