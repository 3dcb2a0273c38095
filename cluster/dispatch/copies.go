package dispatch

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"skep/cluster"
	"skep/store"
)

// A machine that was cloned with its disk is the same node twice: both have the key, take
// each other's place in sessions, and run the same tasks. Each start of an agent has a
// name of its own, its run. One that is still there some time after another began isn't
// one that was restarted: there are two. The later one is the copy. It is noted in the
// node's record, so that every manager turns it away, and it stops its tasks.

const (
	// copyAfter is how long a run must be there after another began: longer than a
	// session of a machine that is gone may seem to live.
	copyAfter = 8 * time.Second
	// runKept is how long a run is remembered that isn't heard of.
	runKept = 30 * time.Second
	// copyGone is after how long without a word from the copy it is forgotten, and
	// originalGone after how long without the node the copy may take its place.
	copyGone     = 2 * time.Minute
	originalGone = 10 * time.Minute
)

// span is when a run was first and last heard of.
type span struct{ first, last time.Time }

// copyVerdict is what the record should say of a node's copy.
type copyVerdict struct {
	nodeID string
	copy   cluster.NodeCopy
}

// machineOf is the part of a run that is the same until the machine starts anew.
func machineOf(run string) string {
	machine, _, _ := strings.Cut(run, ".")
	return machine
}

// copied finds the copy among a node's runs: a machine that came later than another one
// that is there long after, or a run likewise when all are of one machine.
func copied(runs map[string]span, now time.Time) string {
	machines := map[string]span{}
	for run, s := range runs {
		all, known := machines[machineOf(run)]
		if !known || s.first.Before(all.first) {
			all.first = s.first
		}
		if s.last.After(all.last) {
			all.last = s.last
		}
		machines[machineOf(run)] = all
	}
	if len(machines) > 1 {
		return later(machines, now)
	}
	return later(runs, now)
}

// later finds one that began before another, earlier one ended.
func later(spans map[string]span, now time.Time) string {
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

// noteRuns takes in the runs that managers have sessions with.
func (l *liveness) noteRuns(h *managerRecord) {
	if len(h.runs) != len(h.sessions) {
		return
	}
	for i, nodeID := range h.sessions {
		sig := l.nodes[nodeID]
		if run := h.runs[i]; sig != nil && run != "" {
			seen, known := sig.runs[run]
			if !known {
				seen.first = h.at
				if sig.runs == nil {
					sig.runs = map[string]span{}
				}
			}
			if h.at.After(seen.last) {
				seen.last = h.at
			}
			sig.runs[run] = seen
		}
	}
}

// copies decides what the records of nodes should say of their copies, after observe.
func (l *liveness) copies(view store.View, now time.Time) []copyVerdict {
	var verdicts []copyVerdict
	for node := range view.Nodes() {
		sig := l.nodes[node.ID]
		if sig == nil {
			continue
		}
		maps.DeleteFunc(sig.runs, func(_ string, s span) bool { return now.Sub(s.last) > runKept })
		want := node.Copy
		switch found := copied(sig.runs, now); {
		case want.Run == "" && found != "":
			want.Run = found
			sig.copySeen = now
		case want.Run == "":
		case sig.copySeen.IsZero():
			sig.copySeen = now // By an earlier leader.
		case now.Sub(sig.copySeen) > copyGone, !sig.lost.IsZero() && now.Sub(sig.lost) > originalGone:
			want = cluster.NodeCopy{}
		case sig.copyAddr != "":
			want.Addr = sig.copyAddr
		}
		if want != node.Copy {
			verdicts = append(verdicts, copyVerdict{node.ID, want})
		}
	}
	return verdicts
}

// refuseCopy is what a copy is told.
func refuseCopy(nodeID string) refusal {
	return refusal{copy: true, reason: fmt.Sprintf("another machine is node %s, and was there before: this one is a copy of its disk. It stops the node's tasks. "+
		"Stop the daemon, remove its data directory, and join it anew", nodeID)}
}

// messageCopy is what the node's status says.
func messageCopy(c cluster.NodeCopy, addr string) string {
	if c.Addr == "" {
		return "another machine has this node's identity and is refused: it is a copy of this one's disk"
	}
	return fmt.Sprintf("another machine, at %s, has the identity of this one, at %s, and is refused: it is a copy of this one's disk", c.Addr, addr)
}

// leaseKept is for how long after a lease of one machine none is given to another one with
// the same identity: tasks may run for the lease's time, and as long again as they take to
// stop.
const leaseKept = 4 * cluster.FenceLease

// lastLease is which machine a node's last lease was for.
type lastLease struct {
	machine string
	at      time.Time
}

// takes tells whether the machine may have the node's lease now, and notes it.
func (in *collector) takes(nodeID, run string, now time.Time) bool {
	machine := machineOf(run)
	if machine == "" {
		return true
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if last, ok := in.leased[nodeID]; ok && last.machine != machine && now.Sub(last.at) < leaseKept {
		return false
	}
	if in.leased == nil {
		in.leased = map[string]lastLease{}
	}
	in.leased[nodeID] = lastLease{machine, now}
	return true
}

// runOf is the run of the agent of a relay's session; "" when it isn't told.
func runOf(r cluster.Relay, nodeID string) string {
	at, found := slices.BinarySearch(r.Sessions, nodeID)
	if !found || len(r.Runs) != len(r.Sessions) {
		return ""
	}
	return r.Runs[at]
}
