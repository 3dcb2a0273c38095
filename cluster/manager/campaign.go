package manager

import (
	"context"
	"errors"
	"sort"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// Raft finds out that a leader is gone by its silence, which takes a few hundred
// milliseconds, and mostly as long again until enough followers have found out.
// But a leader's process that ends breaks its connections, and nobody answers at
// its port any more: that is known at once. A follower that sees both doesn't wait
// for the silence: it asks the others whether the leader's port refuses them too, since a
// firewall's rule may do so to it alone. When most say so it stands for election as one
// does to whom leadership is handed over, and so gets the votes of those who haven't
// noticed yet.
//
// This is about time only. Who may be elected, and that there is one leader in a
// term, stays raft's: a needless election costs a moment without a leader.

// electionStagger is how much later than the one before it each follower stands, so that they
// don't split the votes.
func (m *Manager) electionStagger() time.Duration { return m.cfg.HeartbeatTimeout / 5 }

// campaignOnClosedConns stands for election when the leader's process has ended.
func (m *Manager) campaignOnClosedConns(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case lost := <-m.inbound.lost:
			m.cfg.Doubt(lost)
			m.considerClosedConn(ctx, lost)
		}
	}
}

// considerClosedConn looks at the loss of one connection.
func (m *Manager) considerClosedConn(ctx context.Context, lost string) {
	addr, leader := m.raft.LeaderWithID()
	term := m.raft.CurrentTerm()
	if string(leader) != lost || lost == m.cfg.NodeID || !m.refuses(ctx, string(addr)) {
		return
	}
	servers := m.servers()
	place := electionRank(servers, m.cfg.NodeID, lost)
	if place < 0 || !m.refusesMost(ctx, servers, lost) {
		return
	}
	pause(ctx, time.Duration(place)*m.electionStagger())
	// Somebody who stood earlier may have failed for want of the newest entries, and
	// only moved the term on: what counts is whether there is a leader.
	if _, now := m.raft.LeaderWithID(); ctx.Err() != nil || (now != "" && now != leader) || m.raft.State() != raft.Follower {
		return
	}
	m.campaign(lost, term, "the leader's process ended")
}

// campaign stands for election as one does to whom leadership is handed over: those who
// believe that there is a leader vote as well.
func (m *Manager) campaign(leader string, term uint64, why string) {
	m.cfg.Doubt(leader)
	m.log.Debug("stand for election: "+why, "node", m.cfg.NodeID, "leader", leader, "term", term)
	header := raft.RPCHeader{
		ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(m.cfg.NodeID), Addr: []byte(m.cfg.Addr),
	}
	err := m.retaining.TimeoutNow(raft.ServerID(m.cfg.NodeID), raft.ServerAddress(m.cfg.Addr),
		&raft.TimeoutNowRequest{RPCHeader: header}, &raft.TimeoutNowResponse{})
	if err != nil {
		m.log.Debug("stand for election", "node", m.cfg.NodeID, "err", err)
	}
}

// refuses tells whether nobody listens at addr, on a machine that is there. A
// process that ends closes its connections and its port in any order, so it looks
// more than once.
func (m *Manager) refuses(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.HeartbeatTimeout)
	defer cancel()
	for range 4 {
		conn, err := m.cfg.Network.Dial(ctx, addr)
		if err != nil {
			return errors.Is(err, syscall.ECONNREFUSED)
		}
		conn.Close()
		pause(ctx, 10*time.Millisecond)
	}
	return false
}

// refusesMost tells whether most voters, the leader counted among them, find that nobody
// listens at the leader's port, as this one does. It waits for no more than are needed.
func (m *Manager) refusesMost(ctx context.Context, servers []raft.Server, leader string) bool {
	ctx, cancel := context.WithTimeout(ctx, m.cfg.HeartbeatTimeout/3)
	defer cancel()
	voters, asked := 0, 0
	answers := make(chan bool, len(servers))
	for _, server := range servers {
		if server.Suffrage != raft.Voter {
			continue
		}
		voters++
		if string(server.ID) == m.cfg.NodeID || string(server.ID) == leader {
			continue
		}
		asked++
		go func() {
			health, err := m.askHealth(ctx, string(server.Address), withRefusal+leader)
			answers <- err == nil && health.Refused
		}()
	}
	agree := 1
	for range asked {
		if agree > voters/2 {
			break
		}
		if <-answers {
			agree++
		}
	}
	return agree > voters/2
}

// refused tells whether nobody listens at another manager's port, when a third asks. It
// looks once: whoever asks has found so a moment ago.
func (m *Manager) refused(ctx context.Context, nodeID string) bool {
	for _, server := range m.servers() {
		if string(server.ID) != nodeID || nodeID == m.cfg.NodeID {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, m.cfg.HeartbeatTimeout/3)
		defer cancel()
		conn, err := m.cfg.Network.Dial(ctx, string(server.Address))
		if err != nil {
			return errors.Is(err, syscall.ECONNREFUSED)
		}
		conn.Close()
	}
	return false
}

// electionRank is self's place among the voters that are left, or -1 when it has no vote.
func electionRank(servers []raft.Server, self, lost string) int {
	var left []string
	for _, server := range servers {
		if server.Suffrage == raft.Voter && string(server.ID) != lost {
			left = append(left, string(server.ID))
		}
	}
	sort.Strings(left)
	place := sort.SearchStrings(left, self)
	if place == len(left) || left[place] != self {
		return -1
	}
	return place
}
