package scheduler

import (
	"reflect"
	"strings"
	"time"

	"skep/cluster"
	"skep/cluster/telemetry"
	"skep/store"
)

// measure counts what plans want and what becomes of tasks.
type measure struct {
	telemetry.Scheduler
	names map[string]bool
	kinds map[reflect.Type]string
}

func newMeasure(metrics telemetry.Scheduler) measure {
	return measure{metrics, map[string]bool{}, map[reflect.Type]string{}}
}

func (m *measure) plan(took time.Duration, result Result) {
	m.Plan.Took(took)
	count := map[reflect.Type]int{}
	for _, intent := range result.Intents {
		count[reflect.TypeOf(intent)]++
	}
	for kind, n := range count {
		name := m.kinds[kind]
		if name == "" {
			name = strings.ToLower(kind.Elem().Name())
			m.kinds[kind] = name
		}
		m.Intents.Add(n, name)
	}
}

// task counts a task that was given a node, that runs, or that ended by itself.
func (m *measure) task(view store.View, before, after *cluster.Task) {
	if after == nil {
		return
	}
	if after.Assigned() && (before == nil || !before.Assigned()) {
		m.Placement.Took(after.UpdatedAt.Sub(after.CreatedAt))
	}
	if before == nil {
		return
	}
	if before.RunningAt == 0 && after.RunningAt != 0 {
		m.Start.Took(after.RunningAt.Sub(begun(after)))
	}
	if state := after.Status.State; state.Terminal() && !before.Status.State.Terminal() && state != cluster.StateShutdown && state != cluster.StateRemove {
		m.Ends.Add(1, m.service(view, after.ServiceID), state.String())
	}
}

func (m *measure) service(view store.View, id string) string {
	s := view.Service(id)
	switch {
	case s == nil:
		return telemetry.OtherServices
	case m.names[s.Spec.Name]:
	case len(m.names) >= telemetry.NamedServices:
		return telemetry.OtherServices
	default:
		m.names[s.Spec.Name] = true
	}
	return s.Spec.Name
}
