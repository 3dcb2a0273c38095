package cluster

import "github.com/docker/docker/api/types/swarm"

// CheckPreferences refuses preferences that mean nothing. Swarm knows labels only,
// and ignores the rest in silence; here each key of a constraint is one.
func CheckPreferences(preferences []swarm.PlacementPreference) error {
	for i, p := range preferences {
		if p.Spread == nil {
			return Say(ErrInvalid, "Placement.Preferences[%d]: only spread=KEY is known", i)
		}
		if _, _, known := lookUp(p.Spread.SpreadDescriptor, &Node{}); !known {
			return Say(ErrInvalid, "Placement.Preferences[%d]: spread=%s means nothing, there are %s", i, p.Spread.SpreadDescriptor, constraintKeys)
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
