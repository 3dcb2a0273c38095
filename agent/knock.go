package agent

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"syscall"
	"time"

	"skep/cluster"
)

// Gossip misses a node whose daemon is dead as it does one whose machine is, and of one that was stopped in order it
// tells no more. While the machine lives, the node's containers answer by the connections that clients keep to them;
// when it is dead, these would hang until the clients give up. The
// machine itself tells: its kernel accepts a connection to gossip's port, or refuses it while no daemon runs, and so
// on its data address, where packets of networks go. A way that is cut is as good as a machine that is dead.

const (
	// tries is how often in a row a machine must say nothing to be taken for dead; each is given as long as a suspect
	// has to object.
	tries = 4
	// knockAgain is how often a machine is asked again while gossip doesn't see its node: it may die later than its
	// daemon, or be reached again before that runs.
	knockAgain = 5 * time.Second
)

// tellsNothing tells whether what came of a connection leaves open that the machine is dead. What failed on this
// machine doesn't say so.
func tellsNothing(err error) bool {
	for _, nobody := range []error{context.DeadlineExceeded, os.ErrDeadlineExceeded, syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.EHOSTDOWN, syscall.ENETUNREACH} {
		if errors.Is(err, nobody) {
			return true
		}
	}
	return false
}

// knock finds out again and again whether a node's machine lives, while ctx lasts and the node has endpoints.
func (a *Agent) knock(ctx context.Context, nodeID string, addr netip.Addr) {
	for goOn := true; goOn; {
		silent := a.silent(ctx, addr)
		if ctx.Err() != nil || !a.call(func(s *taskSet) { goOn = s.knocked(nodeID, silent) }) {
			return
		}
		goOn = cluster.Sleep(ctx, knockAgain) && goOn
	}
}

// silent tells whether a machine left all tries without an answer.
func (a *Agent) silent(ctx context.Context, addr netip.Addr) bool {
	for range tries {
		try, cancel := context.WithTimeout(ctx, a.cfg.SuspectAfter)
		answered := !tellsNothing(a.cfg.Knock(try, addr))
		if !answered {
			<-try.Done() // A router may say at once that it isn't there just now.
		}
		cancel()
		if answered {
			return false
		}
	}
	return true
}

// knocked takes in whether a node's machine was silent, and tells whether that still matters.
func (s *taskSet) knocked(nodeID string, silent bool) (matters bool) {
	n := &s.networks
	if !n.missed[nodeID].gone() {
		return false // Gossip saw it meanwhile.
	}
	if silent != n.silent[nodeID] {
		s.agent.log.Info("asked whether the machine of a node that gossip doesn't see is dead", "name", nodeID, "dead", silent)
		if silent {
			n.silent[nodeID] = true
		} else {
			delete(n.silent, nodeID)
		}
		cluster.Notify(s.agent.plan)
		cluster.Notify(s.agent.name)
	}
	return n.hasEndpoints(n.index(nodeID))
}

// gone are the nodes whose machines are dead: gossip misses them for long enough, or they left it, and they were silent.
func (n *networkSet) gone() map[string]bool {
	gone := map[string]bool{}
	for nodeID := range n.silent {
		if n.away[nodeID] || n.missed[nodeID].left {
			gone[nodeID] = true
		}
	}
	return gone
}

// hasEndpoints tells whether anything in the networks is on the node with an index.
func (n *networkSet) hasEndpoints(index uint16) bool {
	for _, a := range n.accounts {
		for i := range a.Endpoints {
			if a.Endpoints[i].Node == index {
				return true
			}
		}
	}
	return false
}
