package manager

import (
	"context"
	"time"

	"skep/cluster"
)

const (
	// currentLimit is how long a manager that has just started waits for what was committed while it was off
	// before it serves agents with what it has. If nobody leads, dispatch ends their sessions a second later.
	currentLimit = 2 * time.Second
	currentLook  = 5 * time.Millisecond
)

// untilCurrent returns when this manager has applied what was committed when the leader was asked, or after
// currentLimit. Raft applies nothing after the last snapshot before it has heard of a leader, so a manager that
// starts knows a cluster of long ago.
func (m *Manager) untilCurrent(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, currentLimit)
	defer cancel()
	for ctx.Err() == nil {
		peer, self, err := m.Leader(ctx)
		if err != nil || self { // A leader has begun only when it had applied all.
			return
		}
		health, err := m.askHealth(ctx, peer.Addr)
		for err == nil && health.Leader && ctx.Err() == nil {
			// What raft says it has applied may be on its way to the store still.
			applied := m.raft.AppliedIndex() >= health.CommitIndex
			cluster.Sleep(ctx, currentLook)
			if applied {
				return
			}
		}
		cluster.Sleep(ctx, currentLook)
	}
}
