package dispatch

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"skep/cluster"
	"skep/cluster/trace"
)

const (
	// maxPendingReports is how many reports may wait that the leader hasn't acknowledged.
	maxPendingReports = 500_000
	// leastShare is how many reports of a node may go into a relay, however many nodes
	// have some.
	leastShare = 64
	// maxDescribed is how many descriptions of a node are relayed within
	// describedSpan: each one that differs is a write, and agents look at their machines
	// every 20 s.
	maxDescribed  = 4
	describedSpan = 20 * time.Second
	// maxRelayReports and maxRelayBytes bound one relay.
	maxRelayReports = 4096
	maxRelayBytes   = 2 << 20
	// reportSize is about how many bytes a report has without its texts.
	reportSize = 256
)

// outbox is what this manager has to relay to the leader. Per task and per node only the
// newest news is kept.
type outbox struct {
	trace *trace.Tracer
	// news has a signal when something was added.
	news chan struct{}
	// asked has a signal when the first agent asks for a lease after a relay.
	asked chan struct{}

	mu       sync.Mutex // guards the fields below
	sequence uint64
	// relays counts them, as Relay.Number.
	relays uint64
	// sessions has each node with a session, and whether its engine is away.
	sessions map[string]bool
	// sorted is sessions as a list; nil when it has to be made again.
	sorted []string
	// reports are by node, then by task: what one agent says of a task never takes the
	// place of what another one says of it. No node without reports is in it.
	reports map[string]map[string]stamped[cluster.Report]
	// pending is how many reports there are.
	pending int
	nodes   map[string]stamped[cluster.NodeNews]
	// described is how many descriptions of a node the leader took in, and since when.
	described map[string]described
	stopped   map[string]departure
	// runs are those of the sessions' agents, and copies the addresses of machines that
	// were refused as copies of nodes, until the leader knows.
	runs, copies map[string]string
	// warnings are those of the sessions' agents.
	warnings map[string]string
	// leases are what agents of sessions asked for last, until it is granted.
	leases map[string]int64
	// unseen are the nodes that gossip suspects or doesn't see; replaced, never written to.
	unseen []string
}

type described struct {
	since time.Time
	count int
}

// departure is the sequence number of an agent's message that it stops, and whether its machine stops.
type departure struct {
	sequence uint64
	halting  bool
}

// stamped is an item with the sequence number under which it came in, by which
// an acknowledgement knows whether it is still the same.
type stamped[T any] struct {
	sequence uint64
	// size is about how many bytes the item has.
	size int
	item T
	// span is from when it came to when the leader has it, or it was replaced.
	span *trace.Span
}

func newOutbox(tracer *trace.Tracer) *outbox {
	return &outbox{
		trace:     tracer,
		news:      make(chan struct{}, 1),
		asked:     make(chan struct{}, 1),
		sessions:  make(map[string]bool),
		reports:   make(map[string]map[string]stamped[cluster.Report]),
		nodes:     make(map[string]stamped[cluster.NodeNews]),
		described: make(map[string]described),
		stopped:   make(map[string]departure),
		leases:    make(map[string]int64),
		runs:      make(map[string]string),
		copies:    make(map[string]string),
		warnings:  make(map[string]string),
	}
}

// wake wakes the relay.
func (o *outbox) wake() {
	cluster.Notify(o.news)
}

// addSession adds a session, and what its agent said of the node.
func (o *outbox) addSession(news cluster.NodeNews, size int, engineAway bool) {
	o.mu.Lock()
	o.sessions[news.NodeID], o.sorted = engineAway, nil
	delete(o.stopped, news.NodeID)
	delete(o.leases, news.NodeID)
	o.mu.Unlock()
	o.addNode(news, size)
}

// setEngine notes whether the engine of a node with a session is away.
func (o *outbox) setEngine(nodeID string, away bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if was, session := o.sessions[nodeID]; session && was != away {
		o.sessions[nodeID] = away
		o.wake()
	}
}

