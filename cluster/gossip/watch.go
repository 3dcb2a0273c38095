package gossip

import (
	"fmt"
	"maps"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"

	"skep/cluster/gossip/guard"
)

// events keeps members in step with memberlist, which calls it in order, one call
// at a time, with its own lock held: so nothing here may block or call back.
// Node's fields may be read here only; outside they change without a lock.
type events struct{ g *Gossip }

var (
	_ memberlist.EventDelegate = events{}
	_ memberlist.AliveDelegate = events{}
)

// NotifyJoin is called for this node too, and again for one that comes back.
func (e events) NotifyJoin(n *memberlist.Node) {
	addr := net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port)))
	e.g.mu.Lock()
	e.g.members[n.Name] = addr
	e.g.mu.Unlock()
	e.g.calm.stir()
	e.g.signal()
}

// NotifyLeave is called for nodes that left and for those that were given up.
func (e events) NotifyLeave(n *memberlist.Node) {
	e.g.mu.Lock()
	delete(e.g.members, n.Name)
	e.g.mu.Unlock()
	e.g.calm.stir()
	e.g.signal()
}

// NotifyUpdate is about metadata, of which there is none.
func (e events) NotifyUpdate(*memberlist.Node) {}

// spareNodes is how many members a manager keeps in mind besides twice as many as are in
// the database. Each is probed in its turn, so names that are made up would have a dead
// node be found late.
const spareNodes = 64

// NotifyAlive refuses more members than a cluster can have: whoever has the key could
// make up so many that no memory suffices, and memberlist counts nothing.
func (e events) NotifyAlive(n *memberlist.Node) error {
	limit := guard.MaxMembers
	if e.g.config.Known != nil {
		known, nodes := e.g.config.Known(n.Name)
		if known {
			return nil
		}
		if nodes > 0 { // One that has just joined may not be in this replica yet.
			limit = min(limit, 2*nodes+spareNodes)
		}
	}
	states := e.g.states.Load()
	if states == nil || states.nodes.Len() < limit {
		return nil
	}
	e.g.mu.Lock()
	defer e.g.mu.Unlock()
	if _, here := e.g.members[n.Name]; here {
		return nil
	}
	return fmt.Errorf("%d members are known already", limit)
}

// watch signals changes of suspicion and goes back to missing seeds, until done.
func (g *Gossip) watch() {
	defer close(g.watched)
	// Nobody is suspected but after trouble, and memberlist doesn't tell when.
	every := g.config.Timing.GossipInterval
	look := time.NewTimer(every)
	defer look.Stop()
	looking := true
	rejoin := time.NewTicker(g.config.RejoinEvery)
	defer rejoin.Stop()
	joining := make(chan struct{}, 1) // holds a token while a seed is being tried
	next := 0
	for {
		select {
		case <-g.done:
			return
		case <-g.calm.stirred:
			if !looking {
				look.Reset(every)
				looking = true
			}
		case <-look.C:
			now := g.states.Load().in(memberlist.StateSuspect)
			g.mu.Lock()
			changed := g.passed || !maps.Equal(now, g.told)
			g.told, g.passed = now, false
			g.mu.Unlock()
			if changed {
				g.signal()
			}
			if looking = len(now) > 0 || g.calm.troubled(); looking {
				look.Reset(every)
			}
		case <-rejoin.C:
			missing := g.missing()
			if len(missing) == 0 {
				continue
			}
			target := missing[next%len(missing)]
			next++
			select {
			case joining <- struct{}{}:
				go func() {
					defer func() { <-joining }()
					// A failure is in the log already, and the next round tries again.
					_, _ = g.list.Join([]string{target})
				}()
			default: // the last one still hangs
			}
		}
	}
}

// missing lists the seeds that aren't members now.
func (g *Gossip) missing() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.left {
		return nil
	}
	var missing []string
	for _, seed := range g.seeds {
		if _, here := g.members[seed.NodeID]; here {
			continue
		}
		if target, err := g.target(seed); err == nil {
			missing = append(missing, target)
		}
	}
	return missing
}
