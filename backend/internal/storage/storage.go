// Package storage reads and writes JSON entries in Vault's storage and checks their format. No
// error quotes an entry.
package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"
)

// DamagedError reports an entry that cannot be decoded. Such an entry may be deleted.
type DamagedError struct{ Path string }

func (e *DamagedError) Error() string { return "the stored entry is damaged" }

// NewerFormatError reports an entry that a newer version of the plugin wrote. Such an entry must
// not be overwritten.
type NewerFormatError struct{ Format, Newest int }

func (e *NewerFormatError) Error() string {
	return fmt.Sprintf("the entry was stored by a newer version of this plugin "+
		"(format %d; this version reads up to %d): upgrade the plugin", e.Format, e.Newest)
}

// IsDamaged reports whether an error is a DamagedError.
func IsDamaged(err error) bool {
	_, ok := errors.AsType[*DamagedError](err)
	return ok
}

// Unreadable reports whether an error is about what an entry holds, not about reaching it.
func Unreadable(err error) bool {
	_, newer := errors.AsType[*NewerFormatError](err)
	return newer || IsDamaged(err)
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
		return false, &DamagedError{path}
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
