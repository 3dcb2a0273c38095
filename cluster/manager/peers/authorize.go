package peers

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

// A manager's certificate outlives its membership: with the key of one that was removed,
// anybody could lead a follower, depose a leader, or spoil the term for ever. So it isn't
// the certificate that decides who may tell raft what. By it the peer is who it says; what
// it may say is decided here, request by request.

// maxLeap is how much newer than a manager's own a term may be that it is told. Terms
// grow by one with each election, and 64 bits must do for ever.
const maxLeap = 1 << 32

// raftView is what a manager knows when it is asked to believe a request of raft's.
type raftView struct {
	// members are the IDs that may speak: those of raft's configuration, and of the
	// managers that this node was last told of. A manager that was away may know an older
	// configuration, in which the leader isn't.
	members func(id string) bool
	self    string
	// leader is whom this manager follows, itself if it leads, "" for nobody; heard is set
	// when it heard of it a moment ago.
	leader string
	heard  bool
	term   uint64
}

// authorize decides about a request that came by a connection of from's.
func authorize(from string, request any, h raftView) error {
	header, is := request.(raft.WithRPCHeader)
	if !is {
		return fmt.Errorf("hear node %s: unknown request %T: %w", from, request, cluster.ErrDenied)
	}
	if name := string(header.GetRPCHeader().ID); name != from {
		return fmt.Errorf("hear node %s: it speaks in the name of %q: %w", from, name, cluster.ErrDenied)
	}
	if from != h.self && !h.members(from) {
		return fmt.Errorf("hear node %s: it is no manager of this cluster: %w", from, cluster.ErrDenied)
	}
	switch r := request.(type) {
	case *raft.AppendEntriesRequest:
		for _, entry := range r.Entries {
			if entry.Type == raft.LogConfiguration && !configures(entry.Data) {
				return fmt.Errorf("hear node %s: entry %d is no configuration: %w", from, entry.Index, cluster.ErrDenied)
			}
		}
		return h.follows(from, r.Term)
	case *raft.InstallSnapshotRequest:
		if !configures(r.Configuration) {
			return fmt.Errorf("hear node %s: the snapshot's configuration is none: %w", from, cluster.ErrDenied)
		}
		return h.follows(from, r.Term)
	case *raft.TimeoutNowRequest:
		// One tells oneself: see package campaign.
		if from != h.self && from != h.leader {
			return fmt.Errorf("hand leadership over: node %s doesn't lead: %w", from, cluster.ErrDenied)
		}
		return nil
	case *raft.RequestVoteRequest:
		return checkLeap(raft.ServerID(from), h.term, r.Term)
	case *raft.RequestPreVoteRequest:
		return checkLeap(raft.ServerID(from), h.term, r.Term)
	}
	return fmt.Errorf("hear node %s: unknown request %T: %w", from, request, cluster.ErrDenied)
}

// configures tells whether raft can read a configuration: it panics at what it can't.
func configures(data []byte) (can bool) {
	defer func() {
		if recover() != nil {
			can = false
		}
	}()
	return len(raft.DecodeConfiguration(data).Servers) > 0
}

// follows decides whether from may lead this manager in the term. While it hears its
// leader it believes no other; a new one waits for as long as that takes to be silent, or
// until raft has heard of the election.
func (h raftView) follows(from string, term uint64) error {
	if h.heard && h.leader != from {
		return fmt.Errorf("follow node %s: node %s leads: %w", from, h.leader, cluster.ErrUnavailable)
	}
	return checkLeap(raft.ServerID(from), h.term, term)
}

// Absurd tells whether no elections can have led from a term to another one.
func Absurd(from, to uint64) bool { return to > from && to-from > maxLeap }

// checkLeap refuses a term that no elections can have made. Who has none yet takes any.
func checkLeap(from raft.ServerID, own, term uint64) error {
	if own > 0 && Absurd(own, term) {
		return fmt.Errorf("hear node %s: its term %d is absurd after %d: %w", from, term, own, cluster.ErrDenied)
	}
	return nil
}

// authorizeNow is authorize by what this manager knows now.
func (t *Transport) authorizeNow(from string, request any) error {
	r := t.raft.Load()
	if r == nil {
		return fmt.Errorf("hear node %s: this manager is starting: %w", from, cluster.ErrUnavailable)
	}
	h := raftView{members: t.MayConnect, self: t.config.NodeID, term: r.CurrentTerm()}
	switch r.State() {
	case raft.Follower:
		_, leader := r.LeaderWithID()
		h.leader = string(leader)
		h.heard = h.leader != "" && time.Since(r.LastContact()) < t.config.HeartbeatTimeout/2
	case raft.Leader:
		// One who isn't any more hears so from those who follow another.
		h.leader, h.heard = t.config.NodeID, true
	}
	if err := authorize(from, request, h); err != nil {
		return err
	}
	if err := t.checkPlace(from, request); err != nil {
		return err
	}
	if _, is := request.(*raft.TimeoutNowRequest); is && from != h.self {
		t.config.HandedOver()
	}
	return nil
}

// MayConnect tells whether a node may speak to this manager's raft.
func (t *Transport) MayConnect(id string) bool {
	if id == t.config.NodeID {
		return true
	}
	inGroup := func(s raft.Server) bool { return string(s.ID) == id }
	told := func(p cluster.Peer) bool { return p.NodeID == id }
	return slices.ContainsFunc(t.Servers(), inGroup) || t.config.Told != nil && slices.ContainsFunc(t.config.Told(), told)
}

// dialTarget is an address for the stream layer that says who is to be reached there.
func dialTarget(id raft.ServerID, addr raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(string(id) + "@" + string(addr))
}

// splitDialTarget is its opposite.
func splitDialTarget(target string) (id, addr string) {
	id, addr, _ = strings.Cut(target, "@")
	return id, addr
}
