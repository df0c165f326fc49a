package exchange

import (
	"sync"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/keyring"
)

const (
	// A round in vain is not repeated for so long: what is not registered does not become so by asking more often.
	vainPause = 5 * time.Second
	// What is learned of a key is stored at most so often, so that a provider whose nodes disagree does not make Vault
	// write on every read.
	storePause = time.Minute
	// With jwks the active version is tried again after so long: an unknown kid makes Keycloak read the document again, if
	// the last time was more than 10 whole seconds ago.
	jwksPreference = 11 * time.Second
	// A key that worked so lately is known to some node of the provider.
	lately = time.Minute
)

// memories hold what this node learned, by the keys' own ids.
type memories struct {
	mu   sync.Mutex
	byID map[string]*memory
}

func (m *memories) of(id string) *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := m.byID[id]
	if known == nil {
		known = &memory{}
		if m.byID == nil {
			m.byID = map[string]*memory{}
		}
		m.byID[id] = known
	}
	return known
}

// Signing is the version that would sign for a key now: the active one, unless another is known to work in its place.
func (e *Exchanger) Signing(key *keyring.Key) *keyring.Version {
	return e.memories.of(key.ID()).choose(key, e.now())
}

// Forget drops what was learned of a key that was deleted.
func (e *Exchanger) Forget(id string) {
	e.memories.mu.Lock()
	defer e.memories.mu.Unlock()
	delete(e.memories.byID, id)
}

// memory is what this node learned of one key.
type memory struct {
	mu sync.Mutex

	preferred   int       // the version that worked in place of the active one; 0: none
	insteadOf   int       // the version that was active then
	preferredAt time.Time // since when

	workedAt  time.Time     // when any version last worked
	round     chan struct{} // closed at the end of the round that is under way; nil: none is
	vainUntil time.Time     // no new round before
	storedAt  time.Time     // when something learned was last stored, or tried to
	storedFor int           // the highest version that was then about
}

// choose returns the version to sign with: the active one, unless another is known to work in its place.
func (m *memory) choose(key *keyring.Key, now time.Time) *keyring.Version {
	m.mu.Lock()
	defer m.mu.Unlock()
	active := key.Active(now)
	if m.preferred == 0 || m.insteadOf != active.Number() {
		return active
	}
	if key.Settings().Registration == keyring.ByJWKS && now.Sub(m.preferredAt) >= jwksPreference {
		return active
	}
	for _, v := range key.Live(now) {
		if v.Number() == m.preferred {
			return v
		}
	}
	return active
}

// worked notes that a version was accepted while another, or the same, was active. Only a refusal of the active one makes
// another one preferred: a preference that renewed itself would never give the active one another try.
func (m *memory) worked(version, active int, evidence evidence, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.workedAt = now
	switch {
	case version == active:
		m.preferred = 0
	case evidence == afterRefusal:
		m.preferred, m.insteadOf, m.preferredAt = version, active, now
	}
}

func (m *memory) workedLately(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.workedAt.IsZero() && now.Sub(m.workedAt) < lately
}

// enterRound begins a round (leads), or returns the channel that the end of the present one closes. Both are empty where
// a round was in vain just now.
func (m *memory) enterRound(now time.Time) (verdict <-chan struct{}, leads bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.round != nil {
		return m.round, false
	}
	if now.Before(m.vainUntil) {
		return nil, false
	}
	m.round = make(chan struct{})
	return m.round, true
}

func (m *memory) leaveRound(inVain bool, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	close(m.round)
	m.round = nil
	m.vainUntil = time.Time{}
	if inVain {
		m.vainUntil = now.Add(vainPause)
	}
}

// mayStore says whether to store something learned of a version now, and notes that it is. For a version that nothing was
// stored about yet it is worth it at once: that is a rotation.
func (m *memory) mayStore(version int, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if version <= m.storedFor && now.Sub(m.storedAt) < storePause {
		return false
	}
	m.storedAt, m.storedFor = now, max(version, m.storedFor)
	return true
}
