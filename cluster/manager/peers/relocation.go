package peers

import (
	"context"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

// relocations has the managers that are looked after, since they speak from another address than
// where they are known to be.
type relocations struct {
	mu      sync.Mutex // guards looking
	looking map[string]bool
}

// begin tells whether to look after a manager: nobody else does.
func (l *relocations) begin(nodeID string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.looking[nodeID] {
		return false
	}
	if l.looking == nil {
		l.looking = map[string]bool{}
	}
	l.looking[nodeID] = true
	return true
}

func (l *relocations) end(nodeID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.looking, nodeID)
}

// lookAfter finds out where a manager is that speaks from claimed and is known to be at
// known; raft's configuration says configured. One that moved while this manager was off
// is heard a moment later.
func (t *Transport) lookAfter(nodeID, configured, known, claimed string) {
	if !t.placed.begin(nodeID) {
		return
	}
	go func() {
		defer t.placed.end(nodeID)
		if t.config.Believe(context.Background(), nodeID, known, claimed) != nil {
			return
		}
		t.config.Log.Info("a manager is elsewhere", "node", nodeID, "from", known, "to", claimed)
		t.addrs.note(nodeID, claimed, configured)
	}()
}

// checkPlace refuses a request of raft's by a manager that is known to be elsewhere. One that
// isn't in raft's configuration yet has no place.
func (t *Transport) checkPlace(from string, request any) error {
	header, is := request.(raft.WithRPCHeader)
	if !is || from == t.config.NodeID {
		return nil
	}
	claimed := string(header.GetRPCHeader().Addr)
	for _, server := range t.configuration() {
		configured := string(server.Address)
		known := t.addrs.of(from, configured)
		if string(server.ID) != from || known == claimed {
			continue
		}
		t.lookAfter(from, configured, known, claimed)
		return fmt.Errorf("hear node %s: it speaks from %s and is known to be at %s: %w", from, claimed, known, cluster.ErrUnavailable)
	}
	return nil
}
