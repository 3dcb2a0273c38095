package cluster

import (
	"net/netip"

	"github.com/docker/docker/api/types/swarm"
)

// UpToDate tells whether a task of revision old, on node, needs no replacement
// for its service to be at revision current: it is the same revision, or one
// that runs the same, or one that differs in its placement only while the node
// satisfies the new placement as well. node is nil for a task that isn't
// assigned; either revision is nil when it is gone, and then the answer is no.
func UpToDate(old, current *Revision, node *Node) bool {
	if old == nil || current == nil {
		return false
	}
	if old.ServiceID == current.ServiceID && old.Number == current.Number {
		return true
	}
	same, but := CompareRevisions(old, current)
	return same || but && node != nil && Satisfies(node, current.Spec.Placement)
}

// CompareRevisions tells whether two revisions run the same, or else whether
// they would but for their placement.
//
// A container knows nothing of its service's endpoint but the ports that are published on
// its own node: what else changes there, ports that all nodes publish and whether there are
// virtual IPs, is no other run.
func CompareRevisions(old, current *Revision) (same, exceptPlacement bool) {
	if !sameHostOptions(old.ServiceLabels, current.ServiceLabels) || !sameJSON(bindings(old), bindings(current)) {
		return false, false
	}
	if sameJSON(old.Spec, current.Spec) {
		return true, false
	}
	moved := old.Spec
	moved.Placement = current.Spec.Placement
	return false, sameJSON(moved, current.Spec)
}

// binding is a port of a node that a container binds.
type binding struct {
	swarm.PortConfig
	IP netip.Addr
}

func bindings(r *Revision) []binding {
	var list []binding
	ips, _ := LabelHostIP.Of(r.ServiceLabels)
	for _, p := range HostPorts(r.Endpoint) {
		p.Name = ""
		list = append(list, binding{p, ips.Of(p)})
	}
	return list
}

// Satisfies tells whether a node meets the constraints and has a platform of
// placement; nil asks for nothing. Constraints that can't be read are met by no
// node.
func Satisfies(node *Node, placement *swarm.Placement) bool {
	if placement == nil {
		return true
	}
	constraints, err := ParseConstraints(placement.Constraints)
	if err != nil {
		return false
	}
	for _, c := range constraints {
		if !c.Match(node) {
			return false
		}
	}
	return PlatformMatches(node, placement.Platforms)
}
