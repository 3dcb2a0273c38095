package manager

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Raft's heartbeats are ten in a HeartbeatTimeout or a little less, to each follower at moments of its own:
// most of what a cluster costs that has nothing to do. Here, while each is answered soon, the
// leader sends them all at once, and about three in a HeartbeatTimeout. As soon as an answer is late they
// are raft's again for a while, so that one that is lost then costs no more than it ever did.

// heartbeatPace is whether a leader's heartbeats are answered soon.
type heartbeatPace struct {
	// late is how long an answer may take, and wary for how long a later one counts.
	late, wary time.Duration

	mu      sync.Mutex    // guards the fields below
	calm    *time.Timer   // ends the time after the last late answer; nil when all is well
	changed chan struct{} // closed when calm becomes nil, or the other way round
}

func newHeartbeatPace(beat time.Duration) *heartbeatPace {
	return &heartbeatPace{late: beat / 3, wary: 10 * beat, changed: make(chan struct{})}
}

// exchange runs the exchange of a heartbeat, and takes note when it takes long or fails.
func (p *heartbeatPace) exchange(send func() error) error {
	late := time.AfterFunc(p.late, p.noteDelay)
	defer late.Stop()
	err := send()
	if err != nil {
		p.noteDelay()
	}
	return err
}

// noteDelay takes note of an answer that is late.
func (p *heartbeatPace) noteDelay() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calm != nil {
		p.calm.Reset(p.wary)
		return
	}
	p.calm = time.AfterFunc(p.wary, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.calm = nil
		p.changeLocked()
	})
	p.changeLocked()
}

func (p *heartbeatPace) changeLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

// steady tells whether all answers came soon lately, until changed is closed.
func (p *heartbeatPace) steady() (well bool, changed <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calm == nil, p.changed
}

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
	for ctx.Err() == nil {
		well, changed := m.gated.pace.steady()
		if !well {
			if err := m.setHeartbeat(m.cfg.HeartbeatTimeout); err != nil {
				return err
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
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

// useRaftHeartbeats leaves heartbeats to raft for a while, as when leadership is handed over: how long
// raft tries that is the same setting.
func (m *Manager) useRaftHeartbeats() {
	m.gated.pace.noteDelay()
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
	return m.matches.of(m.raft.CurrentTerm())[raft.ServerID(id)].heard
}
