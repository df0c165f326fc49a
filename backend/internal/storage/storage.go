// Package storage reads and writes JSON entries in Vault's storage and checks their format. No
// error quotes an entry.
package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"
)

// ErrDamaged reports an entry that cannot be decoded.
var ErrDamaged = errors.New("the stored entry is damaged: restore it from a backup")

// NewerFormatError reports an entry that a newer version of the plugin wrote. Such an entry must
// not be overwritten.
type NewerFormatError struct{ Format, Newest int }

func (e *NewerFormatError) Error() string {
	return fmt.Sprintf("the entry was stored by a newer version of this plugin "+
		"(format %d; this version reads up to %d): upgrade the plugin", e.Format, e.Newest)
}

// Get decodes what is stored at path into entry and reports whether there is anything. It returns a
// NewerFormatError for a format above newest. Callers add to its errors what the entry is.
func Get(ctx context.Context, s logical.Storage, path string, newest int, entry any) (bool, error) {
	raw, err := s.Get(ctx, path)
	if err != nil {
		return false, fmt.Errorf("read the entry: %w", err)
	}
	if raw == nil {
		return false, nil
	}
	var header struct {
		Format int `json:"format"`
	}
	// The format comes first: the rest of a newer entry may not decode here.
	if raw.DecodeJSON(&header) == nil && header.Format > newest {
		return false, &NewerFormatError{Format: header.Format, Newest: newest}
	}
	if raw.DecodeJSON(entry) != nil { // the cause may quote the entry
		return false, ErrDamaged
	}
	return true, nil
}

// Put stores entry as JSON.
func Put(ctx context.Context, s logical.Storage, path string, entry any) error {
	encoded, err := logical.StorageEntryJSON(path, entry)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := s.Put(ctx, encoded); err != nil {
		return fmt.Errorf("store %s: %w", path, err)
	}
	return nil
}
