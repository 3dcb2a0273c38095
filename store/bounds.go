package store

import (
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// What users may have the database hold. Every manager has all of it in memory, and reads it
// whole when it starts. What the leader does by itself follows from that, and isn't refused:
// a rollback must end.
const (
	// maxServices, and maxSecrets and maxConfigs, are some times as many as any cluster that is
	// known has.
	maxServices = 100_000
	maxSecrets  = 20_000
	maxConfigs  = 20_000
	// maxNetworks is what there is room for in VXLAN identifiers, and more than pools of the
	// usual size have.
	maxNetworks = 50_000
	// maxTasks is how many tasks all services may want: twice as many as skep is made for. Each
	// takes about a kilobyte.
	maxTasks = 2_000_000
	// maxBytes is for all specs and data: a thousand of the largest secrets, or a hundred thousand
	// services of two kilobytes with their last revisions.
	maxBytes = 512 << 20
)

// weight is what an object counts for.
type weight struct {
	bytes int
	// tasks are those that it wants; everywhere is how many it wants on each node.
	tasks, everywhere int
}

func (w weight) plus(o weight) weight {
	return weight{w.bytes + o.bytes, w.tasks + o.tasks, w.everywhere + o.everywhere}
}

func (w weight) minus(o weight) weight {
	return weight{w.bytes - o.bytes, w.tasks - o.tasks, w.everywhere - o.everywhere}
}

// on is how many tasks it wants when there are so many nodes.
func (w weight) on(nodes int) int { return w.tasks + w.everywhere*nodes }

func weighService(s *cluster.Service) weight {
	w := weight{bytes: encodedSize(&s.Spec) + encodedSize(s.Previous)}
	completions, _ := s.Completions()
	if w.tasks = s.Replicas() + completions; s.Global() {
		w.everywhere = 1
	}
	return w
}

func weighRevision(r *cluster.Revision) weight {
	return weight{bytes: encodedSize(&r.Spec) + labelsSize(r.ServiceLabels) + len(r.Auth)}
}

func weighSecret(s *cluster.Secret) weight {
	return weight{bytes: len(s.Spec.Data) + annotationsSize(s.Spec.Annotations)}
}

func weighConfig(c *cluster.Config) weight {
	return weight{bytes: len(c.Spec.Data) + annotationsSize(c.Spec.Annotations)}
}

func weighNetwork(n *cluster.Network) weight { return weight{bytes: encodedSize(&n.Spec)} }

// encodedSize is how long a thing is in the log. What can't be written there isn't put.
func encodedSize(v any) int {
	data, _ := cluster.Encode(v)
	return len(data)
}

func annotationsSize(a swarm.Annotations) int { return len(a.Name) + labelsSize(a.Labels) }

func labelsSize(labels map[string]string) (size int) {
	for name, value := range labels {
		size += len(name) + len(value)
	}
	return size
}

// checkBounds refuses to put an object of kind n in the place of before, which may be nil, when
// the database would hold more than it may. What takes no more than before did is let through.
func (tx *Tx) checkBounds(n kindNumber, before, object any) error {
	k, table := kinds[n-1], tx.s.table(n)
	if most := k.mostOf(); before == nil && most > 0 && table.len() >= most {
		return cluster.Errorf(cluster.ErrPrecondition, "the cluster has %d %ss, and takes no more: remove those that nobody needs", table.len(), k.wordOf())
	}
	was, next := weight{}, k.weightOf(object)
	if before != nil {
		was = k.weightOf(before)
	}
	all := tx.s.weight().minus(was).plus(next)
	nodes := tx.NodeCount()
	switch {
	case next.bytes > was.bytes && all.bytes > maxBytes:
		return cluster.Errorf(cluster.ErrPrecondition, "all specs, secrets and configs of the cluster may be %d MB, and would be %d MB: remove those that nobody needs, or keep large data elsewhere",
			maxBytes>>20, (all.bytes+1<<20-1)>>20)
	case next.on(nodes) > was.on(nodes) && all.on(nodes) > maxTasks:
		return cluster.Errorf(cluster.ErrPrecondition, "all services of the cluster may want %d tasks, and would want %d: give them fewer replicas", maxTasks, all.on(nodes))
	}
	return nil
}

// weight is what all objects count for.
func (s *state) weight() (all weight) {
	for _, t := range s.tables {
		all = all.plus(t.weight())
	}
	return all
}
