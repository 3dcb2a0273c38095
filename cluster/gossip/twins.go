package gossip

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"

	"skep/cluster"
)

// A node that says it is at two addresses is two machines, or one that just moved: then
// the old address is over within seconds.
const (
	// twinAfter is how long both must have been heard of, and twinKept for how long that
	// counts when it is heard no more. Each has its address spread at least once in
	// exchangeInterval.
	twinAfter = 30 * time.Second
	twinKept  = 90 * time.Second
)

// twin is another address of a member.
type twin struct {
	addr, other string
	first, last time.Time
}

var _ memberlist.ConflictDelegate = events{}

// NotifyConflict is called when a member is said to be at another address, too. Members
// are bounded in number, and each has one entry.
func (e events) NotifyConflict(member, other *memberlist.Node) {
	at := func(n *memberlist.Node) string { return net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port))) }
	now := e.g.config.Now()
	e.g.mu.Lock()
	defer e.g.mu.Unlock()
	known := e.g.twins[member.Name]
	if known.addr != at(member) || known.other != at(other) || now.Sub(known.last) > twinKept {
		known = twin{addr: at(member), other: at(other), first: now}
	}
	known.last = now
	if e.g.twins == nil {
		e.g.twins = map[string]twin{}
	}
	e.g.twins[member.Name] = known
}

// Twins lists the nodes that are heard of at two addresses, in order of their IDs.
func (g *Gossip) Twins() []cluster.Twin {
	now := g.config.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	var all []cluster.Twin
	for id, t := range g.twins {
		switch {
		case now.Sub(t.last) > twinKept:
			delete(g.twins, id)
		case t.last.Sub(t.first) >= twinAfter:
			all = append(all, cluster.Twin{NodeID: id, Addr: t.addr, Other: t.other})
		}
	}
	slices.SortFunc(all, func(a, b cluster.Twin) int { return strings.Compare(a.NodeID, b.NodeID) })
	return all
}
