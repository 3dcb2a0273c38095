package manager

import (
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster/manager/peers"
)

// A manager that joins holds nothing, and may need long until it holds what the others
// do: were it a voter at once, nothing could be written when it dies on the way, or
// another does. So it is sent the log without a vote until it has caught up, which is
// raft's own rule for autopilots: it is heard, and has been near the end of the log for a
// while. Entries are of any size, so near is counted in time: it has what the leader had
// a HeartbeatTimeout ago.

// steadyBeats is for how many Beats in a row a manager must be abreast to have caught up.
const steadyBeats = 4

// catchUp is what the leader has seen of the members without a vote; followRoles owns it.
type catchUp struct {
	beat time.Duration
	// marks are the leader's last index at looks of before, the oldest first: the first
	// one is a HeartbeatTimeout old, if there is one so old.
	marks []mark
	// since is when the row of looks began at each of which a manager was abreast.
	since map[raft.ServerID]time.Time
	// added is, for each member, how far the log surely went when it became one: whoever has
	// so much of it knows the member. It is 0 for one that has had a vote, which all know.
	added map[raft.ServerID]uint64
}

type mark struct {
	at   time.Time
	last uint64
}

func newCatchUp(beat time.Duration) *catchUp {
	return &catchUp{beat: beat, since: map[raft.ServerID]time.Time{}, added: map[raft.ServerID]uint64{}}
}

// look takes in how far all are now, when the leader's last index is last, and says why
// members without a vote haven't caught up; those that have aren't in the answer.
func (c *catchUp) look(now time.Time, last uint64, servers []raft.Server, all map[raft.ServerID]peers.Progress) (behind map[string]string) {
	c.marks = append(c.marks, mark{now, last})
	for len(c.marks) > 1 && now.Sub(c.marks[1].at) >= c.beat {
		c.marks = c.marks[1:]
	}
	behind = map[string]string{}
	abreast := map[raft.ServerID]time.Time{}
	for _, server := range servers {
		if server.Suffrage == raft.Voter {
			continue
		}
		known := all[server.ID]
		switch {
		case known.Heard.IsZero() || now.Sub(known.Heard) > c.beat:
			behind[string(server.ID)] = fmt.Sprintf("it doesn't answer at %s", server.Address)
			continue
		case known.Index < c.marks[0].last:
			behind[string(server.ID)] = progress(known, last)
			continue
		}
		abreast[server.ID] = now
		if since, was := c.since[server.ID]; was {
			abreast[server.ID] = since
		}
		if now.Sub(abreast[server.ID]) < steadyBeats*c.beat {
			behind[string(server.ID)] = progress(known, last)
		}
	}
	c.since = abreast
	return behind
}

// unaware has, for members without a vote, the voters that may not know of them, as of the
// last look. A manager hears nobody whom it doesn't know: if such a member had a vote, and
// the leader were lost, the others might have no leader though they are a majority. So a
// manager votes when all that vote know it; peers/unknownvoter.go does the rest.
func (c *catchUp) unaware(self string, last uint64, servers []raft.Server, all map[raft.ServerID]peers.Progress) map[string][]string {
	added := map[raft.ServerID]uint64{}
	for _, server := range servers {
		at, seen := c.added[server.ID]
		if server.Suffrage == raft.Voter {
			at = 0
		} else if !seen {
			at = last
		}
		added[server.ID] = at
	}
	c.added = added
	unaware := map[string][]string{}
	for id, at := range added {
		for _, server := range servers {
			if server.Suffrage == raft.Voter && string(server.ID) != self && all[server.ID].Index < at {
				unaware[string(id)] = append(unaware[string(id)], string(server.ID))
			}
		}
	}
	return unaware
}

// answers tells which managers answered in the last HeartbeatTimeout. Raft says that one doesn't only
// when a message's time is over, and a new leader's has yet to find out.
func (c *catchUp) answers(now time.Time, all map[raft.ServerID]peers.Progress) map[string]bool {
	answers := map[string]bool{}
	for id, known := range all {
		answers[string(id)] = !known.Heard.IsZero() && now.Sub(known.Heard) <= c.beat
	}
	return answers
}

// progress says how far it is, when the leader's last index is last.
func progress(m peers.Progress, last uint64) string {
	if m.Snapshot > 0 {
		return fmt.Sprintf("it was sent %d MiB of %d MiB of a snapshot", m.Sent>>20, m.Snapshot>>20)
	}
	return fmt.Sprintf("it has %d of %d entries", m.Index, last)
}

// waitReasons says what nodes wait for that are to be managers, or workers. Only a leader's are
// of interest.
type waitReasons struct {
	mu sync.Mutex // guards the fields below
	// voters are those of followRoles; unreached those of managers whose address was refused.
	voters, unreached map[string]string
	// twins are the managers that were two machines when somebody looked last.
	twins map[string]found
}

// twinKept is for how long it counts that a manager was found on two machines: the one that
// is refused tries again every few seconds.
const twinKept = 20 * time.Second

// found is what was found of a manager at a time.
type found struct {
	why string
	at  time.Time
}

// set replaces what followRoles says.
func (w *waitReasons) set(all map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.voters = all
}

// say notes why a manager's address isn't taken, or with "" that it is.
func (w *waitReasons) say(nodeID, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if why == "" {
		delete(w.unreached, nodeID)
		return
	}
	if w.unreached == nil {
		w.unreached = map[string]string{}
	}
	w.unreached[nodeID] = why
}

// twin notes that two machines are a manager, and tells whether that is new.
func (w *waitReasons) twin(nodeID string, now time.Time, err error) (fresh bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.twins == nil {
		w.twins = map[string]found{}
	}
	before := w.twins[nodeID]
	w.twins[nodeID] = found{err.Error(), now}
	return before.why != err.Error() || now.Sub(before.at) >= twinKept
}

// wasTwin tells whether two machines were a manager a moment ago. Then that counts for a
// while longer, until it has no vote.
func (w *waitReasons) wasTwin(nodeID string, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, ok := w.twins[nodeID]
	if !ok || now.Sub(before.at) >= twinKept {
		return false
	}
	w.twins[nodeID] = found{before.why, now}
	return true
}

// of is what a node waits for; empty for nothing.
func (w *waitReasons) of(nodeID string, now time.Time) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if twin, ok := w.twins[nodeID]; ok && now.Sub(twin.at) < twinKept {
		return twin.why
	}
	if why := w.voters[nodeID]; why != "" {
		return why
	}
	return w.unreached[nodeID]
}
