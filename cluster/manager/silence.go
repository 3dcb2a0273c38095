package manager

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

// A leader that is cut off, or stands still, breaks no connection: only its silence
// tells. Raft looks for silence at random moments, so that a follower finds it one to
// three Beats after it began, and votes only when it has found it itself. Here a
// follower looks when the silence has lasted a Beat, and asks the others. When most
// hear nothing either it stands for election, as in hasten.go. So a follower that
// alone is cut off from a leader deposes nobody.

// heed stands for election when the leader has fallen silent.
func (m *Manager) heed(ctx context.Context) error {
	for ctx.Err() == nil {
		if wait := m.patience(); wait > 0 {
			began := time.Now()
			if pause(ctx, wait); time.Since(began)-wait > m.cfg.Beat/4 {
				// This process stood still; what the leader sent meanwhile is yet to be read.
				pause(ctx, m.cfg.Beat/4)
			}
			continue
		}
		_, leader := m.raft.LeaderWithID()
		term := m.raft.CurrentTerm()
		own := cluster.ManagerHealth{Term: term, LastIndex: m.raft.LastIndex()}
		if stands(own, m.askOthers(ctx, string(leader)), m.cfg.Beat) && m.patience() <= 0 {
			m.stand(string(leader), term, "the leader is silent")
			pause(ctx, m.cfg.Beat)
		}
		pause(ctx, m.cfg.Beat/8)
	}
	return ctx.Err()
}

// patience is how long the leader may still be silent before this follower asks the
// others; zero or less when it has been for too long. Those who come later in the
// order of standing wait longer.
func (m *Manager) patience() time.Duration {
	_, leader := m.raft.LeaderWithID()
	if leader == "" || m.raft.State() != raft.Follower {
		return m.cfg.Beat / 2 // Nobody is missed.
	}
	place := standing(m.servers(), m.cfg.NodeID, string(leader))
	if place < 0 {
		return m.cfg.Beat
	}
	return m.cfg.Beat + time.Duration(place)*m.step() - time.Since(m.raft.LastContact())
}

// askOthers has the account of each voter but the leader and this one; of one that
// doesn't answer in time it is empty.
func (m *Manager) askOthers(ctx context.Context, leader string) []cluster.ManagerHealth {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Beat/3)
	defer cancel()
	var others []raft.Server
	for _, server := range m.servers() {
		if server.Suffrage == raft.Voter && string(server.ID) != m.cfg.NodeID && string(server.ID) != leader {
			others = append(others, server)
		}
	}
	accounts := make([]cluster.ManagerHealth, len(others))
	var asked sync.WaitGroup
	for i, server := range others {
		asked.Go(func() {
			if health, err := m.askHealth(ctx, string(server.Address)); err == nil {
				accounts[i] = health
			}
		})
	}
	asked.Wait()
	return accounts
}

// stands tells whether a follower should stand: most voters, the leader counted among
// them, have heard nothing of it for half a Beat, which is three heartbeats, and none
// of them has entries that this one lacks, since it wouldn't vote for this one; it
// stands itself.
func stands(own cluster.ManagerHealth, others []cluster.ManagerHealth, beat time.Duration) bool {
	agree, voters := 1, len(others)+2
	for _, other := range others {
		if other.Term > own.Term || other.Leader {
			return false // There has been an election meanwhile.
		}
		if other.NodeID == "" || other.LastContact < beat/2 {
			continue
		}
		if other.LastIndex > own.LastIndex {
			return false
		}
		agree++
	}
	return agree > voters/2
}
