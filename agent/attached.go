package agent

import (
	"context"
	"net/netip"
	"time"

	"skep/cluster"
)

// Containers that users put on networks are the engine's; the agent only sees whether they are still
// there, and tells managers of those that aren't: their addresses are free then.

const (
	// lookAtAttached is how often the engine is asked.
	lookAtAttached = 5 * time.Second
	// attachGrace is how long a container may take to be there after the agent heard of its place: the
	// API waits for the network first.
	attachGrace = time.Minute
	// detachLimit is how long managers may take to answer.
	detachLimit = 10 * time.Second
)

// AttachingEngine is a driver whose engine has containers beside those of tasks.
type AttachingEngine interface {
	// Attached gives the addresses that the engine's containers have in the cluster's networks, by the
	// networks' IDs; also of those that don't run. With an error it gives nil, or all of them: then some aren't reached
	// by other nodes yet.
	Attached(ctx context.Context) (map[string]map[netip.Addr]bool, error)
}

// attachedPlace is a container's place in a network that this node carries.
type attachedPlace struct {
	id, networkID string
	addrs         []netip.Addr
}

// attachedHere are the places of containers on this node that are no tasks.
func (s *taskSet) attachedHere() (list []attachedPlace) {
	own := s.networks.index(s.agent.cfg.NodeID)
	for _, a := range s.networks.accounts {
		if a.Network == nil || a.Dropped || own == 0 {
			continue
		}
		for i := range a.Endpoints {
			if e := &a.Endpoints[i]; e.ServiceID == "" && e.Node == own && s.tasks[e.ID] == nil {
				list = append(list, attachedPlace{e.ID, a.Network.ID, a.Network.Addrs(e.Host)})
			}
		}
	}
	return list
}

// heldPlace is what is known of a place: since when, and whether a container was seen to have it.
type heldPlace struct {
	since time.Time
	seen  bool
}

// heldPlaces are the places of this node's containers, by the attachments' IDs.
type heldPlaces map[string]heldPlace

// gone tells which places nobody has any more, by what the engine's containers have.
func (h heldPlaces) gone(list []attachedPlace, have map[string]map[netip.Addr]bool, now time.Time) (next heldPlaces, gone []string) {
	next = heldPlaces{}
	for _, p := range list {
		held, known := h[p.id]
		if !known {
			held.since = now
		}
		there := false
		for _, addr := range p.addrs {
			there = there || have[p.networkID][addr]
		}
		if !there && (held.seen || now.Sub(held.since) >= attachGrace) {
			gone = append(gone, p.id)
		}
		held.seen = held.seen || there
		next[p.id] = held
	}
	return next, gone
}

// watchAttached tells managers of containers that have left networks, until ctx ends.
func (a *Agent) watchAttached(ctx context.Context, engine AttachingEngine) {
	held := heldPlaces{}
	failing := cluster.Complaint{Log: a.log, Patience: 2 * lookAtAttached, Now: a.cfg.Now}
	for cluster.Sleep(ctx, lookAtAttached) {
		var list []attachedPlace
		a.call(func(s *taskSet) { list = s.attachedHere() })
		if len(list) == 0 {
			continue
		}
		have, err := engine.Attached(ctx)
		failing.About(err, "look at containers on networks; trying again", "containers on networks are as they should be")
		if have == nil {
			continue
		}
		var gone []string
		if held, gone = held.gone(list, have, a.cfg.Now()); len(gone) == 0 {
			continue
		}
		telling, cancel := context.WithTimeout(ctx, detachLimit)
		if err := a.cfg.Detach(telling, gone); err != nil && ctx.Err() == nil {
			a.log.Warn("tell managers that containers have left networks; trying again", "err", err)
		}
		cancel()
	}
}
