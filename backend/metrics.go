package backend

import (
	"context"
	"errors"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/storage"
	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	dto "github.com/prometheus/client_model/go"
)

// metrics holds what this mount counts on this node since the plugin started, and at each scrape
// the state of its keys. go_* and process_* are missing: one process serves many mounts.
type metrics struct {
	registry *prometheus.Registry

	exchanges         *prometheus.CounterVec
	duration          *prometheus.HistogramVec
	fallbacks         *prometheus.CounterVec
	switches          *prometheus.CounterVec
	servedLate        prometheus.Counter
	failedRevocations prometheus.Counter
	lastFailure       atomic.Pointer[lastFailure]

	mu                      sync.Mutex // a scrape sets these, then gathers all
	age, stagedAge, waiting *prometheus.GaugeVec
}

type lastFailure struct {
	at   time.Time
	kind string // a tokenendpoint.Kind, or "internal"
}

func newMetrics(b *backend) *metrics {
	registry := prometheus.NewRegistry()
	factory, issuer := promauto.With(registry), "issuer_host"
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "bcgov_jwt", Name: name, Help: help}
	}
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: "bcgov_jwt", Name: name, Help: help}
	}
	factory.NewGaugeFunc(gauge("shared_tokens", "Tokens held for roles with delivery=shared."),
		func() float64 { return float64(b.tokens.Len()) })
	factory.NewGaugeVec(gauge("build_info", "Version of the plugin; the value is 1."),
		[]string{"version", "commit"}).WithLabelValues(b.build.Version, b.build.Commit).Set(1)
	return &metrics{
		registry: registry,
		exchanges: factory.NewCounterVec(counter("exchanges_total",
			"Tokens requested of the provider, by outcome."), []string{issuer, "outcome"}),
		duration: factory.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "bcgov_jwt", Name: "exchange_duration_seconds",
			Help:    "How long exchanges took, retries included: at most request_timeout.",
			Buckets: []float64{.025, .05, .1, .25, .5, 1, 2.5, 5, 10, 45},
		}, []string{issuer}),
		fallbacks: factory.NewCounterVec(counter("fallbacks_total",
			"Exchanges that tried other versions, as the provider rejected the key."),
			[]string{issuer}),
		switches: factory.NewCounterVec(counter("version_switches_total",
			"Versions that became active because the provider accepted them."), []string{issuer}),
		servedLate: factory.NewCounter(counter("shared_tokens_served_late_total",
			"Shared tokens served within their margin, as no new one was to be had.")),
		failedRevocations: factory.NewCounter(counter("failed_revocations_total",
			"Tokens that the provider did not revoke at the end of their lease.")),
		age: factory.NewGaugeVec(gauge("key_active_version_age_seconds",
			"How long ago the version that signs was created."), []string{"key"}),
		stagedAge: factory.NewGaugeVec(gauge("key_staged_version_age_seconds",
			"How long ago the staged version was created; absent without one."), []string{"key"}),
		waiting: factory.NewGaugeVec(gauge("key_rotation_waiting",
			"Whether automatic rotation is overdue: 0 or 1."), []string{"key"}),
	}
}

// issuerHost is what labels have of an issuer.
func issuerHost(key *keyring.Key) string {
	issuer, err := url.Parse(key.Settings().Issuer)
	if err != nil {
		return ""
	}
	return issuer.Host
}

// Exchanged counts an exchange, unless the client disconnected, which says nothing about the
// provider.
func (m *metrics) Exchanged(key *keyring.Key, at time.Time, took time.Duration, err error) {
	outcome, kind := "success", ""
	failure, ofProvider := errors.AsType[*tokenendpoint.Error](err)
	switch {
	case ofProvider && failure.Reason == tokenendpoint.Canceled:
		return
	case ofProvider:
		outcome, kind = string(failure.Reason), string(failure.Reason.Kind())
	case err != nil:
		outcome, kind = "internal", "internal"
	}
	if err != nil {
		m.lastFailure.Store(&lastFailure{at, kind})
	}
	m.exchanges.WithLabelValues(issuerHost(key), outcome).Inc()
	m.duration.WithLabelValues(issuerHost(key)).Observe(took.Seconds())
}

// FellBack counts a fallback.
func (m *metrics) FellBack(key *keyring.Key) { m.fallbacks.WithLabelValues(issuerHost(key)).Inc() }

// Switched counts a switch of the active version.
func (m *metrics) Switched(key *keyring.Key) { m.switches.WithLabelValues(issuerHost(key)).Inc() }

// maxKeyMetrics is how many keys have metrics of their own. Of more, the largest value is shown,
// with an empty name.
const maxKeyMetrics = 1000

// gather returns all metrics, and of keys the state of those in memory.
func (m *metrics) gather(keys []*keyring.Key, now time.Time) ([]*dto.MetricFamily, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	largest := map[*prometheus.GaugeVec]float64{}
	set := func(gauge *prometheus.GaugeVec, name string, value float64) {
		if len(keys) > maxKeyMetrics {
			name, value = "", max(largest[gauge], value)
			largest[gauge] = value
		}
		gauge.WithLabelValues(name).Set(value)
	}
	m.age.Reset()
	m.stagedAge.Reset()
	m.waiting.Reset()
	for _, key := range keys {
		set(m.age, key.Name(), now.Sub(key.Active(now).CreationTime()).Seconds())
		if staged := key.Staged(now); staged != nil {
			set(m.stagedAge, key.Name(), now.Sub(staged.CreationTime()).Seconds())
		}
		waits := 0.0
		if key.RotationWaitsForAcceptance(now) || key.RotationWaitsForRoom(now) {
			waits = 1
		}
		set(m.waiting, key.Name(), waits)
	}
	return m.registry.Gather()
}

// totals returns the sum of each counter over its labels; "failures" are exchanges that failed.
func (m *metrics) totals() (map[string]int64, error) {
	families, err := m.registry.Gather()
	totals := map[string]int64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			value := int64(metric.GetCounter().GetValue())
			totals[family.GetName()] += value
			for _, label := range metric.GetLabel() {
				if label.GetName() == "outcome" && label.GetValue() != "success" {
					totals["failures"] += value
				}
			}
		}
	}
	return totals, err
}

// loadForMetrics loads the keys to show: at first all, unless there are too many, and later those
// that have changed.
func (b *backend) loadForMetrics(ctx context.Context, s logical.Storage) error {
	if err := b.unmeasured.seed(ctx, s); err != nil {
		return err
	}
	names := b.unmeasured.takeDue(b.now())
	if len(names) > maxKeyMetrics {
		return nil
	}
	var failed error
	for _, name := range names {
		if _, err := b.keys.get(ctx, s, name); err != nil && !storage.Unreadable(err) {
			b.unmeasured.check(name)
			failed = err
		}
	}
	return failed
}
