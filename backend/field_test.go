package backend

import (
	"testing"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/stretchr/testify/require"
)

type sample struct {
	Name  string
	Count int
	List  []string
	Life  time.Duration
}

func sampleSettings() []field[sample] {
	return []field[sample]{
		newField("name", framework.TypeString, func(s *sample) *string { return &s.Name }, trimmed),
		newField("count", framework.TypeInt, func(s *sample) *int { return &s.Count }, maxRetries),
		newField("list", framework.TypeCommaStringSlice, func(s *sample) *[]string { return &s.List }, anyValue),
		newField("life", framework.TypeDurationSecond, func(s *sample) *time.Duration { return &s.Life }, anyValue),
	}
}

func TestApply_ChangesWhatTheRequestNames(t *testing.T) {
	t.Parallel()
	defaults := sample{Name: "default", Count: 2, Life: time.Minute}
	entry := sample{Name: "old", Count: 1, List: []string{"a"}, Life: time.Hour}
	require.NoError(t, apply(sampleSettings(), &entry, &defaults, map[string]any{"name": " new ", "count": nil, "other": "ignored"}))
	require.Equal(t, sample{Name: "new", Count: 2, List: []string{"a"}, Life: time.Hour}, entry)
	require.NoError(t, apply(sampleSettings(), &entry, &defaults, map[string]any{"name": "", "list": []any{}, "life": ""}))
	require.Equal(t, defaults, entry)
}

func TestApply_ErrorNamesTheField(t *testing.T) {
	t.Parallel()
	for field, test := range map[string]struct {
		value any
		want  string
	}{
		"count": {7.0, "count: must be from 0 to 5, not 7"},
		"name":  {7.0, "name: must be a string, not the number 7"},
	} {
		err := apply(sampleSettings(), &sample{}, &sample{}, map[string]any{field: test.value})
		require.EqualError(t, err, test.want)
		require.ErrorAs(t, err, &userError{})
	}
}

func TestResponse_TypesAreStable(t *testing.T) {
	t.Parallel()
	require.Equal(t, map[string]any{"name": "", "count": 0, "list": []string{}, "life": int64(0)}, toResponse(sampleSettings(), &sample{}))
	entry := &sample{Name: "n", Count: 3, List: []string{"b", "a"}, Life: 90 * time.Second}
	data := toResponse(sampleSettings(), entry)
	require.Equal(t, map[string]any{"name": "n", "count": 3, "list": []string{"b", "a"}, "life": int64(90)}, data)
	data["list"].([]string)[0] = "changed"
	require.Equal(t, []string{"b", "a"}, entry.List, "a response does not share the entry's memory")
}

func TestFieldSchemas_HoldAllowedValues(t *testing.T) {
	t.Parallel()
	fields := fieldSchemas(keyFields(), map[string]*framework.FieldSchema{"name": {Type: framework.TypeString}})
	require.Len(t, fields, len(keyFields())+1)
	require.Contains(t, fields["algorithm"].AllowedValues, any("ES256"))
	require.Len(t, fields["algorithm"].AllowedValues, len(algorithms()))
}
