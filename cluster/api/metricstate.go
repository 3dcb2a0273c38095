package api

import (
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/telemetry"
	"skep/store"
)

// shownNodes is how many nodes have series of their own; of services see telemetry.NamedServices. What is
// beyond is tallied by skep_metrics_nodes_dropped and skep_metrics_services_dropped.
const shownNodes = 2000

var (
	metricBuild   = telemetry.NewGauge("skep_build_info", "Which skep this node runs; always 1.", "version", "goversion")
	metricNode    = telemetry.NewGauge("skep_node_info", "Which node this is; always 1.", "node", "hostname", "role")
	metricStarted = telemetry.NewGauge("skep_start_time_seconds", "When the daemon was started, in seconds since 1970.")

	metricHasLeader = telemetry.NewGauge("skep_raft_has_leader", "Whether this manager knows of a leader.")
	metricIsLeader  = telemetry.NewGauge("skep_raft_is_leader", "Whether this manager leads and takes writes.")
	metricState     = telemetry.NewGauge("skep_raft_state", "What this manager is in raft; 1 for one of the states.", "state")
	metricTerm      = telemetry.NewGauge("skep_raft_term", "The latest term that this manager has seen.")
	metricLast      = telemetry.NewGauge("skep_raft_last_index", "The last entry in this manager's log.")
	metricCommit    = telemetry.NewGauge("skep_raft_commit_index", "The last entry that this manager knows to be committed.")
	metricApplied   = telemetry.NewGauge("skep_raft_applied_index", "The last entry in this manager's copy of the database.")
	metricSnapshot  = telemetry.NewGauge("skep_raft_snapshot_index", "The last entry in this manager's latest snapshot.")
	metricContact   = telemetry.NewGauge("skep_raft_last_contact_seconds", "How long ago this manager heard of the leader; 0 on the leader.")
	metricVoters    = telemetry.NewGauge("skep_raft_voters", "How many managers have a vote.")
	metricReachable = telemetry.NewGauge("skep_raft_voters_reachable", "How many managers with a vote answer the leader; on the leader only.")
	metricTolerance = telemetry.NewGauge("skep_raft_failure_tolerance", "How many more managers may fail before nothing can be changed; on the leader only.")
	metricObjects   = telemetry.NewGauge("skep_store_objects", "Objects in this manager's copy of the database.", "kind")
	metricBackup    = telemetry.NewGauge("skep_backup_last_success_timestamp_seconds", "When the database was last backed up, in seconds since 1970; 0 for never.")

	// What follows is said by the leader only.
	metricService  = telemetry.NewGauge("skep_service_info", "A service and its stack, if it is of one; always 1.", "service", "stack", "mode")
	metricDesired  = telemetry.NewGauge("skep_service_tasks_desired", "How many tasks of a service are to run.", "service")
	metricRunning  = telemetry.NewGauge("skep_service_tasks_running", "How many tasks of a service run.", "service")
	metricTasks    = telemetry.NewGauge("skep_service_tasks", "The tasks of a service that are to run, by state.", "service", "state")
	metricWaiting  = telemetry.NewGauge("skep_service_tasks_waiting", "The tasks of a service that wait, by reason.", "service", "reason")
	metricUpdate   = telemetry.NewGauge("skep_service_update_state", "The state of a service's last update; 1 for the one that it is in.", "service", "state")
	metricProgress = telemetry.NewGauge("skep_service_update_progress_ratio", "Which part of the slots that an update changes have their new task.", "service")
	metricBegan    = telemetry.NewGauge("skep_service_update_started_timestamp_seconds", "When a service's last update began, in seconds since 1970.", "service")
	metricNodes    = telemetry.NewGauge("skep_nodes", "Nodes by state.", "state")
	metricNodeIs   = telemetry.NewGauge("skep_node_state", "The state of a node; 1 for the one that it is in.", "node", "hostname", "state")
	metricBrake    = telemetry.NewGauge("skep_liveness_brake", "Whether nodes are spared for a while because so many were lost at once.")
	metricJobDone  = telemetry.NewGauge("skep_job_last_success_timestamp_seconds", "When all tasks of a job were complete last, as far as this leader knows, in seconds since 1970.", "service")
	metricNodeHas  = telemetry.NewGauge("skep_node_resources", "Processors and bytes of memory: those that a node has, those that its tasks reserve, and those that a label keeps back.", "node", "hostname", "resource", "what")

	metricServicesDropped = telemetry.NewGauge("skep_metrics_services_dropped", "Services that are added up as "+telemetry.OtherServices+".")
	metricNodesDropped    = telemetry.NewGauge("skep_metrics_nodes_dropped", "Nodes that have no series of their own.")
)

