package api

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

const (
	// labelPrefix begins the labels that mean something to skep. One that skep
	// doesn't know is refused: somebody counts on it, or has mistyped it.
	labelPrefix = "skep."
	// labelSimulate begins the labels that the simulated driver reads.
	labelSimulate = "skep.simulate."
)

// knownLabels are the labels of a service by which users say what Swarm's spec
// has no field for, with the check of their value: nil, or what a value should be.
// Those that begin with cluster.LabelHost come on top.
var knownLabels = map[string]func(value string) error{
	"skep.start-deadline":        positiveDuration,
	cluster.LabelRestartMaxDelay: restartDelay,
	cluster.LabelRestartStable:   positiveDuration,
	cluster.LabelFence:           trueOrFalse,
	cluster.LabelAffinity:        serviceList,
	cluster.LabelAntiAffinity:    serviceList,
}

func positiveDuration(value string) error {
	if d, err := time.ParseDuration(value); err != nil || d <= 0 {
		return fail(cluster.ErrInvalid, "a duration such as 90s")
	}
	return nil
}

func serviceList(value string) error {
	for _, name := range strings.Split(value, ",") {
		if !dnsName.MatchString(strings.TrimSpace(name)) {
			return fail(cluster.ErrInvalid, "names or IDs of services, with commas between them")
		}
	}
	return nil
}

func restartDelay(value string) error {
	if d, err := time.ParseDuration(value); err != nil || d <= 0 || d > cluster.MaxRestartDelay {
		return fail(cluster.ErrInvalid, "a duration such as 5m, at most %s", cluster.MaxRestartDelay)
	}
	return nil
}

// checkLabels refuses labels of skep's that it doesn't know, or whose value makes
// no sense. Whether the cluster allows host options is for checkAllowed to say.
func checkLabels(spec *swarm.ServiceSpec) error {
	for _, label := range slices.Sorted(maps.Keys(spec.Labels)) {
		if !strings.HasPrefix(label, labelPrefix) || strings.HasPrefix(label, cluster.LabelHost) || strings.HasPrefix(label, labelSimulate) {
			continue
		}
		check := knownLabels[label]
		if check == nil {
			return fail(cluster.ErrInvalid, "label %s: skep knows no such label of a service; it knows %s and %s*",
				label, strings.Join(slices.Sorted(maps.Keys(knownLabels)), ", "), cluster.LabelHost)
		}
		if err := check(spec.Labels[label]); err != nil {
			return fail(cluster.ErrInvalid, "label %s: %q won't do, it takes %v", label, spec.Labels[label], err)
		}
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
	text, ok := spec.Labels[cluster.LabelRestartMaxDelay]
	if !ok {
		if _, alone := spec.Labels[cluster.LabelRestartStable]; alone {
			return fail(cluster.ErrInvalid, "label %s: it has no meaning without %s", cluster.LabelRestartStable, cluster.LabelRestartMaxDelay)
		}
		return nil
	}
	limit, _ := time.ParseDuration(text) // It has been checked.
	delay := cluster.DefaultRestartDelay
	if p := spec.TaskTemplate.RestartPolicy; p != nil && p.Delay != nil {
		delay = *p.Delay
	}
	if limit < delay {
		return fail(cluster.ErrInvalid, "label %s: %s is less than the restart delay of %s, from which the delay grows: set a lower --restart-delay", cluster.LabelRestartMaxDelay, text, delay)
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
			return fail(cluster.ErrInvalid, "label %s: a fenced service never runs two tasks of a slot, so it can't be updated in the order start-first: use stop-first", cluster.LabelFence)
		}
	}
	return nil
}

// checkNeighbours refuses labels about services that aren't there, or that no task
// could ever be placed with. old is the service as it is, nil when it is to be made:
// what its label says already may be of a service that is gone meanwhile.
func checkNeighbours(view store.View, old *cluster.Service, spec *swarm.ServiceSpec) error {
	near, away := map[string]bool{}, map[string]bool{}
	for _, label := range []string{cluster.LabelAffinity, cluster.LabelAntiAffinity} {
		for _, name := range cluster.Neighbours(spec.Labels, label) {
			other := serviceCalled(view, name)
			switch {
			case other == nil && old != nil && old.Spec.Labels[label] == spec.Labels[label]:
				continue
			case strings.EqualFold(name, spec.Name) || other != nil && old != nil && other.ID == old.ID:
				return fail(cluster.ErrInvalid, "label %s: %s is the service itself: with --replicas-max-per-node 1 its tasks keep away from each other", label, name)
			case other == nil:
				return fail(cluster.ErrInvalid, "label %s: there is no service %s: give the name or the whole ID of one", label, name)
			case label == cluster.LabelAffinity:
				near[other.ID] = true
			default:
				away[other.ID] = true
			}
			if near[other.ID] && away[other.ID] {
				return fail(cluster.ErrInvalid, "label %s: %s is in %s too", label, name, cluster.LabelAffinity)
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
		for _, name := range cluster.Neighbours(other.Spec.Labels, cluster.LabelAffinity) {
			next := serviceCalled(view, name)
			switch {
			case next == nil || seen[next.ID]:
			case next.ID == old.ID:
				return fail(cluster.ErrInvalid, "label %s: %s belongs to %s in turn, so that none could be placed before the other", cluster.LabelAffinity, other.Spec.Name, spec.Name)
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

// knownClusterLabels are those of the cluster itself, with the check of their value.
var knownClusterLabels = map[string]func(value string) error{
	cluster.LabelAllowHostOptions: trueOrFalse,
	cluster.LabelRevisionHistory:  revisionHistory,
}

func trueOrFalse(value string) error {
	if value != "true" && value != "false" {
		return fail(cluster.ErrInvalid, "true or false")
	}
	return nil
}

func revisionHistory(value string) error {
	if n, err := strconv.Atoi(value); err != nil || n < 0 || n > cluster.MaxRevisionHistory {
		return fail(cluster.ErrInvalid, "a number from 0 to %d", cluster.MaxRevisionHistory)
	}
	return nil
}

// knownNodeLabels are those of nodes, with the check of their value.
var knownNodeLabels = map[string]func(value string) error{
	cluster.LabelReserveCPUs:   func(value string) error { _, err := cluster.ReadCPUs(value); return err },
	cluster.LabelReserveMemory: func(value string) error { _, err := cluster.ReadSize(value); return err },
}

// checkClusterLabels does for the cluster's own labels what checkLabels does for
// those of services.
func checkClusterLabels(labels map[string]string) error {
	return checkKnown("cluster", knownClusterLabels, labels)
}

// checkNodeLabels does the same for a node's.
func checkNodeLabels(labels map[string]string) error {
	return checkKnown("node", knownNodeLabels, labels)
}

func checkKnown(kind string, known map[string]func(value string) error, labels map[string]string) error {
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		if !strings.HasPrefix(label, labelPrefix) {
			continue
		}
		check := known[label]
		if check == nil {
			return fail(cluster.ErrInvalid, "label %s: skep knows no such label of a %s; it knows %s",
				label, kind, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		if err := check(labels[label]); err != nil {
			return fail(cluster.ErrInvalid, "label %s: %q won't do, it takes %v", label, labels[label], err)
		}
	}
	return nil
}
