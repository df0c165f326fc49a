package backend

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/vault/sdk/logical"
)

// getEntry reads a stored entry into value. It says false, and leaves value alone, when there is none.
func getEntry(ctx context.Context, storage logical.Storage, path string, value any) (bool, error) {
	raw, err := storage.Get(ctx, path)
	if err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	if raw == nil {
		return false, nil
	}
	if err := raw.DecodeJSON(value); err != nil {
		return false, fmt.Errorf("read %s: the stored entry is damaged; to be rid of it, delete it", path)
	}
	return true, nil
}

func putEntry(ctx context.Context, storage logical.Storage, path string, value any) error {
	entry, err := logical.StorageEntryJSON(path, value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := storage.Put(ctx, entry); err != nil {
		return fmt.Errorf("store %s: %w", path, err)
	}
	return nil
}

// newerFormatError refuses an entry that newer code wrote. Such an entry is never overwritten.
type newerFormatError struct{ text string }

func (e *newerFormatError) Error() string { return e.text }

func newerFormat(what string, stored, known int) error {
	return &newerFormatError{fmt.Sprintf("%s was stored by a newer version of this plugin (format %d; this version reads up to %d): upgrade the plugin",
		what, stored, known)}
}

func isNewerFormat(err error) bool {
	_, newer := errors.AsType[*newerFormatError](err)
	return newer
}
