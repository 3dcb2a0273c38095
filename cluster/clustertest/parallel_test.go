package clustertest

import (
	"fmt"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// updates follows the changes of one manager's database and knows which slots of each
// service an update has taken down: it stopped a task there that ran well, and none
// runs in its place yet. What fails or loses its node by itself doesn't count.
type updates struct {
	down map[string]map[uint32]bool
	// most is how many were down at the most, by service.
	most map[string]int
}

func newUpdates() *updates {
	return &updates{down: map[string]map[uint32]bool{}, most: map[string]int{}}
}

// take takes in a change; objects are all objects after it, by keyOf.
func (u *updates) take(before, after any, objects map[string]any) {
	switch was := before.(type) {
	case *cluster.Service:
		if after == nil {
			delete(u.down, was.ID)
		}
		return
	case *cluster.Task:
		is, _ := after.(*cluster.Task)
		u.takeTask(was, is, objects)
		return
	}
	switch is := after.(type) {
	case *cluster.Task:
		u.takeTask(nil, is, objects)
	case *cluster.Node:
		if is.Status.State != cluster.NodeDown {
			return
		}
		for _, object := range objects {
			if t, ok := object.(*cluster.Task); ok && t.NodeID == is.ID && t.Live() {
				delete(u.down[t.ServiceID], t.Slot)
			}
		}
	}
}

func (u *updates) takeTask(was, is *cluster.Task, objects map[string]any) {
	if is == nil {
		return
	}
	service, _ := objects[keyOf(&cluster.Service{ID: is.ServiceID})].(*cluster.Service)
	node, _ := objects[keyOf(&cluster.Node{ID: is.NodeID})].(*cluster.Node)
	stopped := was != nil && was.Live() && was.Status.State == cluster.StateRunning && is.Desired == cluster.StateShutdown
	switch {
	case service == nil:
	case stopped && is.Status.State == cluster.StateRunning && is.Revision != service.Revision && node != nil && node.Status.State == cluster.NodeReady:
		if u.down[is.ServiceID] == nil {
			u.down[is.ServiceID] = map[uint32]bool{}
		}
		u.down[is.ServiceID][is.Slot] = true
	case is.Desired == cluster.StateRemove, is.Live() && is.Status.State >= cluster.StateRunning:
		delete(u.down[is.ServiceID], is.Slot)
	}
}

// check tells which services have more slots down than their specs allow.
func (u *updates) check(objects map[string]any) (wrong []string) {
	for id, slots := range u.down {
		service, _ := objects[keyOf(&cluster.Service{ID: id})].(*cluster.Service)
		if service == nil || service.Spec.UpdateConfig == nil || service.Spec.UpdateConfig.Order == swarm.UpdateOrderStartFirst {
			continue
		}
		name := service.Spec.Name
		u.most[name] = max(u.most[name], len(slots))
		if most := int(service.Spec.UpdateConfig.Parallelism); most > 0 && len(slots) > most {
			wrong = append(wrong, fmt.Sprintf("an update took down %d slots of %s at once: %v; its parallelism is %d", len(slots), name, slots, most))
		}
	}
	return wrong
}
