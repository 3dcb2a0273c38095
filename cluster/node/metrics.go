package node

import (
	"context"
	"syscall"
	"time"

	"skep/cluster"
	"skep/cluster/telemetry"
)

var (
	metricLocked  = telemetry.NewGauge("skep_manager_locked", "Whether this manager waits to be unlocked.")
	metricRoom    = telemetry.NewGauge("skep_data_disk_free_bytes", "What is free on the disk of the data directory.")
	metricEnds    = telemetry.NewGauge("skep_certificate_expiry_timestamp_seconds", "When this node's certificate ends, and the first of the root CAs that it trusts, in seconds since 1970.", "kind")
	metricGossip  = telemetry.NewGauge("skep_gossip_members", "The nodes that this one's gossip sees, itself included, by state.", "state")
	metricSession = telemetry.NewGauge("skep_agent_session", "Whether the agent has a session with a manager.")
	metricTasks   = telemetry.NewGauge("skep_agent_tasks", "The tasks of this node, by state.", "state")
	metricEngine  = telemetry.NewGauge("skep_engine_up", "Whether the engine answers, as managers are told.")
	metricLease   = telemetry.NewGauge("skep_fence_lease_remaining_seconds", "How much longer this node may run its fenced tasks without a word from the managers; only while it has any.")
	metricAgents  = telemetry.NewGauge("skep_dispatch_sessions", "The agents that have a session with this manager.")
	metricBytes   = telemetry.NewGauge("skep_store_bytes", "How large the log of this manager's database is on disk, and its snapshots.", "what")
	metricReports = telemetry.NewGauge("skep_dispatch_reports_pending", "The reports of agents that wait for the leader at this manager.")
)

// agentStates are those that tasks have at their node.
var agentStates = []cluster.State{
	cluster.StateAssigned, cluster.StateAccepted, cluster.StatePreparing, cluster.StateReady, cluster.StateStarting, cluster.StateRunning,
	cluster.StateComplete, cluster.StateShutdown, cluster.StateFailed, cluster.StateRejected,
}

// figuresLimit is how long a scrape waits for the agent, which answers at once unless it is busy.
const figuresLimit = time.Second

// measure tells how the node is, as it is scraped.
func (n *Node) measure(to *telemetry.Reading) {
	to.When(metricLocked, n.locked() != nil)
	var disk syscall.Statfs_t
	if syscall.Statfs(n.cfg.DataDir, &disk) == nil {
		to.Set(metricRoom, float64(disk.Bavail)*float64(disk.Bsize))
	}
	m := n.current()
	if m == nil {
		return
	}
	to.Set(metricEnds, float64(m.credentials.Leaf().NotAfter.Unix()), "node")
	to.Set(metricEnds, float64(m.credentials.RootEnds().Unix()), "root")
	if m.gossips.Load() {
		alive, suspect, left := 0, 0, 0
		for _, member := range m.gossip.Members() {
			switch {
			case member.Left:
				left++
			case member.Suspect:
				suspect++
			default:
				alive++
			}
		}
		to.Set(metricGossip, float64(alive), "alive")
		to.Set(metricGossip, float64(suspect), "suspect")
		to.Set(metricGossip, float64(left), "left")
	}
	if manager := m.manager.Load(); manager != nil {
		sessions, reports := manager.Figures()
		to.Set(metricAgents, float64(sessions))
		to.Set(metricReports, float64(reports))
		log, snapshots := manager.Bytes()
		to.Set(metricBytes, float64(log), "log")
		to.Set(metricBytes, float64(snapshots), "snapshot")
	}
	ctx, cancel := context.WithTimeout(context.Background(), figuresLimit)
	defer cancel()
	figures, ok := m.agent.Figures(ctx)
	if !ok {
		return
	}
	to.When(metricSession, figures.Session)
	to.When(metricEngine, figures.Engine)
	for _, state := range agentStates {
		to.Set(metricTasks, float64(figures.Tasks[state]), state.String())
	}
	if figures.Fenced {
		to.Set(metricLease, figures.Lease.Seconds())
	}
}
