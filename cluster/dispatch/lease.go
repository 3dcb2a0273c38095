package dispatch

import (
	"slices"
	"time"

	"skep/cluster"
	"skep/cluster/dispatch/liveness"
)

// leaseKept is for how long after a lease of one machine none is given to another one with
// the same identity: tasks may run for the lease's time, and as long again as they take to
// stop.
const leaseKept = 4 * cluster.FenceLease

// lastLease is which machine a node's last lease was for.
type lastLease struct {
	machine string
	at      time.Time
}

// mayLease tells whether the machine may have the node's lease now, and notes it.
func (in *collector) mayLease(nodeID, run string, now time.Time) bool {
	machine := liveness.MachineOf(run)
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

// runOf is the run of the agent of a relay's session; "" when it isn't known.
func runOf(r cluster.Relay, nodeID string) string {
	at, found := slices.BinarySearch(r.Sessions, nodeID)
	if !found || len(r.Runs) != len(r.Sessions) {
		return ""
	}
	return r.Runs[at]
}
