package api

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// explainService says what is in the way of a service.
func (s *Server) explainService(ctx context.Context, r *request) (response, error) {
	view := r.manager.Store().View()
	service, err := findService(view, r.vars("id"))
	if err != nil {
		return response{}, err
	}
	why := explain(view, service)
	if _, scheduled := cluster.ScheduleOf(service.Spec.Labels); scheduled && service.Job() {
		job := jobState(view, service, s.Now())
		why.Job = &job
	}
	why.ImageWatch = s.images.State(view, service, r.manager.Store().Now())
	return response{body: why}, nil
}

// maxWhyTexts bounds how many reasons and failures are told: each is a text of an engine.
const maxWhyTexts = 50

// explain says what is in the way of a service, by what the scheduler and the agents wrote
// into its tasks.
func explain(view store.View, service *cluster.Service) cluster.Why {
	status := renderStatus(view, service)
	why := cluster.Why{
		Service: service.Spec.Name, ID: service.ID, Mode: modeName(service.Spec.Mode),
		Running: int(status.RunningTasks), Desired: int(status.DesiredTasks), Completed: int(status.CompletedTasks),
		Fenced: cluster.Fenced(service.Spec.Labels),
	}
	hostname := func(id string) string {
		if node := view.Node(id); node != nil && node.Description.Hostname != "" {
			return node.Description.Hostname
		}
		return cmp.Or(id, "no node")
	}
	waiting := map[string]int{}
	filled := map[uint32]bool{}
	failures := map[[2]string]cluster.Failure{}
	for t := range view.TasksOfService(service.ID) {
		if t.Live() && !t.Status.State.Terminal() {
			filled[t.Slot] = true
			if text := waitsBecause(view, t); text != "" {
				waiting[text]++
			}
		}
		if said := t.Status.Err; said != "" && (t.Status.State == cluster.StateFailed || t.Status.State == cluster.StateRejected) {
			key := [2]string{hostname(t.NodeID), said}
			f := failures[key]
			f.Node, f.Text = key[0], said
			f.Tasks++
			if at := t.Status.Since.Std(); at.After(f.Last) {
				f.Last = at
			}
			failures[key] = f
		}
	}
	if empty := service.Replicas() - len(filled); empty > 0 && service.Spec.Mode.Replicated != nil {
		waiting["there is none: the last one of the slot ended, and its restart policy wants no other, or the next plan makes one"] += empty
	}
	if rollout := view.Rollout(service.ID); rollout != nil && !rollout.Done() && !rollout.Paused() && strings.Contains(rollout.Message, " waits for ") {
		waiting[rollout.Message] += max(int(rollout.Total), 1)
	}
	for text, n := range waiting {
		why.Waiting = append(why.Waiting, cluster.Reason{Tasks: n, Text: text})
	}
	slices.SortFunc(why.Waiting, func(a, b cluster.Reason) int {
		return cmp.Or(-cmp.Compare(a.Tasks, b.Tasks), strings.Compare(a.Text, b.Text))
	})
	why.Failures = slices.SortedFunc(maps.Values(failures), func(a, b cluster.Failure) int {
		return cmp.Or(-a.Last.Compare(b.Last), strings.Compare(a.Node, b.Node), strings.Compare(a.Text, b.Text))
	})
	why.Waiting = why.Waiting[:min(len(why.Waiting), maxWhyTexts)]
	why.Failures = why.Failures[:min(len(why.Failures), maxWhyTexts)]
	if rollout := view.Rollout(service.ID); rollout != nil {
		why.Rollout = &cluster.RolloutState{
			State: string(rollout.State), Message: rollout.Message, Revision: rollout.Revision, StartedAt: rollout.StartedAt.UTC(),
			Done: changedBy(view, rollout), Total: int(rollout.Total),
		}
	}
	excluded(view, service.Spec.TaskTemplate.Placement, &why)
	return why
}

// waitsBecause is why a task that is to run doesn't yet; empty when it runs.
func waitsBecause(view store.View, t *cluster.Task) string {
	switch node := view.Node(t.NodeID); {
	case t.Assigned() && node != nil && node.Status.State == cluster.NodeDown:
		return cluster.Sentences(fmt.Sprintf("node %s is down", node.Description.Hostname), node.Status.Message)
	case t.Status.State == cluster.StateRunning:
		return ""
	case t.Status.Err != "":
		return t.Status.Err
	case strings.HasPrefix(t.Status.Message, "waiting "):
		return t.Status.Message
	}
	return "it is " + t.Status.State.String()
}

// excluded counts the nodes that each condition of a placement excludes.
func excluded(view store.View, placement *swarm.Placement, why *cluster.Why) {
	var conditions []func(*cluster.Node) bool
	if placement != nil {
		for _, text := range placement.Constraints {
			parsed, err := cluster.ParseConstraints([]string{text})
			if err != nil {
				continue // No node is asked for what can't be read: see cluster.Satisfies.
			}
			conditions = append(conditions, parsed[0].Match)
			why.Constraints = append(why.Constraints, cluster.Exclusion{Constraint: text})
		}
		if len(placement.Platforms) > 0 {
			conditions = append(conditions, func(n *cluster.Node) bool { return cluster.PlatformMatches(n, placement.Platforms) })
			why.Constraints = append(why.Constraints, cluster.Exclusion{Constraint: "the image's platform"})
		}
	}
	for node := range view.Nodes() {
		why.Nodes++
		if !node.Schedulable() {
			why.Unavailable++
		}
		fits := true
		for i, meets := range conditions {
			if !meets(node) {
				why.Constraints[i].Nodes++
				fits = false
			}
		}
		if !fits {
			why.Excluded++
		}
	}
}
