package backend

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
)

func TestConvert_AcceptsWhatClientsSend(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		kind framework.FieldType
		raw  any
		want any
	}{
		{framework.TypeString, "a", "a"},
		{framework.TypeString, " a ", " a "}, // trimming is up to the setting
		{framework.TypeString, "true", "true"},
		{framework.TypeBool, true, true},
		{framework.TypeBool, false, false},
		{framework.TypeBool, "true", true},
		{framework.TypeBool, "false", false},
		{framework.TypeBool, "1", true},
		{framework.TypeBool, "0", false},
		{framework.TypeBool, "TRUE", true},
		{framework.TypeInt, float64(5), 5},
		{framework.TypeInt, float64(0), 0},
		{framework.TypeInt, float64(-5), -5},
		{framework.TypeInt, json.Number("5"), 5},
		{framework.TypeInt, 5, 5},
		{framework.TypeInt, int64(5), 5},
		{framework.TypeInt, "5", 5},
		{framework.TypeInt, "0", 0},
		{framework.TypeDurationSecond, float64(90), 90 * time.Second},
		{framework.TypeDurationSecond, float64(0), time.Duration(0)},
		{framework.TypeDurationSecond, json.Number("90"), 90 * time.Second},
		{framework.TypeDurationSecond, "90", 90 * time.Second},
		{framework.TypeDurationSecond, "90s", 90 * time.Second},
		{framework.TypeDurationSecond, "1m30s", 90 * time.Second},
		{framework.TypeDurationSecond, "1000ms", time.Second},
		{framework.TypeDurationSecond, "1d", 24 * time.Hour},
		{framework.TypeDurationSecond, "0", time.Duration(0)},
		{framework.TypeCommaStringSlice, "a,b", []string{"a", "b"}},
		{framework.TypeCommaStringSlice, " a , b ", []string{"a", "b"}},
		{framework.TypeCommaStringSlice, "a b", []string{"a b"}},
		{framework.TypeCommaStringSlice, []any{"a", " b "}, []string{"a", "b"}},
		{framework.TypeCommaStringSlice, []any{"a,b"}, []string{"a,b"}},
		{framework.TypeCommaStringSlice, []string{"a"}, []string{"a"}},
		{framework.TypeStringSlice, "a=b,c", []string{"a=b,c"}},
		{framework.TypeStringSlice, []any{"a=b", "a=c"}, []string{"a=b", "a=c"}},
	} {
		t.Run(fmt.Sprintf("%s %#v", test.kind, test.raw), func(t *testing.T) {
			t.Parallel()
			value, err := convert(test.kind, test.raw)
			require.NoError(t, err)
			require.Equal(t, test.want, value)
		})
	}
}

func TestConvert_EmptyValueIsNil(t *testing.T) {
	t.Parallel()
	for _, kind := range []framework.FieldType{
		framework.TypeString, framework.TypeBool, framework.TypeInt, framework.TypeDurationSecond, framework.TypeCommaStringSlice, framework.TypeStringSlice,
	} {
		for _, empty := range []any{nil, "", " ", "\t\r\n"} {
			value, err := convert(kind, empty)
			require.NoError(t, err)
			require.Nil(t, value, "%s %#v", kind, empty)
		}
	}
	for _, kind := range []framework.FieldType{framework.TypeCommaStringSlice, framework.TypeStringSlice} {
		for _, empty := range []any{[]any{}, []string{}} {
			value, err := convert(kind, empty)
			require.NoError(t, err)
			require.Nil(t, value, "%s %#v", kind, empty)
		}
	}
}

func TestConvert_RejectsWhatTheFrameworkCoerces(t *testing.T) {
	t.Parallel()
	for _, kind := range []framework.FieldType{
		framework.TypeString, framework.TypeBool, framework.TypeInt, framework.TypeDurationSecond, framework.TypeCommaStringSlice, framework.TypeStringSlice,
	} {
		for _, raw := range wrongValues(kind) {
			sent := overJSON(t, map[string]any{"v": raw})["v"]
			value, err := convert(kind, sent)
			require.Error(t, err, "%s %#v became %#v", kind, raw, value)
			require.Nil(t, value)
		}
	}
	for _, blank := range []any{"a,,b", "a,b,", ",", []any{"a", ""}, []any{" "}} {
		_, err := convert(framework.TypeCommaStringSlice, blank)
		require.ErrorContains(t, err, "of the list is blank", "%v", blank)
	}
	_, err := convert(framework.TypeCommaStringSlice, "a,b, ,c")
	require.EqualError(t, err, "item 3 of the list is blank")
	_, err = convert(framework.TypeKVPairs, "a=b")
	require.Error(t, err, "a type that no field has")
}

func TestConvert_ErrorNamesTheTypeAndNotTheValue(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		kind framework.FieldType
		raw  any
		want string
	}{
		{framework.TypeString, 5.0, "must be a string, not the number 5"},
		{framework.TypeString, true, "must be a string, not a boolean"},
		{framework.TypeString, []any{"secret"}, "must be a string, not a list"},
		{framework.TypeString, map[string]any{"secret": 1}, "must be a string, not an object"},
		{framework.TypeBool, "secret", "must be true or false"},
		{framework.TypeInt, "secret", "must be a whole number"},
		{framework.TypeInt, 5.7, "must be a whole number, not the number 5.7"},
		{framework.TypeDurationSecond, "secret", "must be whole seconds, or a duration such as 90s, 5m or 1d"},
		{framework.TypeCommaStringSlice, []any{nil}, "must be a list of strings, but contains null"},
	} {
		_, err := convert(test.kind, test.raw)
		require.EqualError(t, err, test.want)
	}
}

func TestName_IsValidated(t *testing.T) {
	t.Parallel()
	bad := []string{
		"..", "a..b", "...", "-a", ".a", ".", "-", strings.Repeat("n", 129), "é", "a b", "a\tb", "a\n", "a:b", "a*b", "a%2Fb", "a\\b", "a\x00", "ключ", "a;b", "a=b",
	}
	good := []string{"a", "_", "0", "A.b_c-9", "a.", "a-", strings.Repeat("n", 128)}
	for path, operations := range map[string][]logical.Operation{
		"keys/":  {logical.ReadOperation, logical.UpdateOperation, logical.PatchOperation, logical.DeleteOperation},
		"roles/": {logical.ReadOperation, logical.UpdateOperation, logical.PatchOperation, logical.DeleteOperation},
		"creds/": {logical.ReadOperation},
		"check/": {logical.ReadOperation},
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			m := newMount(t)
			for _, name := range bad {
				for _, operation := range operations {
					text := m.refused(operation, path+name, nil)
					require.Contains(t, text, "is invalid; use up to 128 letters, digits", "%s %q", operation, name)
					require.Less(t, len(text), 400)
				}
			}
			m.write("keys/shared", map[string]any{"type": "ed25519"})
			for _, name := range good {
				switch path {
				case "keys/":
					m.write(path+name, map[string]any{"type": "ed25519"})
				case "roles/":
					m.write(path+name, map[string]any{"key": "shared"})
				default:
					require.Contains(t, m.refused(logical.ReadOperation, path+name, nil), "unknown role")
				}
			}
		})
	}
}
