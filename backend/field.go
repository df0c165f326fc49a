package backend

import (
	"maps"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
)

// field is one setting of an entry T that an operator writes and reads back. What a path documents,
// accepts, checks, restores and shows follows from its list of fields.
type field[T any] struct {
	name    string
	schema  *framework.FieldSchema
	assign  func(entry *T, value any) error
	restore func(entry, defaults *T)
	show    func(entry *T) any
}

// newField describes the field of T that at points to. V is the Go type that convert returns for
// kind. clean validates a value and returns it in its normal form; its error completes the sentence
// "<name>: …".
func newField[T, V any](
	name string, kind framework.FieldType,
	at func(*T) *V, clean func(V) (V, error),
) field[T] {
	return field[T]{
		name:   name,
		schema: &framework.FieldSchema{Type: kind},
		assign: func(entry *T, value any) error {
			cleaned, err := clean(value.(V))
			if err != nil {
				return err
			}
			*at(entry) = cleaned
			return nil
		},
		restore: func(entry, defaults *T) { *at(entry) = *at(defaults) },
		show:    func(entry *T) any { return responseValue(*at(entry)) },
	}
}

func (f field[T]) allowing(values ...string) field[T] {
	f.schema.AllowedValues = allowed(values)
	return f
}

// allowed returns a list in the form of FieldSchema.AllowedValues.
func allowed[S ~string](values []S) []any {
	list := make([]any, len(values))
	for i, value := range values {
		list[i] = string(value)
	}
	return list
}

// responseValue returns a value in the type that responses use, so that what was read can be
// written back and be equal.
func responseValue(value any) any {
	switch v := value.(type) {
	case time.Duration:
		return int64(v / time.Second)
	case []string:
		return append([]string{}, v...)
	default:
		return v
	}
}

// apply writes the fields that the request names: an absent field keeps its value, an empty one (or
// null) restores its default. The entry is changed only up to the first error.
func apply[T any](fields []field[T], entry, defaults *T, data map[string]any) error {
	for _, f := range fields {
		raw, present := data[f.name]
		if !present {
			continue
		}
		value, err := convert(f.schema.Type, raw)
		if err != nil {
			return userErrorf("%s: %w", f.name, err)
		}
		if value == nil {
			f.restore(entry, defaults)
			continue
		}
		if err := f.assign(entry, value); err != nil {
			return userErrorf("%s: %w", f.name, err)
		}
	}
	return nil
}

func toResponse[T any](fields []field[T], entry *T) map[string]any {
	data := make(map[string]any, len(fields))
	for _, f := range fields {
		data[f.name] = f.show(entry)
	}
	return data
}

// fieldSchemas returns the fields of a path: those of its entry and others.
func fieldSchemas[T any](
	fields []field[T], others map[string]*framework.FieldSchema,
) map[string]*framework.FieldSchema {
	schemas := maps.Clone(others)
	if schemas == nil {
		schemas = map[string]*framework.FieldSchema{}
	}
	for _, f := range fields {
		schemas[f.name] = f.schema
	}
	for _, described := range fieldTexts("settings") {
		if schema := schemas[described.name]; schema != nil && schema.Description == "" {
			schema.Description = described.text
		}
	}
	return schemas
}