// ask notes that the agent of a session asks for a lease. It goes out with the next
// relay, which is soon enough.
func (o *outbox) ask(nodeID string, lease int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, session := o.sessions[nodeID]; !session {
		return
	}
	if len(o.leases) == 0 {
		cluster.Notify(o.asked)
	}
	o.leases[nodeID] = lease
}

// setUnseen notes which nodes gossip suspects or doesn't see.
func (o *outbox) setUnseen(nodeIDs []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Equal(o.unseen, nodeIDs) {
		o.unseen = nodeIDs
		o.wake()
	}
}

// setRun notes the run of a session's agent.
func (o *outbox) setRun(nodeID, run string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.runs[nodeID] = run
}

// setWarning notes what a session's agent warns of; "" is nothing.
func (o *outbox) setWarning(nodeID, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.warnings, nodeID)
	if text != "" {
		o.warnings[nodeID] = text
	}
}

// addCopy notes that a copy of a node was refused. It goes out with the next relay.
func (o *outbox) addCopy(nodeID, addr string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.copies[nodeID] = addr
}

func (o *outbox) removeSession(nodeID string, leaving, halting bool) {
	o.mu.Lock()
	delete(o.sessions, nodeID)
	delete(o.runs, nodeID)
	delete(o.warnings, nodeID)
	delete(o.leases, nodeID)
	o.sorted = nil
	if leaving {
		o.sequence++
		o.stopped[nodeID] = departure{o.sequence, halting}
	}
	o.mu.Unlock()
	o.wake()
}

func (o *outbox) addNode(news cluster.NodeNews, size int) {
	o.mu.Lock()
	o.sequence++
	o.nodes[news.NodeID] = stamped[cluster.NodeNews]{sequence: o.sequence, size: size, item: news}
	o.mu.Unlock()
	o.wake()
}

// addReports keeps the newest report of each task of a node. It takes nothing, and
// says so, when too many wait.
func (o *outbox) addReports(nodeID string, reports []cluster.Report) bool {
	if len(reports) == 0 {
		return true
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.pending+len(reports) > maxPendingReports {
		return false
	}
	own := o.reports[nodeID]
	if own == nil {
		own = make(map[string]stamped[cluster.Report])
		o.reports[nodeID] = own
	}
	before := len(own)
	for _, r := range reports {
		if old, waits := own[r.TaskID]; waits && old.item.Status.State > r.Status.State {
			continue // From a session that was just replaced: states only advance.
		}
		own[r.TaskID].span.End(nil)
		_, span := o.trace.Start(trace.With(context.Background(), trace.At(r.Traceparent)), "dispatch.report")
		span.Set(trace.State, r.Status.State.String())
		r.Traceparent = span.Traceparent()
		o.sequence++
		size := reportSize + len(r.Status.Message) + len(r.Status.Err) + len(r.Status.Ports)
		own[r.TaskID] = stamped[cluster.Report]{o.sequence, size, r, span}
	}
	o.pending += len(own) - before
	o.wake()
	return true
}

// pendingOf is how many reports of a node wait.
func (o *outbox) pendingOf(nodeID string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.reports[nodeID])
}

func (o *outbox) sessionIDs() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.sessionIDsLocked()
}

func (o *outbox) sessionIDsLocked() []string {
	if o.sorted == nil {
		o.sorted = make([]string, 0, len(o.sessions))
		for nodeID := range o.sessions {
			o.sorted = append(o.sorted, nodeID)
		}
		slices.Sort(o.sorted)
	}
	return o.sorted
}

// relayBatch is a relay with what is needed to remove what it says from the outbox when it was acknowledged.
type relayBatch struct {
	relay    cluster.Relay
	upTo     uint64
	complete bool
	// at is when it was made.
	at time.Time
	// leases are what the nodes of relay.Leases asked for.
	leases map[string]int64
}

