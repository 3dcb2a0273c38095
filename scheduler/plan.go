package scheduler

import (
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/scheduler/address"
	"skep/scheduler/placement"
	"skep/store"
)

const (
	// defaultHistory is how many tasks a slot keeps, the wanted one included.
	defaultHistory = 5
	// orphanAfter is how long a node is down before its tasks are given up.
	orphanAfter = 24 * time.Hour
)

// Input is all that a plan depends on.
type Input struct {
	View store.View
	// Ledger is in step with View. Plan leaves it as it found it.
	Ledger *placement.Ledger
	// Services and Nodes are the IDs of those to look at, which may be gone. They
	// are planned in this order.
	Services, Nodes []string
	// Limit is after how many intents no further service is begun; 0 is no limit.
	Limit int
	// Now is the database's time.
	Now time.Time
	// Monotonic is a monotonic reading, unaffected by clock changes; it is used for durations.
	Monotonic time.Time
	// Lost has since when this leader has known of each node that is down, and of each
	// task that was given up, by ID; what isn't in it has been so since LeaderSince or before.
	// Both are Monotonic's times.
	Lost        map[string]time.Time
	LeaderSince time.Time
	NewID       func() string
}

// Result is what to do, and when to look again.
type Result struct {
	// Intents are to be applied in this order.
	Intents []Intent
	// Wakes say when a service or a node must be planned again, changed or not. One
	// that was planned and isn't named needn't be.
	Wakes []Wake
	// Waiting are services with tasks that no node could take, or that a rebalance
	// moves: what others take or leave means something for them.
	Waiting []string
	// Depending are services whose tasks wait for other services.
	Depending []Depending
	// Planned is how many of Input.Services were planned, the first ones.
	Planned int
}

// Wake is when to plan a service, or a node, again.
type Wake struct {
	ServiceID, NodeID string
	At                time.Time
}

// Plan compares what is wanted with what there is.
func Plan(in Input) Result {
	p := &planner{Input: in, now: cluster.At(in.Now), history: defaultHistory, revisions: cluster.DefaultRevisionHistory}
	if c := in.View.Cluster(); c != nil {
		p.revisions = cluster.RevisionHistory(c.Spec)
		if limit := c.Spec.Orchestration.TaskHistoryRetentionLimit; limit != nil {
			p.history = int(*limit)
		}
		if !c.ColdStart.IsZero() {
			p.coldStart = cluster.At(c.ColdStart)
			in.Ledger.ColdStart(p.coldStart)
		}
	}
	p.room = rooms.Get().(*room)
	defer rooms.Put(p.room)
	p.around.ServiceID = func(name string) string {
		s := in.View.Service(name)
		if s == nil {
			s = in.View.ServiceNamed(name)
		}
		if s == nil {
			return ""
		}
		return s.ID
	}
	if d := in.View.Cluster().DefaultLogDriver(); d != nil {
		p.around.LogDriver = d.Name
	}
	p.result.Intents = make([]Intent, 0, len(in.Services)) // Mostly each of them has one or none.
	defer in.Ledger.Settle()
	for _, id := range in.Nodes {
		p.planNode(id)
	}
	for _, id := range in.Services {
		if in.Limit > 0 && len(p.result.Intents) >= in.Limit {
			break
		}
		p.planService(id)
		p.result.Planned++
	}
	return p.result
}

// planner is one run of Plan.
type planner struct {
	Input
	now     cluster.Time
	history int
	// revisions is how many revisions of each service are kept.
	revisions int
	around    placement.Surroundings
	// coldStart is the cluster's, 0 for none.
	coldStart cluster.Time
	// supplies are what the networks have left of addresses, by the networks' IDs.
	supplies map[string]*address.Supply
	// supplied are those of the service that was planned last, supplying their networks, and together is room for
	// those of the next one.
	supplied, together []*address.Supply
	supplying          []*cluster.Network
	ingress            *cluster.Network
	ingressKnown       bool
	// nodesGained and nodesChanged are what nodeChanges found, and begunRebalances what rebalances did.
	nodesGained, nodesChanged time.Time
	begunRebalances           int
	rebalancesCounted         bool

	result Result
	room   *room
	reused servicePlan
}

func (p *planner) intend(i Intent) { p.result.Intents = append(p.result.Intents, i) }

// gone tells whether the task's node is down or no longer there, so that nothing
// can be known of the task and a replacement needn't wait for it.
func (p *planner) gone(t *cluster.Task) bool {
	if t.NodeID == "" {
		return false
	}
	n := p.Ledger.Node(t.NodeID)
	return n == nil || n.Status.State == cluster.NodeDown
}

// planNode gives up the tasks of a node that was removed, has left, or is down for long, and
// stops those that a node has become too small for.
func (p *planner) planNode(id string) {
	n := p.View.Node(id)
	reason := "node was removed"
	if n != nil {
		if n.Status.State != cluster.NodeDown {
			if n.Spec.Availability == swarm.NodeAvailabilityActive {
				for _, t := range p.Ledger.Overcommitted(id, p.View.TasksOfNode(id)) {
					p.intend(&stop{TaskID: t.ID, Desired: cluster.StateShutdown, Err: cluster.ReasonNoRoom})
				}
			}
			return
		}
		reason = "node left the swarm"
		if n.Status.Message != cluster.MessageLeft {
			if end := n.Status.Since.Add(orphanAfter); p.Now.Before(end) {
				p.result.Wakes = append(p.result.Wakes, Wake{NodeID: id, At: end})
				return
			}
			reason = "node has been down for " + orphanAfter.String()
		}
	}
	for t := range p.View.TasksOfNode(id) {
		if !t.Status.State.Terminal() {
			p.intend(&orphan{TaskID: t.ID, NodeID: id, Reason: reason})
		}
	}
}