// stateReader reads the state of the node and, on a manager, of its copy of the database.
type stateReader struct {
	server  *Server
	started time.Time

	mu sync.Mutex // guards the fields below
	// last is what was read last of the database: when, and whether as the leader; nil for nothing.
	last *telemetry.Reading
	at   time.Time
	led  bool
	// done are the last successes of jobs, by ID. A new run of a job removes the tasks of the last one.
	done map[string]float64
}

// read reads everything.
func (c *stateReader) read(to *telemetry.Reading) {
	s := c.server
	info := s.Node.Info()
	role := swarm.NodeRoleWorker
	if info.ControlAvailable {
		role = swarm.NodeRoleManager
	}
	to.Set(metricBuild, 1, s.Version, runtime.Version())
	to.Set(metricStarted, seconds(c.started))
	if info.NodeID != "" {
		to.Set(metricNode, 1, info.NodeID, s.Hostname, string(role))
	}
	manager := s.Node.Manager()
	if manager == nil {
		return
	}
	health := manager.Health()
	leads := consensus(to, health, manager.LeaderID(), manager.Reachable())
	view := manager.Store().View()
	if s.SwarmNames {
		asSwarm(to, info, leads, view)
	}
	to.Add(c.database(view, leads))
}

// seconds is an instant as Prometheus has them; 0 for none.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

// consensus tells how this manager stands in raft, and whether it leads.
func consensus(to *telemetry.Reading, health cluster.ManagerHealth, leader string, voters map[string]bool) (leads bool) {
	leads = health.Leader && health.Ready
	to.When(metricHasLeader, leader != "")
	to.When(metricIsLeader, leads)
	for _, state := range []string{"follower", "candidate", "leader", "shutdown"} {
		to.When(metricState, health.State == state, state)
	}
	to.Set(metricTerm, float64(health.Term))
	to.Set(metricLast, float64(health.LastIndex))
	to.Set(metricCommit, float64(health.CommitIndex))
	to.Set(metricApplied, float64(health.AppliedIndex))
	to.Set(metricSnapshot, float64(health.SnapshotIndex))
	to.Set(metricContact, health.LastContact.Seconds())
	to.Set(metricVoters, float64(len(voters)))
	if leads {
		answer := 0
		for _, reachable := range voters {
			if reachable {
				answer++
			}
		}
		to.Set(metricReachable, float64(answer))
		to.Set(metricTolerance, float64(answer-(len(voters)/2+1)))
	}
	return leads
}

// database reads the database, or gives what was read a moment ago.
func (c *stateReader) database(view store.View, leads bool) *telemetry.Reading {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.server.Now()
	// A manager that begins or ceases to lead has other things to say.
	if c.last != nil && c.led == leads && now.Sub(c.at).Abs() < stateLasts {
		return c.last
	}
	to := &telemetry.Reading{}
	objects(to, view)
	if leads {
		nodes(to, view, services(to, view))
		c.done = jobs(to, view, c.done)
		if c.server.SwarmNames {
			databaseAsSwarm(to, view)
		}
	}
	c.last, c.at, c.led = to, now, leads
	return to
}

func objects(to *telemetry.Reading, view store.View) {
	count := func(kind string, n int) { to.Set(metricObjects, float64(n), kind) }
	count("node", view.NodeCount())
	count("service", view.ServiceCount())
	count("task", view.TaskCount())
	count("attachment", view.AttachmentCount())
	count("secret", length(view.Secrets()))
	count("config", length(view.Configs()))
	count("network", length(view.Networks()))
	if c := view.Cluster(); c != nil {
		to.Set(metricBackup, seconds(c.BackupAt))
	}
}

