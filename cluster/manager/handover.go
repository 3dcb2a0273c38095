package manager

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/manager/peers"
	"skep/cluster/timeline"
)

// handOver hands leadership to the voter that has the most of the log, of those that
// answer: raft by itself may choose one that is away. It fails within a HeartbeatTimeout. After one
// that took too long there is no other in the same term: raft's waits for the other manager
// to have the last entries, and a second one waits behind it for ever, so that nothing could
// be written in a later term either.
func (m *Manager) handOver(ctx context.Context) (err error) {
	term := m.raft.CurrentTerm()
	if m.stuck.Load() == term {
		return fmt.Errorf("hand over leadership: raft tried in term %d already", term)
	}
	done := m.transport.HandOver()
	// What raft began may yet wait for an attempt to send something when it has given up.
	defer func() { time.AfterFunc(20*m.cfg.HeartbeatTimeout, done) }()
	m.useRaftHeartbeats()
	known := m.transport.Progress(term)
	to, err := successor(m.servers(), m.cfg.NodeID, known, m.cfg.Now(), m.cfg.HeartbeatTimeout)
	began := m.cfg.Now()
	if err == nil || len(known) == 0 {
		m.timeline.Add(timeline.Record{Time: began, Kind: timeline.HandOver, Term: term, Node: string(to.ID)})
		defer func() {
			now := m.cfg.Now()
			m.timeline.Add(timeline.Record{Time: now, Kind: timeline.HandedOver, Term: term, Node: string(to.ID), Took: now.Sub(began), Why: why(err)})
		}()
	}
	if err == nil {
		err = m.transfer(ctx, term, m.raft.LeadershipTransferToServer(to.ID, to.Address))
	} else if len(known) == 0 { // It was elected just now.
		err = m.transfer(ctx, term, m.raft.LeadershipTransfer())
	}
	if err != nil {
		return fmt.Errorf("hand over leadership: %w", err)
	}
	return nil
}

// why is an error's text; empty for none.
func why(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// transfer waits for raft's transfer of leadership.
func (m *Manager) transfer(ctx context.Context, term uint64, under raft.Future) error {
	err := settle(ctx, under)
	if err != nil && !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		m.stuck.Store(term)
	}
	return err
}

// successor chooses who is to lead next: see handOver. Known is what the leader knows of
// the others.
func successor(servers []raft.Server, self string, known map[raft.ServerID]peers.Progress, now time.Time, beat time.Duration) (best raft.Server, err error) {
	for _, server := range servers {
		state, heard := known[server.ID]
		if server.Suffrage != raft.Voter || string(server.ID) == self || !heard || now.Sub(state.Heard) > beat {
			continue
		}
		if best.ID == "" || state.Index > known[best.ID].Index {
			best = server
		}
	}
	if best.ID == "" {
		return best, fmt.Errorf("%w: no other manager with a vote answers", cluster.ErrUnavailable)
	}
	return best, nil
}
