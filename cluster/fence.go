package cluster

import "time"

const (
	// FenceLease is how long a node may run tasks of services with LabelFence after it
	// asked for the lease that the leader granted: longer than it takes to elect another
	// leader. A node without a lease stops them itself, and their replacements start only
	// when that must have happened.
	FenceLease = 5 * time.Second
	// fenceSlack is what managers wait on top of the lease and the grace period: for
	// clocks of managers that differ, and for the engine to do what it is told.
	fenceSlack = 5 * time.Second
	// DefaultStopGrace is how long a container may take to stop when its spec doesn't say.
	DefaultStopGrace = 10 * time.Second
)

// MessageNoEngine is the Status.Message of a node that is down because its engine
// doesn't answer: nobody can stop what runs there.
const MessageNoEngine = "the node's engine doesn't answer"

// MessageLeft is the Status.Message of a node that left the cluster for good: it
// stops what runs on it, and will never tell what became of that.
const MessageLeft = "the node left the swarm"

// MessageMassFailure is the Status.Message of a node that is spared for a while because so many
// were lost with it.
const MessageMassFailure = "no session with any manager; more than a third of the nodes vanished at once, so its tasks are left alone for 15s"

// Fenced tells whether a service with these labels is fenced.
func Fenced(labels map[string]string) bool {
	fenced, _ := LabelFence.Of(labels)
	return fenced
}

// Fenced tells whether tasks of the revision are; those of none aren't.
func (r *Revision) Fenced() bool { return r != nil && Fenced(r.ServiceLabels) }

// StopGrace is how long a container of the revision may take to stop.
func (r *Revision) StopGrace() time.Duration {
	if r == nil || r.Spec.ContainerSpec == nil || r.Spec.ContainerSpec.StopGracePeriod == nil {
		return DefaultStopGrace
	}
	return *r.Spec.ContainerSpec.StopGracePeriod
}

// FenceWait is how long after its node was found down a fenced task may still run.
func (r *Revision) FenceWait() time.Duration { return FenceLease + r.StopGrace() + fenceSlack }
