package backend

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMarginByRule(t *testing.T) {
	t.Parallel()
	for life, margin := range map[time.Duration]time.Duration{
		1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 10: 5, 20: 10, 30: 10, 50: 10, 51: 10, 55: 11, 60: 12, 299: 59, 300: 60, 301: 60, 3600: 60, 86400: 60,
	} {
		require.Equal(t, margin*time.Second, new(role).margin(life*time.Second), "of %d s", life)
		require.Equal(t, max(life-margin, 1)*time.Second, new(role).period(life*time.Second), "of %d s", life)
	}
}
