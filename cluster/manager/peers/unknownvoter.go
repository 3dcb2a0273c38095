package peers

import (
	"slices"
	"strconv"

	"github.com/hashicorp/raft"
)

// A manager may not know that another one has a vote: it lacks the entry that says so, or
// has one that says otherwise and was never committed. The paper has servers vote without
// a look at their own configuration (Ongaro's thesis, 4.2.2), since those who vote may be
// the very ones who lack it. This raft refuses whoever isn't a voter in its newest
// configuration. So, when the leader is lost just after a manager got its vote, the two
// that are left could have no leader: one is refused as no voter, the other for its log.
//
// Here such a candidate gets what the paper gives it. Nobody can be elected by it who
// couldn't be by the paper: a candidate asks and counts the voters of its own newest
// configuration, and raft still looks at its term, its log, and this manager's own vote.
// Whoever has no newer log than this manager has no news of a vote either, and is left
// to raft; and who may speak at all is authorize's to say.

// poll is what a manager knows when it is asked for its vote.
type poll struct {
	servers             []raft.Server
	lastIndex, lastTerm uint64
}

// newcomer tells whether a candidate has no vote as far as this manager knows, and has
// entries that this manager lacks.
func (p poll) newcomer(id string, lastIndex, lastTerm uint64) bool {
	votes := func(s raft.Server) bool { return string(s.ID) == id && s.Suffrage == raft.Voter }
	if len(p.servers) == 0 || slices.ContainsFunc(p.servers, votes) {
		return false
	}
	return lastTerm > p.lastTerm || lastTerm == p.lastTerm && lastIndex > p.lastIndex
}

// pollOf is what raft knows now. Nothing is added to the log meanwhile: see snapshotFilter.
func pollOf(r *raft.Raft) poll {
	term, _ := strconv.ParseUint(r.Stats()["last_log_term"], 10, 64)
	return poll{r.GetConfiguration().Configuration().Servers, r.LastIndex(), term}
}

// welcome changes what raft hears of a newcomer that asks for a vote, or answers in
// raft's place. Everything else it leaves alone.
func welcome(rpc raft.RPC, r *raft.Raft) (changed raft.RPC, answered bool) {
	switch request := rpc.Command.(type) {
	case *raft.RequestVoteRequest:
		if pollOf(r).newcomer(string(request.ID), request.LastLogIndex, request.LastLogTerm) {
			// Raft asks its configuration about names only; it has none of an older version.
			nameless := *request
			nameless.RPCHeader.ID = nil
			rpc.Command = &nameless
		}
	case *raft.RequestPreVoteRequest:
		// Nothing is promised by the answer, so it needn't be raft's.
		if pollOf(r).newcomer(string(request.ID), request.LastLogIndex, request.LastLogTerm) {
			leader, _ := r.LeaderWithID()
			rpc.Respond(preVote(request, r.CurrentTerm(), string(leader)), nil)
			return rpc, true
		}
	}
	return rpc, false
}

// preVote is what raft answers a voter with a newer log.
func preVote(request *raft.RequestPreVoteRequest, term uint64, leader string) *raft.RequestPreVoteResponse {
	answer := &raft.RequestPreVoteResponse{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}, Term: max(term, request.Term)}
	answer.Granted = request.Term >= term && (leader == "" || leader == string(request.Addr))
	return answer
}
