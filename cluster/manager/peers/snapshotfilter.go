package peers

import (
	"io"

	"github.com/hashicorp/raft"

	"skep/cluster/timeline"
)

// snapshotFilter is raft's transport, but raft doesn't hear of a snapshot of what its log
// already has. The paper has it keep the log then; this raft installs the snapshot and
// removes all entries, also those after it that the leader counted as stored here. A
// leader that takes a manager back whom it had removed, while it still tries to bring
// it what it lacked before, sends it two snapshots, and one of them may come late.
type snapshotFilter struct {
	*gatedTransport
	inbound *inbound
	log     raft.LogStore
	heard   chan raft.RPC
	done    chan struct{}
}

var _ raft.WithPreVote = (*snapshotFilter)(nil)

func newSnapshotFilter(inner *gatedTransport, inbound *inbound) *snapshotFilter {
	return &snapshotFilter{gatedTransport: inner, inbound: inbound, heard: make(chan raft.RPC), done: make(chan struct{})}
}

// Consumer has what raft is to hear.
func (t *snapshotFilter) Consumer() <-chan raft.RPC { return t.heard }

// SetHeartbeatHandler takes whom heartbeats are for.
func (t *snapshotFilter) SetHeartbeatHandler(handle func(raft.RPC)) { t.inbound.beat.Store(&handle) }

// run passes on one request after the other, until stop: raft's answer is awaited before
// the next one is looked at, so that nothing is added to the log between the look at a
// snapshot and its install. Heartbeats go another way.
func (t *snapshotFilter) run() {
	for {
		select {
		case rpc := <-t.inbound.heard:
			t.pass(rpc)
		case <-t.done:
			return
		}
	}
}

// stop ends run; raft has been shut down.
func (t *snapshotFilter) stop() { close(t.done) }

func (t *snapshotFilter) pass(rpc raft.RPC) {
	request, is := rpc.Command.(*raft.InstallSnapshotRequest)
	if r := t.raft.Load(); is && r != nil && covers(t.log, request, r.CurrentTerm(), r.AppliedIndex()) {
		_, err := io.Copy(io.Discard, rpc.Reader)
		header := raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}
		rpc.Respond(&raft.InstallSnapshotResponse{RPCHeader: header, Term: request.Term, Success: err == nil}, err)
		return
	}
	if r := t.raft.Load(); r != nil {
		var done bool
		if rpc, done = welcome(rpc, r); done {
			return
		}
	}
	answered := make(chan raft.RPCResponse, 1)
	to := rpc.RespChan
	rpc.RespChan = answered
	select {
	case t.heard <- rpc:
	case <-t.done:
		return
	}
	select {
	case answer := <-answered:
		t.noteVote(rpc, answer)
		to <- answer
	case <-t.done:
	}
}

// noteVote takes in what this manager answered to a request for its vote.
func (t *snapshotFilter) noteVote(rpc raft.RPC, answer raft.RPCResponse) {
	request, asked := rpc.Command.(*raft.RequestVoteRequest)
	given, answered := answer.Response.(*raft.RequestVoteResponse)
	if asked && answered {
		t.timeline.Add(timeline.Record{Time: t.now(), Kind: timeline.Voted, Term: request.Term, Node: string(request.ID), Word: voteWord(given, answer.Error)})
	}
}

// covers tells whether the log, and so the database sooner or later, has all that a
// snapshot has. A request of another term is raft's to judge.
func covers(log raft.LogStore, request *raft.InstallSnapshotRequest, term, applied uint64) bool {
	if request.Term != term {
		return false
	}
	if request.LastLogIndex <= applied {
		return true
	}
	var entry raft.Log
	return log.GetLog(request.LastLogIndex, &entry) == nil && entry.Term == request.LastLogTerm
}