func length[T any](all func(func(T) bool)) (n int) {
	all(func(T) bool { n++; return true })
	return n
}

// liveStates are the states of tasks that are on their way, or run.
var liveStates = [...]cluster.State{
	cluster.StateNew, cluster.StatePending, cluster.StateAssigned, cluster.StateAccepted,
	cluster.StatePreparing, cluster.StateReady, cluster.StateStarting, cluster.StateRunning,
}

// tally is what is said of one service, or of several added up.
type tally struct {
	desired, running int
	states           [len(liveStates)]int
	waiting          map[string]int
}

// tallied is a service while its tasks are tallied.
type tallied struct {
	*cluster.Service
	tally *tally
	// reserved is what each task of the revision reserves: that of the last task, as most have the same.
	reserved *swarm.Resources
	revision uint64
}

// services tells of the services, and returns what tasks have of each node.
func services(to *telemetry.Reading, view store.View) map[string]swarm.Resources {
	all := slices.SortedFunc(view.Services(), func(a, b *cluster.Service) int { return strings.Compare(a.Spec.Name, b.Spec.Name) })
	named := min(len(all), telemetry.NamedServices)
	tallies := make([]tally, named+1) // the last one is that of all others
	counts := make([]tallied, len(all))
	byID := make(map[string]*tallied, len(all))
	for i, s := range all {
		counts[i] = tallied{Service: s, tally: &tallies[min(i, named)]}
		counts[i].tally.desired += s.Replicas()
		byID[s.ID] = &counts[i]
	}
	reserved := map[string]swarm.Resources{}
	for t := range view.Tasks() {
		c := byID[t.ServiceID]
		if t.Assigned() && !t.Status.State.Terminal() {
			if r := c.reserves(view, t); r != nil {
				sum := reserved[t.NodeID]
				sum.NanoCPUs += r.NanoCPUs
				sum.MemoryBytes += r.MemoryBytes
				reserved[t.NodeID] = sum
			}
		}
		if c == nil || !t.Live() || t.Status.State == cluster.StateComplete && c.Job() { // The last one is done.
			continue
		}
		if c.Global() || c.Job() {
			c.tally.desired++
		}
		c.tally.count(t)
	}
	for i, s := range all[:named] {
		name := s.Spec.Name
		to.Set(metricService, 1, name, s.Spec.Labels[cluster.LabelStack], modeOf(s))
		tallies[i].tell(to, name)
		updateSeries(to, view, s)
	}
	if len(all) > named {
		tallies[named].tell(to, telemetry.OtherServices)
	}
	to.Set(metricServicesDropped, float64(len(all)-named))
	return reserved
}

// reserves is what a task reserves, nil for nothing. A service that is gone is nil, and its tasks may still be there.
func (c *tallied) reserves(view store.View, t *cluster.Task) *swarm.Resources {
	if c != nil && c.revision == t.Revision {
		return c.reserved
	}
	var reserved *swarm.Resources
	if r := view.Revision(t.ServiceID, t.Revision); r != nil && r.Spec.Resources != nil {
		reserved = r.Spec.Resources.Reservations
	}
	if c != nil {
		c.reserved, c.revision = reserved, t.Revision
	}
	return reserved
}

// count counts a task that is wanted.
func (s *tally) count(t *cluster.Task) {
	if at := slices.Index(liveStates[:], t.Status.State); at >= 0 {
		s.states[at]++
	}
	if t.Status.State == cluster.StateRunning {
		s.running++
	}
	if reason := waitsFor(t); reason != "" {
		if s.waiting == nil {
			s.waiting = map[string]int{}
		}
		s.waiting[reason]++
	}
}

func (s *tally) tell(to *telemetry.Reading, name string) {
	to.Set(metricDesired, float64(s.desired), name)
	to.Set(metricRunning, float64(s.running), name)
	for i, state := range liveStates {
		to.Set(metricTasks, float64(s.states[i]), name, state.String())
	}
	for _, reason := range slices.Sorted(maps.Keys(s.waiting)) {
		to.Set(metricWaiting, float64(s.waiting[reason]), name, reason)
	}
}

