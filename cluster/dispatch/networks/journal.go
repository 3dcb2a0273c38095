package networks

import (
	"math"
	"slices"
	"sort"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"skep/cluster"
	"skep/store"
)

const (
	// maxEntries is how many changes a journal has; half of them are forgotten when there are more.
	// Who is behind by more is told the whole account, which isn't much larger then.
	maxEntries = 4096
	// maxMessages is how many messages are kept for the sessions that are next to want the
	// same: to one index, from different ones.
	maxMessages = 16
)

// journal is what changed in the account of one network, at which index. It is guarded by its
// Hub's mutex.
type journal struct {
	networkID string
	// begin is the index from which on all changes are in entries, which are in the order of indexes.
	begin   uint64
	entries []entry
	readers map[*Reader]struct{}
	// messages are those that bring agents to the index to, by where they bring them from; the
	// whole account is from none.
	to       uint64
	messages map[uint64]*message
}

// entry is that something changed.
type entry struct {
	index uint64
	key   string
}

// message is an update, in one or more parts; encoded by the first who wants it.
type message struct {
	networkID string
	// from is fromNone in the whole account; else keys are those of what changed since.
	from, to uint64
	keys     []string

	once  sync.Once
	parts []cbor.RawMessage
	err   error
}

// fromNone is from where the whole account brings an agent.
const fromNone = math.MaxUint64

func newJournal(networkID string, begin uint64) *journal {
	return &journal{networkID: networkID, begin: begin, readers: make(map[*Reader]struct{})}
}

// reset forgets all, so that everybody is told the whole account, as of index or later.
func (j *journal) reset(index uint64) {
	j.begin, j.entries, j.messages = index, nil, nil
}

// add notes a change; most is how many the journal may have.
func (j *journal) add(index uint64, key string, most int) {
	if n := len(j.entries); n > 0 && j.entries[n-1] == (entry{index, key}) {
		return
	}
	if len(j.entries) >= most {
		cut := len(j.entries) / 2
		j.begin = j.entries[cut-1].index
		j.entries = slices.Clone(j.entries[cut:])
	}
	j.entries = append(j.entries, entry{index, key})
}

// last is the index of the last change; of the last that may have been, if it has none.
func (j *journal) last() uint64 {
	if n := len(j.entries); n > 0 {
		return j.entries[n-1].index
	}
	return j.begin
}

// after is the place of the first entry after an index.
func (j *journal) after(index uint64) int {
	return sort.Search(len(j.entries), func(i int) bool { return j.entries[i].index > index })
}

// reached is the index of the last change up to one; false when the journal doesn't know.
func (j *journal) reached(index uint64) (uint64, bool) {
	if index < j.begin {
		return 0, false
	}
	if i := j.after(index); i > 0 {
		return j.entries[i-1].index, true
	}
	return j.begin, true
}

// between are the keys of what changed after an index, up to another one.
func (j *journal) between(from, to uint64) []string {
	seen := make(map[string]bool)
	var keys []string
	for _, e := range j.entries[j.after(from):j.after(to)] {
		if !seen[e.key] {
			seen[e.key] = true
			keys = append(keys, e.key)
		}
	}
	return keys
}

// message is what brings an agent from one index to another.
func (j *journal) message(from, to uint64) *message {
	if to > j.to || j.messages == nil {
		j.to, j.messages = to, make(map[uint64]*message)
	}
	m := j.messages[from]
	if m != nil && m.to == to {
		return m
	}
	m = &message{networkID: j.networkID, from: from, to: to}
	if from != fromNone {
		m.keys = j.between(from, to)
	}
	if to == j.to && len(j.messages) < maxMessages {
		j.messages[from] = m
	}
	return m
}

// encoded is the message, which the first caller makes: in view the account is as it is at to.
func (m *message) encoded(view store.View) ([]cbor.RawMessage, error) {
	m.once.Do(func() {
		var u *cluster.NetworkUpdate
		if m.from == fromNone {
			u = fullUpdate(view, m.networkID)
		} else if u = difference(view, m.networkID, m.keys); u != nil {
			u.From = m.from
		}
		if u != nil {
			u.To = m.to
			m.parts, m.err = encode(u)
		}
	})
	return m.parts, m.err
}
