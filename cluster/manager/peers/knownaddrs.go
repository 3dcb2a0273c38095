package peers

import (
	"io"
	"maps"
	"sync"

	"github.com/hashicorp/raft"
)

// A manager whose address changed tells the leader, who writes it down; raft's
// configuration follows. But its vote may be what it takes for there to be a leader. So it
// also tells each other manager, which remembers it until raft's configuration says
// something new. An address is only ever taken from the manager itself, by its own
// certificate: nobody passes another's on.

// knownAddrs are the addresses that managers told this one.
type knownAddrs struct {
	mu    sync.Mutex // guards heard
	heard map[string]knownAddr
}

type knownAddr struct {
	addr string
	// instead is what raft's configuration said then.
	instead string
}

func newKnownAddrs() *knownAddrs { return &knownAddrs{heard: map[string]knownAddr{}} }

// note takes in where a manager is now, of which raft's configuration says known.
func (w *knownAddrs) note(nodeID, addr, known string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if addr == known {
		delete(w.heard, nodeID)
		return
	}
	w.heard[nodeID] = knownAddr{addr, known}
}

// of is where a manager is; known when it told nothing.
func (w *knownAddrs) of(nodeID, known string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if heard, ok := w.heard[nodeID]; ok {
		return heard.addr
	}
	return known
}

// forget drops what is older than raft's configuration.
func (w *knownAddrs) forget(servers []raft.Server) {
	w.mu.Lock()
	defer w.mu.Unlock()
	known := map[string]string{}
	for _, server := range servers {
		known[string(server.ID)] = string(server.Address)
	}
	maps.DeleteFunc(w.heard, func(nodeID string, heard knownAddr) bool { return known[nodeID] != heard.instead })
}

// readdressed is raft's transport, but it sends to where managers are now.
type readdressed struct {
	*snapshotFilter
	addrs *knownAddrs
}

var _ raft.Transport = readdressed{}
var _ raft.WithPreVote = readdressed{}

func (t readdressed) at(id raft.ServerID, target raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(t.addrs.of(string(id), string(target)))
}

// AppendEntriesPipeline begins to send entries.
func (t readdressed) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	return t.snapshotFilter.AppendEntriesPipeline(id, t.at(id, target))
}

// AppendEntries sends entries.
func (t readdressed) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return t.snapshotFilter.AppendEntries(id, t.at(id, target), args, resp)
}

// RequestVote asks for a vote.
func (t readdressed) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.snapshotFilter.RequestVote(id, t.at(id, target), args, resp)
}

// RequestPreVote asks whether there would be a vote.
func (t readdressed) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.snapshotFilter.RequestPreVote(id, t.at(id, target), args, resp)
}

// InstallSnapshot sends a snapshot.
func (t readdressed) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.snapshotFilter.InstallSnapshot(id, t.at(id, target), args, resp, data)
}

// TimeoutNow hands leadership over.
func (t readdressed) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.snapshotFilter.TimeoutNow(id, t.at(id, target), args, resp)
}

// advertised is the control port's address as others know it, which raft tells them.
type advertised string

func (advertised) Network() string  { return "tcp" }
func (a advertised) String() string { return string(a) }
