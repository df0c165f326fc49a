package backend

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-secure-stdlib/parseutil"
	"github.com/hashicorp/vault/sdk/framework"
)

// convert returns a request's value as kind, without the framework's lax conversions (5.7 to the
// integer 5, true to the string "1"). It returns nil for an empty value, which restores a default.
// Vault's CLI only sends strings, so numbers and booleans are accepted in that form too.
func convert(kind framework.FieldType, raw any) (any, error) {
	text, isText := raw.(string)
	if raw == nil || isText && strings.TrimSpace(text) == "" {
		return nil, nil
	}
	switch kind {
	case framework.TypeString:
		if isText {
			return text, nil
		}
		return nil, mismatch("must be a string", raw)
	case framework.TypeBool:
		return convertBool(raw)
	case framework.TypeInt:
		return convertInt(raw)
	case framework.TypeDurationSecond:
		return convertDuration(raw)
	case framework.TypeCommaStringSlice:
		if isText {
			raw = strings.Split(text, ",")
		}
		return convertList(raw)
	case framework.TypeStringSlice:
		if isText {
			raw = []string{text}
		}
		return convertList(raw)
	}
	return nil, fmt.Errorf("has unknown type %s", kind)
}

// mismatch returns the error for a value that is not what is wanted. It does not quote a string,
// which may be a misplaced secret.
func mismatch(want string, raw any) error {
	if _, isText := raw.(string); isText {
		return errors.New(want)
	}
	return fmt.Errorf("%s, not %s", want, jsonKind(raw))
}

func convertBool(raw any) (any, error) {
	if value, ok := raw.(bool); ok {
		return value, nil
	}
	text, _ := raw.(string)
	if value, err := strconv.ParseBool(strings.TrimSpace(text)); err == nil {
		return value, nil
	}
	return nil, mismatch("must be true or false", raw)
}

func convertInt(raw any) (any, error) {
	number, ok := wholeNumber(raw)
	switch {
	case !ok:
		return nil, mismatch("must be a whole number", raw)
	case number > math.MaxInt32 || number < math.MinInt32:
		return nil, errors.New("is out of range")
	}
	return int(number), nil
}

func convertDuration(raw any) (any, error) {
	const want = "must be a duration in whole seconds, such as 90, 90s or 5m"
	seconds, ok := wholeNumber(raw)
	duration := time.Duration(max(-1, min(seconds, math.MaxInt32))) * time.Second
	if text, isText := raw.(string); isText {
		var err error
		duration, err = parseutil.ParseDurationSecond(strings.TrimSpace(text))
		ok = err == nil && duration%time.Second == 0
	}
	switch {
	case !ok:
		return nil, mismatch(want, raw)
	case duration < 0: // otherwise the framework rejects it in its own words
		return nil, errors.New("must not be negative")
	}
	return duration, nil
}

// wholeNumber converts a JSON number, or a string of one, without a fraction.
func wholeNumber(raw any) (int64, bool) {
	var text string
	switch v := raw.(type) {
	case float64:
		// Vault sends numbers to plugins as float64.
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
				return nil, fmt.Errorf("must be a list of strings, but contains %s", jsonKind(item))
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
