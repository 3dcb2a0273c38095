package peers

import (
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Progress is how far another manager is in the leader's log, by its own answers.
type Progress struct {
	Index uint64
	// Heard is when it last answered.
	Heard time.Time
	// Snapshot is the size of what it is being sent, and Sent how much of that is under
	// way; zero when it is sent entries.
	Snapshot, Sent int64
}

// replication has how far each is, for each manager that the leader of a term sends to. The transport
// notes them.
type replication struct {
	mu   sync.Mutex // guards the fields below
	term uint64
	all  map[raft.ServerID]Progress
}

// note changes what is known of a manager in the term.
func (m *replication) note(id raft.ServerID, term uint64, edit func(*Progress)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if term < m.term {
		return
	}
	if term > m.term || m.all == nil {
		m.term, m.all = term, map[raft.ServerID]Progress{}
	}
	known := m.all[id]
	edit(&known)
	m.all[id] = known
}

// of is what is known in a term.
func (m *replication) of(term uint64) map[raft.ServerID]Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.term != term {
		return nil
	}
	return maps.Clone(m.all)
}
