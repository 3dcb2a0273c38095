package scheduler

import (
	"fmt"
	"strings"
	"time"

	"skep/cluster"
)

// dependencies are what the service's tasks wait for, for as long as its current revision
// hasn't had it.
type dependencies struct {
	// unmet says what is missing; empty when tasks of the current revision get nodes.
	unmet string
	// late says how long an update may wait at most when it has waited for longer.
	late time.Duration
}

// Depending is a service that waits for others to be something.
type Depending struct {
	ServiceID string
	// On are the names of the others, which may not be there.
	On []string
}

// awaitDependencies finds out whether tasks of the current revision may get nodes: once all
// that the service depends on was so, or when one of them has had a node without that.
func (w *servicePlan) awaitDependencies(r *rollout) {
	if _, set := w.service.Spec.Labels[cluster.LabelDependsOn.Name]; !set || !w.current.DependsMet.IsZero() {
		return
	}
	var unmet, names []string
	if !w.begun() {
		for _, d := range cluster.Dependencies(w.service.Spec.Labels) {
			names = append(names, d.Service)
			if why := w.lacks(d); why != "" {
				unmet = append(unmet, why)
			}
		}
	}
	if len(unmet) == 0 {
		w.intend(&meet{ServiceID: w.id, Number: w.current.Number})
		return
	}
	w.depends.unmet = "waits for " + strings.Join(unmet, ", and for ")
	w.result.Depending = append(w.result.Depending, Depending{w.id, names})
	if !r.running {
		return // There is nothing that could fail: a new service waits on.
	}
	limit := w.dependsTimeout()
	if end := cluster.At(r.StartedAt.Add(limit)); end > w.now {
		w.wakeAt(end)
	} else {
		w.depends.late = limit
	}
}

func (v *serviceView) dependsTimeout() time.Duration {
	if limit, ok := cluster.LabelDependsOnTimeout.Of(v.service.Spec.Labels); ok {
		return limit
	}
	return cluster.DefaultDependsTimeout
}

// begun tells whether a task of the current revision was ever given a node.
func (w *servicePlan) begun() bool {
	for i := range w.slots {
		for _, t := range w.slots[i].tasks {
			if t.Revision == w.current.Number && t.Assigned() {
				return true
			}
		}
	}
	return false
}

// lacks says what a dependency isn't yet; empty when it is.
func (v *serviceView) lacks(d cluster.Dependency) string {
	s := v.View.ServiceNamed(d.Service)
	if s == nil {
		return fmt.Sprintf("service %s, which isn't there yet", d.Service)
	}
	current := v.View.Revision(s.ID, s.Revision)
	wanted, slots := 1, 0 // A service without tasks is nothing of the kind.
	switch {
	case s.Global():
	case s.Job() && d.Condition == cluster.ConditionCompleted:
		wanted, _ = s.Completions()
	case !s.Job():
		wanted = max(s.Replicas(), 1)
	}
	done := make(map[uint32]bool)
	for t := range v.View.TasksOfService(s.ID) {
		if !t.Live() || t.Revision != s.Revision && (s.Job() || !cluster.UpToDate(v.View.Revision(s.ID, t.Revision), current, v.View.Node(t.NodeID))) {
			if s.Global() && t.Live() {
				return d.String()
			}
			continue
		}
		switch is := meets(t, d.Condition); {
		case is && s.Global():
			slots++
		case is && !done[t.Slot]:
			done[t.Slot] = true
			slots++
		case !is && s.Global():
			return d.String()
		}
	}
	if slots < wanted {
		return d.String()
	}
	return ""
}

// meets tells whether a task is as a condition wants all tasks of its service.
func meets(t *cluster.Task, c cluster.Condition) bool {
	state := t.Status.State
	switch c {
	case cluster.ConditionCompleted:
		return state == cluster.StateComplete
	case cluster.ConditionStarted:
		return state == cluster.StateStarting && t.Status.PID != 0 || state == cluster.StateRunning || state == cluster.StateComplete
	default: // a task of a job that is done was well
		return state == cluster.StateRunning || t.Desired == cluster.StateComplete && state == cluster.StateComplete
	}
}

// meet writes that what a revision depends on was as it should be.
type meet struct {
	ServiceID string
	Number    uint64
}

// Apply does it once.
func (m *meet) Apply(tx *Tx) error {
	old := tx.Revision(m.ServiceID, m.Number)
	if old == nil || !old.DependsMet.IsZero() {
		return nil
	}
	next := *old
	next.DependsMet = tx.Now()
	if err := tx.Put(&next); err != nil {
		return fmt.Errorf("write revision %s: %w", cluster.RevisionID(m.ServiceID, m.Number), err)
	}
	return nil
}

func (m *meet) String() string {
	return "meet dependencies of " + cluster.RevisionID(m.ServiceID, m.Number)
}
