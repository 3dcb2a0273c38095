package placement

import (
	"fmt"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// Resources are what a task reserves, or a node has.
type Resources struct {
	NanoCPUs    int64
	MemoryBytes int64
}

func (r Resources) isZero() bool { return r == Resources{} }

// add adds other so many times.
func (r *Resources) add(other Resources, times int32) {
	r.NanoCPUs += int64(times) * other.NanoCPUs
	r.MemoryBytes += int64(times) * other.MemoryBytes
}

// Requirement is what a revision asks of a node, read once for all its tasks. It
// is good for one plan: until the ledger takes in a change of a node.
type Requirement struct {
	service    string
	revision   uint64
	load       *load // of the service
	holds      *holding
	generic    []want
	maxPerNode int32
	near, far  []neighbour
	eligible   *eligibleNodes
}

// eligibility is what a requirement asks of a node itself. Requirements that ask the same
// share their eligible nodes.
type eligibility struct {
	conditions []string
	platforms  []swarm.Platform
	plugins    []plugin
	networks   []*cluster.Network
	// spread is what the preferences divide the nodes by.
	spread []string
}

// appendKey names what is asked, the same for the same.
func (a eligibility) appendKey(key []byte) []byte {
	word := func(text string) { key = append(append(key, text...), 0) }
	for _, c := range a.conditions {
		word(c)
	}
	word("")
	for _, p := range a.platforms {
		word(p.OS)
		word(p.Architecture)
	}
	word("\x00")
	for _, p := range a.plugins {
		word(p.kind)
		word(p.name)
	}
	word("\x00")
	for _, n := range a.networks {
		word(n.ID) // Its subnets stay as they are.
	}
	word("\x00")
	for _, s := range a.spread {
		word(s)
	}
	return key
}

// Surroundings are what a requirement depends on, beside its revision and nodes.
type Surroundings struct {
	// LogDriver is that of tasks whose spec has none; empty leaves it to the engine.
	LogDriver string
	// Networks are those of the cluster that tasks are on.
	Networks []*cluster.Network
	// ServiceID finds a service by its name or ID; it returns "" when there is none.
	ServiceID func(name string) string
}

// Require reads the requirement of a revision.
func (l *Ledger) Require(r *cluster.Revision, around Surroundings) Requirement {
	q := Requirement{service: r.ServiceID, revision: r.Number, load: l.loadOf(r.ServiceID), holds: holdingOf(r), generic: generic(r)}
	a := eligibility{plugins: plugins(r, around), networks: around.Networks}
	if p := r.Spec.Placement; p != nil {
		q.maxPerNode = int32(min(p.MaxReplicas, 1<<30))
		a.conditions, a.platforms = p.Constraints, p.Platforms
		for _, preference := range p.Preferences {
			if preference.Spread != nil {
				a.spread = append(a.spread, preference.Spread.SpreadDescriptor)
			}
		}
	}
	q.near, q.far = neighbours(r.ServiceLabels, cluster.LabelAffinity, around), l.away(r, around)
	q.eligible = l.eligibleFor(a)
	return q
}

// floorKey is whose floor a load has, and since when: after what may give nodes room there is none.
type floorKey struct {
	revision uint64
	eligible *eligibleNodes
	epoch    uint64
}

// floor is the load's, if it is q's; else 0, which always holds.
func (l *Ledger) floor(q *Requirement) int32 {
	if q.load.floorOf != (floorKey{q.revision, q.eligible, l.epoch}) {
		return 0
	}
	return q.load.floor
}

// raiseFloor takes in that no node that q finds fit, and that has room, has fewer tasks. Where other services' tasks
// decide which have room it keeps nothing.
func (l *Ledger) raiseFloor(q *Requirement, own int32) {
	if len(q.near) == 0 && len(q.far) == 0 {
		q.load.floor, q.load.floorOf = own, floorKey{q.revision, q.eligible, l.epoch}
	}
}

// holding is what each task of a revision holds of its node, until it is seen to
// have ended.
type holding struct {
	resources Resources
	ports     []hostPort
	portNames []string
}

// hostPort is a port published on the node itself. There is one of a number and
// protocol on a node: Docker's API can't say of which of its addresses.
type hostPort struct {
	number   uint32
	protocol swarm.PortConfigProtocol
}

// holdingOf is nil when the tasks hold nothing.
func holdingOf(r *cluster.Revision) *holding {
	var h holding
	if reserved := reservations(r); reserved != nil {
		h.resources = Resources{NanoCPUs: reserved.NanoCPUs, MemoryBytes: reserved.MemoryBytes}
	}
	for _, p := range cluster.HostPorts(r.Endpoint) {
		if p.PublishedPort != 0 { // else the engine chooses one that is free
			h.ports = append(h.ports, hostPort{p.PublishedPort, p.Protocol})
			h.portNames = append(h.portNames, fmt.Sprintf("%d/%s", p.PublishedPort, p.Protocol))
		}
	}
	if h.resources.isZero() && len(h.ports) == 0 {
		return nil
	}
	return &holding{h.resources, h.ports, h.portNames} // &h would be made for each that holds nothing.
}

// reservations are nil when a revision has none.
func reservations(r *cluster.Revision) *swarm.Resources {
	if r.Spec.Resources == nil {
		return nil
	}
	return r.Spec.Resources.Reservations
}
