package exchange

import (
	"errors"
	"sync"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

// Statistics counts the outcomes of this node's exchanges.
type Statistics struct {
	Exchanges       int64
	Failures        int64
	LastFailureTime time.Time // zero: none yet
	LastFailureKind string    // a tokenendpoint.Kind's name, or "internal"
}

// Statistics returns the counts so far.
func (e *Exchanger) Statistics() Statistics {
	e.statistics.mu.Lock()
	defer e.statistics.mu.Unlock()
	return e.statistics.Statistics
}

type counter struct {
	mu sync.Mutex
	Statistics
}

func (c *counter) count(err error, now time.Time) {
	failure, ok := errors.AsType[*tokenendpoint.Error](err)
	if ok && failure.Reason == tokenendpoint.Canceled {
		return // the client disconnected, which says nothing about the provider
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Exchanges++
	if err == nil {
		return
	}
	c.Failures++
	c.LastFailureTime, c.LastFailureKind = now, "internal"
	if ok {
		c.LastFailureKind = string(failure.Reason.Kind())
	}
}