func modeOf(s *cluster.Service) string {
	switch {
	case s.Spec.Mode.Global != nil:
		return "global"
	case s.Spec.Mode.GlobalJob != nil:
		return "global-job"
	case s.Spec.Mode.ReplicatedJob != nil:
		return "replicated-job"
	}
	return "replicated"
}

// updateSeries tells of a service's last update.
func updateSeries(to *telemetry.Reading, view store.View, s *cluster.Service) {
	rollout := view.Rollout(s.ID)
	if rollout == nil {
		return
	}
	to.Set(metricUpdate, 1, s.Spec.Name, string(rollout.State))
	to.Set(metricBegan, seconds(rollout.StartedAt), s.Spec.Name)
	progress := 1.0
	if !rollout.Done() && rollout.Total > 0 {
		changed := changedBy(view, rollout)
		progress = min(float64(changed)/float64(rollout.Total), 1)
	}
	to.Set(metricProgress, progress, s.Spec.Name)
}

// changedBy is how many slots of its service have the rollout's task, which runs or ran.
func changedBy(view store.View, rollout *cluster.Rollout) (changed int) {
	for t := range view.TasksOfService(rollout.ServiceID) {
		if t.Live() && t.Revision == rollout.Revision && t.RunningAt != 0 && t.CreatedAt >= cluster.At(rollout.StartedAt) {
			changed++
		}
	}
	return changed
}

// reasons are what tasks wait for, by what their messages have.
var reasons = []struct{ text, reason string }{
	{"insufficient memory", "memory"},
	{"insufficient CPU", "cpu"},
	{"port", "ports"},
	{"constraints", "constraint"},
	{"no free address", "address"},
	{"restart delay", "restart_delay"},
	{"fence", "fence"},
	{"waits for ", "dependency"},
}

// waitsFor tells what a task that is to run waits for; empty for nothing.
func waitsFor(t *cluster.Task) string {
	if t.Status.State >= cluster.StateStarting {
		return ""
	}
	said := t.Status.Err
	if said == "" && strings.HasPrefix(t.Status.Message, "waiting ") {
		said = t.Status.Message
	}
	if said == "" {
		return ""
	}
	first, reason := len(said), "other"
	if strings.Contains(said, "no suitable node") {
		reason = "no_node"
	}
	for _, r := range reasons { // Of several the first is that of the most nodes.
		if at := strings.Index(said, r.text); at >= 0 && at < first {
			first, reason = at, r.reason
		}
	}
	return reason
}

// nodes tells of the nodes.
func nodes(to *telemetry.Reading, view store.View, reserved map[string]swarm.Resources) {
	states := map[string]int{}
	shown, spared := 0, false
	for n := range view.Nodes() {
		state := n.Status.State.String()
		states[state]++
		spared = spared || n.Status.Message == cluster.MessageMassFailure
		if shown++; shown > shownNodes {
			continue
		}
		hostname := n.Description.Hostname
		to.Set(metricNodeIs, 1, n.ID, hostname, state)
		cpus, memory := n.Capacity()
		has := n.Description.Resources
		for _, resource := range []struct {
			name            string
			has, used, kept float64
		}{
			{"cpu", float64(has.NanoCPUs) / 1e9, float64(reserved[n.ID].NanoCPUs) / 1e9, float64(has.NanoCPUs-cpus) / 1e9},
			{"memory", float64(has.MemoryBytes), float64(reserved[n.ID].MemoryBytes), float64(has.MemoryBytes - memory)},
		} {
			to.Set(metricNodeHas, resource.has, n.ID, hostname, resource.name, "total")
			to.Set(metricNodeHas, resource.used, n.ID, hostname, resource.name, "reserved")
			to.Set(metricNodeHas, resource.kept, n.ID, hostname, resource.name, "kept")
		}
	}
	for _, state := range []cluster.NodeState{cluster.NodeUnknown, cluster.NodeDown, cluster.NodeReady, cluster.NodeDisconnected} {
		to.Set(metricNodes, float64(states[state.String()]), state.String())
	}
	to.Set(metricNodesDropped, float64(max(shown-shownNodes, 0)))
	to.When(metricBrake, spared)
}
