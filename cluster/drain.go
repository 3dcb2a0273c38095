package cluster

import (
	"maps"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// MaxDrain is the longest that a node can be drained for.
const MaxDrain = 366 * 24 * time.Hour

// Drained answers whoever drained a node for a while.
type Drained struct {
	NodeID string
	// Until is when it is active again.
	Until time.Time
}

// DrainFor is a node's spec with which it is drained for a while, from now on. The time is rounded up
// to a second, as the label has it.
func DrainFor(spec swarm.NodeSpec, now time.Time, length time.Duration) (swarm.NodeSpec, error) {
	if length <= 0 || length > MaxDrain {
		return spec, Errorf(ErrInvalid, "drain for %v: a node can be drained for a time above 0 and at most %v", length, MaxDrain)
	}
	spec.Availability = swarm.NodeAvailabilityDrain
	spec.Labels = maps.Clone(spec.Labels)
	if spec.Labels == nil {
		spec.Labels = map[string]string{}
	}
	spec.Labels[LabelDrainUntil.Name] = now.Add(length + time.Second - 1).UTC().Truncate(time.Second).Format(time.RFC3339)
	return spec, nil
}

// DrainsUntil is when a drained node is active again; zero when nobody said.
func DrainsUntil(spec swarm.NodeSpec) time.Time {
	if spec.Availability != swarm.NodeAvailabilityDrain {
		return time.Time{}
	}
	at, _ := LabelDrainUntil.Of(spec.Labels)
	return at
}

// Activated is the spec of a drained node whose time is over.
func Activated(spec swarm.NodeSpec) swarm.NodeSpec {
	spec.Availability = swarm.NodeAvailabilityActive
	return withoutDrainUntil(spec)
}

// CheckDrainUntil is the spec that a user wrote in the place of old, without the end of a drain that is over with it:
// clients send back the labels that they read. It refuses the end of a drain that isn't one.
func CheckDrainUntil(old, spec swarm.NodeSpec) (swarm.NodeSpec, error) {
	text, ends := spec.Labels[LabelDrainUntil.Name]
	switch {
	case !ends || spec.Availability == swarm.NodeAvailabilityDrain:
		return spec, nil
	case text != old.Labels[LabelDrainUntil.Name]:
		return spec, Errorf(ErrInvalid, "label %s: the node's availability is %s: it is for nodes that are drained", LabelDrainUntil.Name, spec.Availability)
	}
	return withoutDrainUntil(spec), nil
}

func withoutDrainUntil(spec swarm.NodeSpec) swarm.NodeSpec {
	spec.Labels = maps.Clone(spec.Labels)
	delete(spec.Labels, LabelDrainUntil.Name)
	return spec
}
