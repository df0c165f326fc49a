package backend

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-secure-stdlib/parseutil"
	"github.com/hashicorp/vault/sdk/framework"
)

// setting is one field of an entry T that an operator writes and reads back. What a path documents, takes, checks,
// restores and echoes follows from its list of settings.
type setting[T any] struct {
	name    string
	schema  *framework.FieldSchema
	assign  func(entry *T, value any) error
	restore func(entry, defaults *T)
	echo    func(entry *T) any
}

// newSetting describes the field of T that at points to. V is the Go type that convert gives for kind. clean checks a
// value and returns it in its normal form; its error completes the sentence "<name>: …".
func newSetting[T, V any](name string, kind framework.FieldType, description string, at func(*T) *V, clean func(V) (V, error)) setting[T] {
	return setting[T]{
		name:   name,
		schema: &framework.FieldSchema{Type: kind, Description: description},
		assign: func(entry *T, value any) error {
			cleaned, err := clean(value.(V))
			if err != nil {
				return err
			}
			*at(entry) = cleaned
			return nil
		},
		restore: func(entry, defaults *T) { *at(entry) = *at(defaults) },
		echo:    func(entry *T) any { return echo(*at(entry)) },
	}
}

func (s setting[T]) allowing(values ...string) setting[T] {
	s.schema.AllowedValues = allowed(values)
	return s
}

// allowed is a list as FieldSchema.AllowedValues takes it.
func allowed[S ~string](values []S) []any {
	list := make([]any, len(values))
	for i, value := range values {
		list[i] = string(value)
	}
	return list
}

// echo gives a value the type that answers show it with, so that what was read can be written back and be equal.
func echo(value any) any {
	switch v := value.(type) {
	case time.Duration:
		return int64(v / time.Second)
	case []string:
		return append([]string{}, v...)
	default:
		return v
	}
}

// apply writes the settings that the request names: an absent field keeps its value, an empty one (or null) restores its
// default. The entry is changed only as far as the first error.
func apply[T any](settings []setting[T], entry, defaults *T, data map[string]any) error {
	for _, s := range settings {
		raw, present := data[s.name]
		if !present {
			continue
		}
		value, err := convert(s.schema.Type, raw)
		if err != nil {
			return userErrorf("%s: %w", s.name, err)
		}
		if value == nil {
			s.restore(entry, defaults)
			continue
		}
		if err := s.assign(entry, value); err != nil {
			return userErrorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func echoAll[T any](settings []setting[T], entry *T) map[string]any {
	data := make(map[string]any, len(settings))
	for _, s := range settings {
		data[s.name] = s.echo(entry)
	}
	return data
}

// schemas returns the fields of a path: its settings and others.
func schemas[T any](settings []setting[T], others map[string]*framework.FieldSchema) map[string]*framework.FieldSchema {
	fields := make(map[string]*framework.FieldSchema, len(settings)+len(others))
	for _, s := range settings {
		fields[s.name] = s.schema
	}
	maps.Copy(fields, others)
	return fields
}

func anyValue[V any](value V) (V, error) { return value, nil }

// convert reads a request's value as kind, without the framework's lax conversions (5.7 as the integer 5, true as the
// string "1"). It returns nil for an empty value, which restores a default. A command line can only send strings, so
// that numbers and booleans are taken in that form too.
func convert(kind framework.FieldType, raw any) (any, error) {
	if raw == nil {
		return nil, nil
	}
	if text, ok := raw.(string); ok && strings.TrimSpace(text) == "" {
		return nil, nil
	}
	switch kind {
	case framework.TypeString:
		return convertString(raw)
	case framework.TypeBool:
		return convertBool(raw)
	case framework.TypeInt:
		return convertInt(raw)
	case framework.TypeDurationSecond:
		return convertDuration(raw)
	case framework.TypeCommaStringSlice:
		if text, ok := raw.(string); ok {
			raw = strings.Split(text, ",")
		}
		return convertList(raw)
	case framework.TypeStringSlice:
		if text, ok := raw.(string); ok {
			raw = []string{text}
		}
		return convertList(raw)
	}
	return nil, fmt.Errorf("has the unknown type %s", kind)
}

func convertString(raw any) (any, error) {
	text, ok := raw.(string)
	if !ok {
		return nil, fmt.Errorf("must be a string, not %s", jsonKind(raw))
	}
	return text, nil
}

func convertBool(raw any) (any, error) {
	switch v := raw.(type) {
	case bool:
		return v, nil
	case string:
		if value, err := strconv.ParseBool(strings.TrimSpace(v)); err == nil {
			return value, nil
		}
		return nil, errors.New("must be true or false")
	}
	return nil, fmt.Errorf("must be true or false, not %s", jsonKind(raw))
}

func convertInt(raw any) (any, error) {
	number, ok := wholeNumber(raw)
	switch _, isText := raw.(string); {
	case !ok && isText: // not quoted: it may be a secret that was pasted into the wrong field
		return nil, errors.New("must be a whole number")
	case !ok:
		return nil, fmt.Errorf("must be a whole number, not %s", jsonKind(raw))
	case number > math.MaxInt32 || number < math.MinInt32:
		return nil, errors.New("is out of range")
	}
	return int(number), nil
}

func convertDuration(raw any) (any, error) {
	const right = "must be a duration in whole seconds, such as 90, 90s or 5m"
	var duration time.Duration
	if text, ok := raw.(string); ok {
		var err error
		if duration, err = parseutil.ParseDurationSecond(strings.TrimSpace(text)); err != nil || duration%time.Second != 0 {
			return nil, errors.New(right)
		}
	} else {
		seconds, ok := wholeNumber(raw)
		if !ok {
			return nil, fmt.Errorf("%s, not %s", right, jsonKind(raw))
		}
		duration = time.Duration(max(-1, min(seconds, math.MaxInt32))) * time.Second
	}
	if duration < 0 { // which the framework would refuse in words of its own
		return nil, errors.New("must not be negative")
	}
	return duration, nil
}

// wholeNumber reads a JSON number, or a string of one, that has no fraction.
func wholeNumber(raw any) (int64, bool) {
	var text string
	switch v := raw.(type) {
	case float64:
		// What crosses from Vault to a plugin is a float64.
		return int64(v), v == math.Trunc(v) && math.Abs(v) < 1<<53
	case int:
		return int64(v), true
	case int64:
		return v, true
	case json.Number:
		text = v.String()
	case string:
		text = strings.TrimSpace(v)
	default:
		return 0, false
	}
	number, err := strconv.ParseInt(text, 10, 64)
	return number, err == nil && strconv.FormatInt(number, 10) == text
}

func convertList(raw any) (any, error) {
	var items []string
	switch v := raw.(type) {
	case []string:
		items = append(items, v...)
	case []any:
		for _, item := range v {
			text, ok := item.(string)
			if !ok {
				return nil, fmt.Errorf("must be a list of strings, but has %s in it", jsonKind(item))
			}
			items = append(items, text)
		}
	default:
		return nil, fmt.Errorf("must be a list of strings, not %s", jsonKind(raw))
	}
	if len(items) == 0 {
		return nil, nil
	}
	for i, item := range items {
		if items[i] = strings.TrimSpace(item); items[i] == "" {
			return nil, fmt.Errorf("item %d of the list is blank", i+1)
		}
	}
	return items, nil
}

func jsonKind(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case string:
		return "a string"
	case float64, json.Number, int, int64:
		return fmt.Sprintf("the number %v", v)
	case []any, []string:
		return "a list"
	default:
		return "an object"
	}
}
