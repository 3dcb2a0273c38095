package peers

import (
	"context"
	"fmt"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

// Confirm returns nil when a quorum of voters has answered a heartbeat of the term that was sent after
// the call: so nobody led in a later one when it began. Raft's own VerifyLeader counts answers to heartbeats that were
// on their way already, and so believes, in a process that was stopped, what was so before.
func (t *Transport) Confirm(ctx context.Context, term uint64) error {
	quorum, others := t.quorum()
	if quorum == 0 {
		return fmt.Errorf("confirm leadership: %w", cluster.ErrUnavailable)
	}
	answers := make(chan bool, len(others))
	for _, other := range others {
		go func() {
			var answer raft.AppendEntriesResponse
			addr := raft.ServerAddress(t.config.Addr)
			header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.config.NodeID), Addr: []byte(addr)}
			beat := &raft.AppendEntriesRequest{RPCHeader: header, Term: term, Leader: []byte(addr)}
			err := t.AppendEntries(other.ID, other.Address, beat, &answer)
			answers <- err == nil && answer.Success && answer.Term == term
		}()
	}
	votes := 1 // its own
	for left := len(others); votes < quorum; left-- {
		if votes+left < quorum {
			return fmt.Errorf("confirm leadership: %d of %d voters answer: %w", votes, len(others)+1, cluster.ErrNotLeader)
		}
		select {
		case yes := <-answers:
			if yes {
				votes++
			}
		case <-ctx.Done():
			return fmt.Errorf("confirm leadership: %w: %w", cluster.ErrUnavailable, context.Cause(ctx))
		}
	}
	return nil
}

// quorum is how many voters are a quorum, this one among them, and who the others are. It is 0 when
// this manager is no voter.
func (t *Transport) quorum() (quorum int, others []raft.Server) {
	self := false
	for _, server := range t.configuration() {
		switch {
		case server.Suffrage != raft.Voter:
		case string(server.ID) == t.config.NodeID:
			self = true
		default:
			others = append(others, server)
		}
	}
	if !self {
		return 0, nil
	}
	return (len(others)+1)/2 + 1, others
}

// Confirms tells what a question of the manager from is worth that is in the leader's own term: member when it is in
// raft's configuration and at addr, enough when it and this one are a quorum. As with an answer to a heartbeat, it had voted for nobody in a
// later term when it asked.
func (t *Transport) Confirms(from, addr string) (member, enough bool) {
	for _, server := range t.configuration() {
		if string(server.ID) == from && t.addrs.of(from, string(server.Address)) == addr {
			quorum, _ := t.quorum()
			return true, quorum > 0 && (quorum == 1 || quorum == 2 && server.Suffrage == raft.Voter)
		}
	}
	return false, false
}
