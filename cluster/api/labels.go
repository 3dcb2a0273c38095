package api

import (
	"maps"
	"slices"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// checkLabels refuses labels of skep's that it doesn't know, or whose value makes no
// sense, alone or beside the rest of the spec. Whether the cluster allows host options is for checkAllowed to say.
func checkLabels(spec *swarm.ServiceSpec) error {
	if err := cluster.CheckLabels(cluster.OnService, spec.Labels); err != nil {
		return err
	}
	if err := checkBackoff(spec); err != nil {
		return err
	}
	if err := checkFence(spec); err != nil {
		return err
	}
	host := &container.HostConfig{}
	if r := spec.TaskTemplate.Resources; r != nil && r.Limits != nil {
		host.Memory = r.Limits.MemoryBytes
	}
	return cluster.ApplyHostOptions(spec.Labels, host)
}

// checkBackoff refuses labels of the restart back-off that would change nothing.
func checkBackoff(spec *swarm.ServiceSpec) error {
	limit, ok := cluster.LabelRestartMaxDelay.Of(spec.Labels)
	if !ok {
		if _, alone := cluster.LabelRestartStable.Of(spec.Labels); alone {
			return fail(cluster.ErrInvalid, "label %s: it has no meaning without %s", cluster.LabelRestartStable.Name, cluster.LabelRestartMaxDelay.Name)
		}
		return nil
	}
	delay := cluster.DefaultRestartDelay
	if p := spec.TaskTemplate.RestartPolicy; p != nil && p.Delay != nil {
		delay = *p.Delay
	}
	if limit < delay {
		return fail(cluster.ErrInvalid, "label %s: %s is less than the restart delay of %s, from which the delay grows: set a lower --restart-delay", cluster.LabelRestartMaxDelay.Name, limit, delay)
	}
	return nil
}

// checkFence refuses what would run two tasks of a fenced slot side by side.
func checkFence(spec *swarm.ServiceSpec) error {
	if !cluster.Fenced(spec.Labels) {
		return nil
	}
	for _, config := range []*swarm.UpdateConfig{spec.UpdateConfig, spec.RollbackConfig} {
		if config != nil && config.Order == swarm.UpdateOrderStartFirst {
			return fail(cluster.ErrInvalid, "label %s: a fenced service never runs two tasks of a slot, so it can't be updated in the order start-first: use stop-first", cluster.LabelFence.Name)
		}
	}
	return nil
}

// checkNeighbours refuses labels about services that aren't there, or that no task
// could ever be placed with. old is the service as it is, nil when it is to be made:
// what its label says already may be of a service that is gone meanwhile.
func checkNeighbours(view store.View, old *cluster.Service, spec *swarm.ServiceSpec) error {
	near, away := map[string]bool{}, map[string]bool{}
	for _, label := range []*cluster.Label[[]string]{cluster.LabelAffinity, cluster.LabelAntiAffinity} {
		names, _ := label.Of(spec.Labels)
		for _, name := range names {
			other := serviceCalled(view, name)
			switch {
			case other == nil && old != nil && old.Spec.Labels[label.Name] == spec.Labels[label.Name]:
				continue
			case strings.EqualFold(name, spec.Name) || other != nil && old != nil && other.ID == old.ID:
				return fail(cluster.ErrInvalid, "label %s: %s is the service itself: with --replicas-max-per-node 1 its tasks keep away from each other", label.Name, name)
			case other == nil:
				return fail(cluster.ErrInvalid, "label %s: there is no service %s: give the name or the whole ID of one", label.Name, name)
			case label == cluster.LabelAffinity:
				near[other.ID] = true
			default:
				away[other.ID] = true
			}
			if near[other.ID] && away[other.ID] {
				return fail(cluster.ErrInvalid, "label %s: %s is in %s too", label.Name, name, cluster.LabelAffinity.Name)
			}
		}
	}
	if old == nil {
		return nil
	}
	// Services that belong to each other would wait for each other.
	seen := map[string]bool{}
	for queue := slices.Sorted(maps.Keys(near)); len(queue) > 0; queue = queue[1:] {
		other := view.Service(queue[0])
		names, _ := cluster.LabelAffinity.Of(other.Spec.Labels)
		for _, name := range names {
			next := serviceCalled(view, name)
			switch {
			case next == nil || seen[next.ID]:
			case next.ID == old.ID:
				return fail(cluster.ErrInvalid, "label %s: %s belongs to %s in turn, so that none could be placed before the other", cluster.LabelAffinity.Name, other.Spec.Name, spec.Name)
			default:
				seen[next.ID] = true
				queue = append(queue, next.ID)
			}
		}
	}
	return nil
}

// serviceCalled finds a service by its ID or name.
func serviceCalled(view store.View, name string) *cluster.Service {
	if s := view.Service(name); s != nil {
		return s
	}
	return view.ServiceNamed(name)
}

// checkAllowed refuses host options unless the cluster allows them.
func checkAllowed(tx *store.Tx, labels map[string]string) error {
	if !cluster.HasHostOptions(labels) {
		return nil
	}
	if record := tx.Cluster(); record != nil && cluster.AllowsHostOptions(record.Spec) {
		return nil
	}
	return fail(cluster.ErrDenied, "labels that begin with %s can give a service power over its nodes, and this cluster doesn't allow them: "+
		"allow them with `skep cluster update --allow-host-options`, or leave them out", cluster.LabelHost)
}
