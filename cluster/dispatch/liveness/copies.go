package liveness

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"skep/cluster"
)

// A machine that was cloned with its disk is the same node twice: both have the key, take
// each other's place in sessions, and run the same tasks. Each start of an agent has a
// name of its own, its run. One that is still there some time after another began isn't
// one that was restarted: there are two. The later one is the copy. It is noted in the
// node's record, so that every manager refuses it, and it stops its tasks.

const (
	// copyAfter is how long a run must be there after another began: longer than a
	// session of a machine that is gone may seem to live.
	copyAfter = 8 * time.Second
	// runKept is how long a run is remembered that isn't relayed.
	runKept = 30 * time.Second
	// copyGone is after how long without a session attempt of the copy it is forgotten, and
	// originalGone after how long without the node the copy may take its place.
	copyGone     = 2 * time.Minute
	originalGone = 10 * time.Minute
)

// span is when a run was first and last relayed.
type span struct{ first, last time.Time }

// CopyChange is what the record should say of a node's copy.
type CopyChange struct {
	NodeID string
	Copy   cluster.NodeCopy
}

// MachineOf is the part of a run that is the same until the machine starts anew.
func MachineOf(run string) string {
	machine, _, _ := strings.Cut(run, ".")
	return machine
}

// findCopy finds the copy among a node's runs: a machine that came later than another one
// that is there long after, or a run likewise when all are of one machine.
func findCopy(runs map[string]span, now time.Time) string {
	if len(runs) < 2 {
		return ""
	}
	machines := map[string]span{}
	for run, s := range runs {
		all, known := machines[MachineOf(run)]
		if !known || s.first.Before(all.first) {
			all.first = s.first
		}
		if s.last.After(all.last) {
			all.last = s.last
		}
		machines[MachineOf(run)] = all
	}
	if len(machines) > 1 {
		return overlapping(machines, now)
	}
	return overlapping(runs, now)
}

// overlapping finds one that began before another, earlier one ended.
func overlapping(spans map[string]span, now time.Time) string {
	ordered := slices.SortedFunc(maps.Keys(spans), func(a, b string) int {
		if c := spans[a].first.Compare(spans[b].first); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	for i, original := range ordered {
		for _, other := range ordered[i+1:] {
			there := now.Sub(spans[original].last) <= runKept && now.Sub(spans[other].last) <= runKept
			if there && spans[original].last.Sub(spans[other].first) >= copyAfter {
				return other
			}
		}
	}
	return ""
}

// noteRuns takes in the runs that a manager has sessions with.
func (t *Tracker) noteRuns(m *manager) {
	runs := m.relay.Runs
	if len(runs) != len(m.relay.Sessions) {
		return
	}
	for i, nodeID := range m.relay.Sessions {
		n := t.nodes[nodeID]
		if run := runs[i]; n != nil && run != "" {
			seen, known := n.runs[run]
			if !known {
				seen.first = m.relayed
				if n.runs == nil {
					n.runs = map[string]span{}
				}
			}
			if m.relayed.After(seen.last) {
				seen.last = m.relayed
			}
			n.runs[run] = seen
		}
	}
}

// Copies decides what the records of nodes should say of their copies, after Observe.
func (t *Tracker) Copies(records []*cluster.Node, now time.Time) []CopyChange {
	var changes []CopyChange
	for _, record := range records {
		n := t.nodes[record.ID]
		if n == nil {
			continue
		}
		maps.DeleteFunc(n.runs, func(_ string, s span) bool { return now.Sub(s.last) > runKept })
		want := record.Copy
		switch found := findCopy(n.runs, now); {
		case want.Run == "" && found != "":
			want.Run = found
			n.copySeen = now
		case want.Run == "":
		case n.copySeen.IsZero():
			n.copySeen = now // By an earlier leader.
		case now.Sub(n.copySeen) > copyGone, !n.Lost.IsZero() && now.Sub(n.Lost) > originalGone:
			want = cluster.NodeCopy{}
		case n.copyAddr != "":
			want.Addr = n.copyAddr
		}
		if want != record.Copy {
			changes = append(changes, CopyChange{record.ID, want})
		}
	}
	return changes
}

// copyMessage is what the node's status says of its copy.
func copyMessage(c cluster.NodeCopy, addr string) string {
	if c.Addr == "" {
		return "another machine has this node's identity and is refused: it is a copy of this one's disk"
	}
	return fmt.Sprintf("another machine, at %s, has the identity of this one, at %s, and is refused: it is a copy of this one's disk", c.Addr, addr)
}