// next makes the next relay. When not all reports fit, each node that has some gets
// an equal share of the relay, so that no node's reports delay another's.
func (o *outbox) next(manager, epoch string, now time.Time) relayBatch {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.relays++
	p := relayBatch{
		relay:    cluster.Relay{Manager: manager, Epoch: epoch, Number: o.relays, Sessions: o.sessionIDsLocked(), Unseen: o.unseen},
		upTo:     o.sequence,
		complete: true,
		at:       now,
	}
	for nodeID, addr := range o.copies {
		p.relay.Copies = append(p.relay.Copies, cluster.CopyNews{NodeID: nodeID, Addr: addr})
	}
	for _, nodeID := range p.relay.Sessions {
		p.relay.Runs = append(p.relay.Runs, o.runs[nodeID])
		if text := o.warnings[nodeID]; text != "" {
			p.relay.Warnings = append(p.relay.Warnings, cluster.Warning{NodeID: nodeID, Text: text})
		}
		if o.sessions[nodeID] {
			p.relay.EngineAway = append(p.relay.EngineAway, nodeID)
		}
		if o.leases[nodeID] != 0 {
			p.relay.Leases = append(p.relay.Leases, nodeID)
		}
	}
	p.leases = maps.Clone(o.leases)
	size := 0
	maps.DeleteFunc(o.described, func(_ string, d described) bool { return now.Sub(d.since) >= describedSpan })
	for nodeID, news := range o.nodes {
		if o.described[nodeID].count >= maxDescribed {
			continue // A later relay has it, or what replaces it until then.
		}
		if size += news.size; size > maxRelayBytes {
			p.complete = false
			break
		}
		p.relay.Nodes = append(p.relay.Nodes, news.item)
	}
	nodes := max(1, len(o.reports))
	share, room := max(leastShare, maxRelayReports/nodes), (maxRelayBytes-size)/nodes
	for nodeID, own := range o.reports {
		count, size := 0, 0
		for _, report := range own {
			count, size = count+1, size+report.size
			if len(p.relay.Reports) == maxRelayReports || count > share || count > 1 && size > room {
				p.complete = false
				break
			}
			p.relay.Reports = append(p.relay.Reports, cluster.NodeReport{NodeID: nodeID, Report: report.item})
		}
	}
	for nodeID, d := range o.stopped {
		p.relay.Stopped = append(p.relay.Stopped, nodeID)
		if d.halting {
			p.relay.Halting = append(p.relay.Halting, nodeID)
		}
	}
	return p
}

// ack removes what the leader acknowledged, unless there is newer news of the
// same task or node.
func (o *outbox) ack(p relayBatch) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range p.relay.Reports {
		own := o.reports[r.NodeID]
		if waits, found := own[r.Report.TaskID]; found && waits.sequence <= p.upTo {
			o.pending--
			waits.span.End(nil)
			if delete(own, r.Report.TaskID); len(own) == 0 {
				delete(o.reports, r.NodeID)
			}
		}
	}
	for _, n := range p.relay.Nodes {
		d, found := o.described[n.NodeID]
		if !found {
			d.since = p.at
		}
		d.count++
		o.described[n.NodeID] = d
		if o.nodes[n.NodeID].sequence <= p.upTo {
			delete(o.nodes, n.NodeID)
		}
	}
	for _, copy := range p.relay.Copies {
		if o.copies[copy.NodeID] == copy.Addr {
			delete(o.copies, copy.NodeID)
		}
	}
	for _, nodeID := range p.relay.Stopped {
		if o.stopped[nodeID].sequence <= p.upTo {
			delete(o.stopped, nodeID)
		}
	}
	if !p.complete {
		o.wake()
	}
}

// granted removes the lease of a node, unless its agent has asked again since,
// and gives what it asked for.
func (o *outbox) granted(p relayBatch, nodeID string) int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.leases[nodeID] == p.leases[nodeID] {
		delete(o.leases, nodeID)
	}
	return p.leases[nodeID]
}

// empty tells whether all is acknowledged but perhaps the sessions.
func (o *outbox) empty() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.reports)+len(o.nodes)+len(o.stopped) == 0
}
