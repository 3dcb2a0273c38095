package cluster

import "github.com/docker/docker/api/types/swarm"

// Capacity is how much of the node's CPUs and memory services can reserve: what the
// machine has, less what its labels keep back. A label that can't be read keeps
// back nothing.
func (n *Node) Capacity() (nanoCPUs, memoryBytes int64) {
	nanoCPUs, memoryBytes = n.Description.Resources.NanoCPUs, n.Description.Resources.MemoryBytes
	if reserve, ok := LabelReserveCPUs.Of(n.Spec.Labels); ok {
		nanoCPUs = max(nanoCPUs-reserve, 0)
	}
	if reserve, ok := LabelReserveMemory.Of(n.Spec.Labels); ok {
		memoryBytes = max(memoryBytes-reserve, 0)
	}
	return nanoCPUs, memoryBytes
}

// MaxPreferences is how many preferences a service may have: each is a level of a tree of
// all nodes.
const MaxPreferences = 16

// CheckPreferences refuses preferences that mean nothing. Swarm knows labels only,
// and ignores the rest in silence; here each key of a constraint is one.
func CheckPreferences(preferences []swarm.PlacementPreference) error {
	for i, p := range preferences {
		if p.Spread == nil {
			return Errorf(ErrInvalid, "Placement.Preferences[%d]: only spread=KEY is known", i)
		}
		if _, _, known := lookUp(p.Spread.SpreadDescriptor, &Node{}); !known {
			return Errorf(ErrInvalid, "Placement.Preferences[%d]: spread=%s means nothing, there are %s", i, p.Spread.SpreadDescriptor, constraintKeys)
		}
	}
	return nil
}

// Attribute is the value of a constraint's key on a node; empty when the node has
// none.
func Attribute(key string, node *Node) string {
	value, _, _ := lookUp(key, node)
	return value
}
