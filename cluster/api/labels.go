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
	if err := checkDependsTimeout(spec); err != nil {
		return err
	}
	if err := checkSchedule(spec); err != nil {
		return err
	}
	if err := checkRebalance(spec); err != nil {
		return err
	}
	if err := cluster.CheckImageWatch(spec); err != nil {
		return err
	}
	if _, pauses := cluster.LabelPauseAfter.Of(spec.Labels); pauses && modes(spec.Mode) == 1 && (spec.Mode.ReplicatedJob != nil || spec.Mode.GlobalJob != nil) {
		return fail(cluster.ErrInvalid, "label %s: a job's update runs all of it anew and replaces no task after the other: leave the label out", cluster.LabelPauseAfter.Name)
	}
	if err := checkPublishing(spec); err != nil {
		return err
	}
	if err := checkStaticAddresses(spec); err != nil {
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
	if cluster.Fenced(spec.Labels) && startsFirst(spec) {
		return fail(cluster.ErrInvalid, "label %s: a fenced service never runs two tasks of a slot, so it can't be updated in the order start-first: use stop-first", cluster.LabelFence.Name)
	}
	return nil
}

// checkDependsTimeout refuses a limit for a wait that there isn't.
func checkDependsTimeout(spec *swarm.ServiceSpec) error {
	_, waits := cluster.LabelDependsOn.Of(spec.Labels)
	if _, limited := cluster.LabelDependsOnTimeout.Of(spec.Labels); limited && !waits {
		return fail(cluster.ErrInvalid, "label %s: it has no meaning without %s", cluster.LabelDependsOnTimeout.Name, cluster.LabelDependsOn.Name)
	}
	return nil
}

// checkRebalance refuses to rebalance by itself what can't be rebalanced.
func checkRebalance(spec *swarm.ServiceSpec) error {
	auto, set := cluster.LabelRebalance.Of(spec.Labels)
	if _, quiet := cluster.LabelRebalanceQuiet.Of(spec.Labels); quiet && !set {
		return fail(cluster.ErrInvalid, "label %s: it has no meaning without %s", cluster.LabelRebalanceQuiet.Name, cluster.LabelRebalance.Name)
	}
	if auto && spec.Mode.Replicated == nil {
		return fail(cluster.ErrInvalid, "label %s: only replicated services can be rebalanced, in others it is the node or the job that says where a task runs", cluster.LabelRebalance.Name)
	}
	return nil
}

// checkDependencies refuses services that would wait for each other, by what is there: stacks
// make one service after the other, so those that aren't there yet are no mistake.
func checkDependencies(view store.View, spec *swarm.ServiceSpec) error {
	type step struct {
		cluster.Dependency
		path string
	}
	var queue []step
	further := func(path string, labels map[string]string) {
		for _, d := range cluster.Dependencies(labels) {
			queue = append(queue, step{d, path + " -> " + d.Service})
		}
	}
	further(spec.Name, spec.Labels)
	for seen := map[string]bool{}; len(queue) > 0; queue = queue[1:] {
		next := queue[0]
		name := strings.ToLower(next.Service)
		if name == strings.ToLower(spec.Name) {
			return fail(cluster.ErrInvalid, "label %s: service %s would wait for itself: %s", cluster.LabelDependsOn.Name, spec.Name, next.path)
		}
		if other := view.ServiceNamed(name); other != nil && !seen[name] {
			seen[name] = true
			further(next.path, other.Spec.Labels)
		}
	}
	return nil
}

// checkPublishing refuses labels about ports and virtual IPs that the service hasn't.
func checkPublishing(spec *swarm.ServiceSpec) error {
	endpoint := spec.EndpointSpec
	if endpoint == nil {
		endpoint = &swarm.EndpointSpec{}
	}
	if _, set := cluster.LabelPublish.Of(spec.Labels); set && !publishesOnAllNodes(endpoint) {
		return fail(cluster.ErrInvalid, "label %s: it has no meaning without a port that all nodes publish: publish one without mode=host, or leave the label out", cluster.LabelPublish.Name)
	}
	sticky, _ := cluster.LabelSticky.Of(spec.Labels)
	if sticky && (endpoint.Mode == swarm.ResolutionModeDNSRR || !spans(&spec.TaskTemplate) && !publishesOnAllNodes(endpoint)) {
		return fail(cluster.ErrInvalid, "label %s: it has no meaning without a virtual IP or a port that all nodes publish: give the service a network that spans nodes and --endpoint-mode vip, or leave the label out", cluster.LabelSticky.Name)
	}
	ips, set := cluster.LabelHostIP.Of(spec.Labels)
	if !set {
		return nil
	}
	left := maps.Clone(ips)
	for _, p := range endpoint.Ports {
		name := cluster.PortName(p.PublishedPort, p.Protocol)
		if _, own := ips[name]; !own {
			name = ""
		}
		if delete(left, name); ips.Of(p).IsValid() && cluster.NetworkMode(&spec.TaskTemplate) == "host" {
			return fail(cluster.ErrInvalid, "label %s: tasks on the network host bind the node's ports themselves: leave the label out", cluster.LabelHostIP.Name)
		}
	}
	if len(left) > 0 {
		name := slices.Min(slices.Collect(maps.Keys(left)))
		ip := ips[name]
		if name == "" {
			name = "any other one"
		}
		return fail(cluster.ErrInvalid, "label %s: the service publishes on %s no port, not %s: publish it, or leave it out of the label", cluster.LabelHostIP.Name, ip, name)
	}
	return nil
}

// checkStaticAddresses refuses what would run two tasks that are to have the same addresses,
// and tasks that have none.
func checkStaticAddresses(spec *swarm.ServiceSpec) error {
	switch static, _ := cluster.LabelStaticAddresses.Of(spec.Labels); {
	case static && startsFirst(spec):
		return fail(cluster.ErrInvalid, "label %s: a task gets its addresses from the one before it, which must have stopped, so the service can't be updated in the order start-first: use stop-first", cluster.LabelStaticAddresses.Name)
	case static && !spans(&spec.TaskTemplate) && !publishesOnAllNodes(spec.EndpointSpec):
		return fail(cluster.ErrInvalid, "label %s: tasks have no addresses without a network that spans nodes: give the service one, or leave the label out", cluster.LabelStaticAddresses.Name)
	}
	return nil
}

// spans tells whether a task is on a network of the cluster's.
func spans(task *swarm.TaskSpec) bool {
	return len(task.Networks) > 0 && cluster.NetworkMode(task) == ""
}

func startsFirst(spec *swarm.ServiceSpec) bool {
	for _, config := range []*swarm.UpdateConfig{spec.UpdateConfig, spec.RollbackConfig} {
		if config != nil && config.Order == swarm.UpdateOrderStartFirst {
			return true
		}
	}
	return false
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
