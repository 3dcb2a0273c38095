package manager

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// heardFor is the least time for which an answer to a heartbeat says that a manager, and the
// sessions it has, are there.
const heardFor = 600 * time.Millisecond

// steadyInterval is the time between heartbeats while all is well: short enough that a leader which
// stood still for half a HeartbeatTimeout isn't missed.
func (m *Manager) steadyInterval() time.Duration { return m.cfg.HeartbeatTimeout * 3 / 8 }

// sendHeartbeats sends a leader's heartbeats while all is well, and leaves them to raft while it isn't,
// until ctx ends.
func (m *Manager) sendHeartbeats(ctx context.Context) (err error) {
	defer func() {
		if failed := m.setHeartbeat(m.cfg.HeartbeatTimeout); failed != nil {
			err = failed
		}
	}()
	doubted := map[raft.ServerID]time.Time{}
	for ctx.Err() == nil {
		well, changed := m.transport.Steady()
		if !well {
			if err := m.setHeartbeat(m.cfg.HeartbeatTimeout); err != nil {
				return err
			}
			m.doubtSilent(doubted)
			timer := time.NewTimer(m.cfg.HeartbeatTimeout / 2)
			select {
			case <-timer.C:
			case <-changed:
			case <-ctx.Done():
			}
			timer.Stop()
			continue
		}
		// Raft's own come when these don't.
		if err := m.setHeartbeat(4 * m.cfg.HeartbeatTimeout); err != nil {
			return err
		}
		timer := time.NewTimer(m.steadyInterval())
		select {
		case <-timer.C:
			m.raft.VerifyLeader() // It sends one to each follower.
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return ctx.Err()
}

// doubtSilent has gossip look after followers that don't answer, once each: while all is well it
// takes seconds until it comes to them by itself. Doubted is when each had answered last.
func (m *Manager) doubtSilent(doubted map[raft.ServerID]time.Time) {
	now := m.cfg.Now()
	for id, p := range m.transport.Progress(m.raft.CurrentTerm()) {
		if at, before := doubted[id]; now.Sub(p.Heard) > m.cfg.HeartbeatTimeout/2 && (!before || !at.Equal(p.Heard)) {
			doubted[id] = p.Heard
			m.cfg.Doubt(string(id))
		}
	}
}

// useRaftHeartbeats leaves heartbeats to raft for a while, as when leadership is handed over: how long
// raft tries that is the same setting.
func (m *Manager) useRaftHeartbeats() {
	m.transport.Unsteady()
	if err := m.setHeartbeat(m.cfg.HeartbeatTimeout); err != nil {
		m.log.Warn("hand over leadership", "node", m.cfg.NodeID, "err", err)
	}
}

// setHeartbeat says how often raft sends heartbeats while it leads: ten times in timeout, or
// a little less. A follower's timeout is always a HeartbeatTimeout.
func (m *Manager) setHeartbeat(timeout time.Duration) error {
	m.reloading.Lock()
	defer m.reloading.Unlock()
	config := m.raft.ReloadableConfig()
	if config.HeartbeatTimeout == timeout {
		return nil
	}
	config.HeartbeatTimeout, config.ElectionTimeout = timeout, timeout
	if err := m.raft.ReloadConfig(config); err != nil {
		return fmt.Errorf("set raft's heartbeat timeout to %v: %w", timeout, err)
	}
	return nil
}

// lastContact is when a manager last answered this leader; this one always has.
func (m *Manager) lastContact(id string) time.Time {
	if id == m.cfg.NodeID {
		return m.cfg.Now()
	}
	return m.transport.Progress(m.raft.CurrentTerm())[raft.ServerID(id)].Heard
}
