package placement

import (
	"slices"
	"strings"

	"skep/cluster"
)

// neighbour is another service that a requirement is about.
type neighbour struct{ id, name string }

// neighbours finds the services that a label names. One that is gone has no ID, and
// so no tasks.
func neighbours(labels map[string]string, label *cluster.Label[[]string], around Surroundings) []neighbour {
	var list []neighbour
	names, _ := label.Of(labels)
	for _, name := range names {
		n := neighbour{name: name}
		if around.ServiceID != nil {
			n.id = around.ServiceID(name)
		}
		list = append(list, n)
	}
	return list
}

// ChangeService takes in that a service is new, changed or gone: which others it
// keeps away from. It tells whether that changed.
func (l *Ledger) ChangeService(before, after *cluster.Service) (changed bool) {
	shuns := func(s *cluster.Service) []string {
		if s == nil {
			return nil
		}
		names, _ := cluster.LabelAntiAffinity.Of(s.Spec.Labels)
		return names
	}
	was, is := shuns(before), shuns(after)
	if slices.Equal(was, is) {
		return false
	}
	for _, name := range was {
		key := strings.ToLower(name)
		l.antiAffinityBy[key] = slices.DeleteFunc(l.antiAffinityBy[key], func(n neighbour) bool { return n.id == before.ID })
		if len(l.antiAffinityBy[key]) == 0 {
			delete(l.antiAffinityBy, key)
		}
	}
	for _, name := range is {
		key := strings.ToLower(name)
		l.antiAffinityBy[key] = append(l.antiAffinityBy[key], neighbour{after.ID, after.Spec.Name})
	}
	return true
}

// away are the services whose tasks must not be on the same node: those that the
// revision's service keeps away from, and those that keep away from it.
func (l *Ledger) away(r *cluster.Revision, around Surroundings) []neighbour {
	away := neighbours(r.ServiceLabels, cluster.LabelAntiAffinity, around)
	if len(l.antiAffinityBy) == 0 {
		return away
	}
	for _, name := range []string{r.ServiceID, r.ServiceName} {
		away = append(away, l.antiAffinityBy[strings.ToLower(name)]...)
	}
	return away
}

// nearEnough tells whether the node has a task of each service that must be there;
// a task that is to stop won't be.
func nearEnough(l *Ledger, q *Requirement, n *Node) (string, bool) {
	for _, other := range q.near {
		if l.loads[other.id].on(n).wanted <= 0 {
			return other.name, false
		}
	}
	return "", true
}

// farEnough tells whether the node has no task of services that must not be there;
// one that is to stop still is.
func farEnough(l *Ledger, q *Requirement, n *Node) (string, bool) {
	for _, other := range q.far {
		if l.loads[other.id].on(n).present > 0 {
			return other.name, false
		}
	}
	return "", true
}
