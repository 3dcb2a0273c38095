package stack

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// Standing is how far a service is on its way to what its spec wants.
type Standing struct {
	// Done tells that it is there. What ran to its end as it was to is there, too.
	Done bool
	// Failed tells that it won't get there by itself.
	Failed bool
	// Stuck tells the same, unless the scheduler is just about to do something.
	Stuck bool
	Text  string
}

// Judge tells how far a service is. tasks are those of it that run what it wants now. updated
// tells whether it was just updated: of an older update it says nothing.
func Judge(service swarm.Service, tasks []swarm.Task, updated bool) Standing {
	if status := service.UpdateStatus; status != nil && updated {
		switch status.State {
		case swarm.UpdateStatePaused:
			// Where it is to be looked at it is as it should be.
			s := Standing{Text: status.Message, Done: strings.Contains(status.Message, "as label "+cluster.LabelPauseAfter.Name)}
			s.Failed = !s.Done
			return s
		case swarm.UpdateStateRollbackPaused:
			return Standing{Failed: true, Text: status.Message}
		case swarm.UpdateStateRollbackCompleted:
			return Standing{Failed: true, Text: "it was rolled back: " + status.Message}
		case swarm.UpdateStateUpdating, swarm.UpdateStateRollbackStarted:
			return Standing{Text: fmt.Sprintf("%s, %s", status.State, running(tasks))}
		}
	}
	spec := service.Spec
	if schedule, ok := spec.Labels[cluster.LabelSchedule.Name]; ok {
		return Standing{Done: true, Text: "it runs by its schedule, " + schedule}
	}
	job := spec.Mode.ReplicatedJob != nil || spec.Mode.GlobalJob != nil
	// Of each slot the task that came last.
	last := map[string]swarm.Task{}
	for _, t := range tasks {
		key := fmt.Sprint(t.Slot, " ")
		if spec.Mode.Global != nil || spec.Mode.GlobalJob != nil {
			key = t.NodeID
		}
		if old, ok := last[key]; !ok || t.CreatedAt.After(old.CreatedAt) {
			last[key] = t
		}
	}
	policy := swarm.RestartPolicyConditionAny
	if p := spec.TaskTemplate.RestartPolicy; p != nil && p.Condition != "" {
		policy = p.Condition
	}
	var runs, ended, gaveUp uint64
	for _, t := range last {
		switch t.Status.State {
		case swarm.TaskStateRunning:
			runs++
		case swarm.TaskStateComplete:
			ended++
		case swarm.TaskStateFailed, swarm.TaskStateRejected, swarm.TaskStateOrphaned:
			gaveUp++
		}
	}
	wanted := uint64(0)
	if service.ServiceStatus != nil {
		wanted = service.ServiceStatus.DesiredTasks
	}
	switch {
	case spec.Mode.Replicated != nil && spec.Mode.Replicated.Replicas != nil:
		wanted = *spec.Mode.Replicated.Replicas
	case spec.Mode.ReplicatedJob != nil && spec.Mode.ReplicatedJob.TotalCompletions != nil:
		wanted = *spec.Mode.ReplicatedJob.TotalCompletions
	}
	if spec.Mode.Global != nil || spec.Mode.GlobalJob != nil {
		wanted = max(wanted, runs+ended+gaveUp)
	}
	s := Standing{Text: running(tasks)}
	switch {
	case job:
		s.Text = fmt.Sprintf("%d of %d tasks are complete", ended, wanted)
		s.Done = ended >= wanted
	case policy != swarm.RestartPolicyConditionAny:
		s.Text = fmt.Sprintf("%d of %d tasks run or are complete", runs+ended, wanted)
		s.Done = runs+ended >= wanted
	default:
		s.Text = fmt.Sprintf("%d of %d tasks run", runs, wanted)
		s.Done = runs >= wanted
	}
	if why := waits(last); !s.Done && why != "" {
		s.Text += ": " + why
	}
	// Under the default policy there is always another task.
	s.Stuck = !s.Done && gaveUp > 0 && (job || policy != swarm.RestartPolicyConditionAny)
	return s
}

func running(tasks []swarm.Task) string {
	n := 0
	for _, t := range tasks {
		if t.Status.State == swarm.TaskStateRunning {
			n++
		}
	}
	return fmt.Sprintf("%d tasks run", n)
}

// waits is what the tasks wait for, or failed of, as the first of them says.
func waits(tasks map[string]swarm.Task) string {
	for _, key := range slices.Sorted(maps.Keys(tasks)) {
		if t := tasks[key]; t.Status.Err != "" {
			return t.Status.Err
		}
	}
	return ""
}
