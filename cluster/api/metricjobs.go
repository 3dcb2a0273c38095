package api

import (
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/telemetry"
	"skep/store"
)

// jobs tells when jobs were done last; known is what was told before, and what is returned is what
// is known now.
func jobs(to *telemetry.Reading, view store.View, known map[string]float64) map[string]float64 {
	now, shown := map[string]float64{}, 0
	for s := range view.Services() {
		if !s.Job() {
			continue
		}
		if at, done := jobDone(view, s); done {
			now[s.ID] = at
		} else if at, before := known[s.ID]; before {
			now[s.ID] = at
		}
		if at, any := now[s.ID]; any && shown < telemetry.NamedServices {
			to.Set(metricJobDone, at, s.Spec.Name)
			shown++
		}
	}
	return now
}

// jobDone is when the last task of a job's present run completed, if all have.
func jobDone(view store.View, s *cluster.Service) (at float64, done bool) {
	status := renderStatus(view, s)
	total, _ := s.Completions()
	if s.Global() {
		total = int(status.DesiredTasks + status.CompletedTasks) // those that are still to complete, and those that have
	}
	if status.CompletedTasks == 0 || int(status.CompletedTasks) < total {
		return 0, false
	}
	for t := range view.TasksOfService(s.ID) {
		if t.Revision == s.Revision && t.Status.State == cluster.StateComplete {
			at = max(at, seconds(t.Status.Since.Std()))
		}
	}
	return at, true
}

// What Swarm's own managers tell, by the same names, for dashboards that were made for them
// (Config.SwarmNames). As there, only the leader tells of the database.
var (
	swarmNodeInfo    = telemetry.NewGauge("swarm_node_info", "Information related to the swarm.", "swarm_id", "node_id")
	swarmNodeManager = telemetry.NewGauge("swarm_node_manager", "Whether this node is a manager or not.")
	swarmLeader      = telemetry.NewGauge("swarm_manager_leader", "Indicates if this manager node is a leader.")
	swarmNodes       = telemetry.NewGauge("swarm_manager_nodes", "The number of nodes.", "state")
	swarmTasks       = telemetry.NewGauge("swarm_manager_tasks_total", "The number of tasks in the cluster object store.", "state")
	swarmServices    = telemetry.NewGauge("swarm_manager_services_total", "The number of services in the cluster object store.")
	swarmNetworks    = telemetry.NewGauge("swarm_manager_networks_total", "The number of networks in the cluster object store.")
	swarmSecrets     = telemetry.NewGauge("swarm_manager_secrets_total", "The number of secrets in the cluster object store.")
	swarmConfigs     = telemetry.NewGauge("swarm_manager_configs_total", "The number of configs in the cluster object store.")
)

// endStates are the states of tasks that have ended.
var endStates = []cluster.State{
	cluster.StateComplete, cluster.StateShutdown, cluster.StateFailed, cluster.StateRejected, cluster.StateRemove, cluster.StateOrphaned,
}

// asSwarm tells of a manager what Swarm's tell, but for the database.
func asSwarm(to *telemetry.Reading, info swarm.Info, leads bool, view store.View) {
	to.When(swarmNodeManager, info.ControlAvailable)
	to.When(swarmLeader, leads)
	id := ""
	if c := view.Cluster(); c != nil {
		id = c.ID
	}
	to.Set(swarmNodeInfo, 1, id, info.NodeID)
}

// databaseAsSwarm tells of the database what Swarm's leader tells.
func databaseAsSwarm(to *telemetry.Reading, view store.View) {
	nodes := map[cluster.NodeState]int{}
	for n := range view.Nodes() {
		nodes[n.Status.State]++
	}
	for _, state := range []cluster.NodeState{cluster.NodeUnknown, cluster.NodeDown, cluster.NodeReady, cluster.NodeDisconnected} {
		to.Set(swarmNodes, float64(nodes[state]), state.String())
	}
	tasks := map[cluster.State]int{}
	for t := range view.Tasks() {
		tasks[t.Status.State]++
	}
	for _, state := range slices.Concat(liveStates[:], endStates) {
		to.Set(swarmTasks, float64(tasks[state]), state.String())
	}
	to.Set(swarmServices, float64(view.ServiceCount()))
	to.Set(swarmNetworks, float64(length(view.Networks())))
	to.Set(swarmSecrets, float64(length(view.Secrets())))
	to.Set(swarmConfigs, float64(length(view.Configs())))
}
