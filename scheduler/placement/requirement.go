package placement

import "skep/cluster"

// Resources are what a task reserves, or a node has.
type Resources struct {
	NanoCPUs    int64
	MemoryBytes int64
}

func (r Resources) isZero() bool { return r == Resources{} }

func (r *Resources) add(other Resources) {
	r.NanoCPUs += other.NanoCPUs
	r.MemoryBytes += other.MemoryBytes
}

func (r *Resources) sub(other Resources) {
	r.NanoCPUs -= other.NanoCPUs
	r.MemoryBytes -= other.MemoryBytes
}

// Requirement is what a revision asks of a node, read once for all its tasks.
type Requirement struct {
	service     string
	revision    uint64
	resources   Resources
	constraints []cluster.Constraint
	unreadable  bool // constraints that don't parse are met nowhere
	spec        *cluster.Revision
	maxPerNode  int32
}

// Require reads the requirement of a revision.
func Require(r *cluster.Revision) Requirement {
	q := Requirement{service: r.ServiceID, revision: r.Number, spec: r, resources: reservations(r)}
	if p := r.Spec.Placement; p != nil {
		q.maxPerNode = int32(min(p.MaxReplicas, 1<<30))
		if len(p.Constraints) > 0 {
			var err error
			q.constraints, err = cluster.ParseConstraints(p.Constraints)
			q.unreadable = err != nil
		}
	}
	return q
}

func reservations(r *cluster.Revision) Resources {
	if r.Spec.Resources == nil || r.Spec.Resources.Reservations == nil {
		return Resources{}
	}
	reserved := r.Spec.Resources.Reservations
	return Resources{NanoCPUs: reserved.NanoCPUs, MemoryBytes: reserved.MemoryBytes}
}
