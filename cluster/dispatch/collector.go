package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"skep/cluster"
	"skep/cluster/dispatch/liveness"
	"skep/cluster/trace"
)

// writeRetry is the wait after a batch that couldn't be written.
const writeRetry = 100 * time.Millisecond

// collector is the leader's side of relays: a goroutine that exists while Lead runs.
type collector struct {
	d       *Dispatcher
	relays  chan *pendingRelay
	changed chan struct{}
	// ended is closed when Lead returns.
	ended chan struct{}
	// refusals counts reports that were refused, and unwritten what the database refused.
	refusals, unwritten cluster.Seldom

	mu sync.Mutex // guards the fields below
	// sessionManager tells which manager has the session of each node; replaced, never written to.
	sessionManager map[string]string
	// missing is what liveness.Missing says; replaced, never written to.
	missing []string
	// leased is which machine the last lease of each node was for.
	leased map[string]lastLease
}

// pendingRelay is a relay that waits for its acknowledgement.
type pendingRelay struct {
	ctx    context.Context
	relay  cluster.Relay
	answer chan error
}

// Lead collects what all managers relay, writes what changes an object, and decides
// which nodes are alive, until ctx ends. It runs on the leader only, within
// Store.Lead, beside Run.
func (d *Dispatcher) Lead(ctx context.Context) error {
	in := &collector{
		d:       d,
		relays:  make(chan *pendingRelay),
		changed: make(chan struct{}, 1),
		ended:   make(chan struct{}),
	}
	d.mu.Lock()
	d.collector = in
	d.mu.Unlock()
	d.outbox.wake()
	defer func() {
		d.mu.Lock()
		if d.collector == in {
			d.collector = nil
		}
		d.mu.Unlock()
		close(in.ended)
	}()
	return in.run(ctx)
}

// take hands a relay in, waits until it is committed, and grants what leases it
// can. It may be called on a nil collector: this manager doesn't lead.
func (in *collector) take(ctx context.Context, r cluster.Relay) (cluster.RelayAnswer, error) {
	if err := in.deliver(ctx, r); err != nil {
		return cluster.RelayAnswer{}, err
	}
	answer := cluster.RelayAnswer{Leases: in.grant(ctx, r)}
	in.mu.Lock()
	defer in.mu.Unlock()
	answer.Missing = in.missing
	return answer, nil
}

// grant picks the nodes that may go on to run fenced tasks: those that this manager
// counts on, if it still leads for certain. A leader that comes later, or this one
// later, can't have found them down before they asked.
func (in *collector) grant(ctx context.Context, r cluster.Relay) []string {
	asked := r.Leases
	if len(asked) == 0 || in.d.config.Verify == nil {
		return nil
	}
	if err := in.d.config.Verify(ctx); err != nil {
		in.d.config.Log.Info("grant no leases", "err", err)
		return nil
	}
	view, now := in.d.config.Store.View(), in.d.config.Now()
	return slices.DeleteFunc(slices.Clone(asked), func(nodeID string) bool {
		node := view.Node(nodeID)
		return node == nil || node.Status.State == cluster.NodeDown || !in.mayLease(nodeID, runOf(r, nodeID), now)
	})
}

func (in *collector) deliver(ctx context.Context, r cluster.Relay) error {
	if in == nil {
		return fmt.Errorf("take relay of manager %s: %w", r.Manager, cluster.ErrNotLeader)
	}
	dl := &pendingRelay{ctx, r, make(chan error, 1)}
	select {
	case in.relays <- dl:
	case <-in.ended:
		return fmt.Errorf("take relay of manager %s: %w", r.Manager, cluster.ErrNotLeader)
	case <-ctx.Done():
		return fmt.Errorf("take relay of manager %s: %w", r.Manager, context.Cause(ctx))
	}
	select {
	case err := <-dl.answer:
		return err
	case <-in.ended:
		return fmt.Errorf("take relay of manager %s: %w", r.Manager, cluster.ErrUnknownOutcome)
	case <-ctx.Done():
		return fmt.Errorf("take relay of manager %s: %w", r.Manager, context.Cause(ctx))
	}
}

// wakeUp wakes the collector: nodes or gossip changed.
func (in *collector) wakeUp() {
	if in == nil {
		return
	}
	cluster.Notify(in.changed)
}

func (in *collector) sessions() map[string]string {
	in.mu.Lock()
	defer in.mu.Unlock()
	sessions := make(map[string]string, len(in.sessionManager))
	for nodeID, managerID := range in.sessionManager {
		sessions[nodeID] = managerID
	}
	return sessions
}

// sessionAt tells which manager has the session of a node; empty when unknown,
// and on a nil collector.
func (in *collector) sessionAt(nodeID string) string {
	if in == nil {
		return ""
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.sessionManager[nodeID]
}

// run owns what the leader knows. While a batch is being written, relays gather
// for the next one.
func (in *collector) run(ctx context.Context) error {
	var (
		tracker  = liveness.NewTracker(in.d.config.Now())
		waiting  []*pendingRelay
		look     = true
		settling = true // Until all managers have relayed their sessions, or had the time to.
		wake     = time.NewTimer(0)
		written  chan error // Not nil while a batch is being written.
		writing  []*pendingRelay
		failing  = cluster.Complaint{Log: in.d.config.Log, Patience: relayPatience, Now: in.d.config.Now}
	)
	defer wake.Stop()
	for {
		if written == nil {
			b := &batch{}
			if look {
				b.states, b.copies, settling = in.decideStates(tracker, waiting, wake)
				look = false
			}
			writing, waiting = b.gather(waiting, in.sessionManager, settling)
			b.trim(in.d.config.Store.View())
			if b.size() == 0 {
				in.answer(tracker, writing, nil)
			} else {
				written = make(chan error, 1)
				go func() { written <- in.write(ctx, b) }()
			}
			if written == nil && len(writing) > 0 && len(waiting) > 0 {
				continue
			}
		}
		select {
		case <-ctx.Done():
			if written != nil {
				<-written
			}
			return context.Cause(ctx)
		case dl := <-in.relays:
			if dl.ctx.Err() != nil {
				continue // Its sender gave up, and may have sent a newer one already.
			}
			in.contacts(tracker)
			if tracker.Relay(dl.relay, in.d.config.Now()) {
				look = true
			}
			waiting = append(waiting, dl)
		case <-in.changed:
			look = true
		case <-wake.C:
			look = true
		case err := <-written:
			written = nil
			in.answer(tracker, writing, err)
			failing.About(err, "agents' news can't be written; trying again", "agents' news are written again", "node", in.d.config.NodeID)
			if err != nil && !cluster.Sleep(ctx, writeRetry) {
				return context.Cause(ctx)
			}
			look = look || err != nil
		}
	}
}

func (in *collector) answer(tracker *liveness.Tracker, relays []*pendingRelay, err error) {
	now := in.d.config.Now()
	for _, dl := range relays {
		if dl.ctx.Err() == nil {
			tracker.Acknowledged(dl.relay.Manager, now)
		}
		dl.answer <- err
	}
}

// decideStates looks at all nodes and sets the timer for the next look. While settling,
// managers may have sessions that they haven't relayed to this new leader yet.
func (in *collector) decideStates(tracker *liveness.Tracker, waiting []*pendingRelay, wake *time.Timer) (states []liveness.Change, copies []liveness.CopyChange, settling bool) {
	now := in.d.config.Now()
	for _, dl := range waiting {
		if dl.ctx.Err() == nil {
			tracker.Acknowledged(dl.relay.Manager, now)
		}
	}
	in.contacts(tracker)
	view := in.d.config.Store.View()
	known := liveness.Cluster{Nodes: make([]*cluster.Node, 0, view.NodeCount()), Members: in.d.members(), SuspectAfter: in.d.config.SuspectAfter}
	known.Nodes = slices.AppendSeq(known.Nodes, view.Nodes())
	if c := view.Cluster(); c != nil {
		known.ColdStart = c.ColdStart
	}
	observed := tracker.Observe(known, now)
	states, decideAt := liveness.Decide(observed)
	missing, missAt := liveness.Missing(observed)
	in.mu.Lock()
	in.sessionManager, in.missing = observed.Sessions, missing
	in.mu.Unlock()
	next := observed.StaleAt
	for _, at := range []time.Time{decideAt, missAt} {
		if next.IsZero() || (!at.IsZero() && at.Before(next)) {
			next = at
		}
	}
	if next.IsZero() {
		wake.Stop()
	} else {
		wake.Reset(next.Sub(now))
	}
	return states, tracker.Copies(known.Nodes, now), observed.Settling()
}

// contacts has the tracker note contact with managers by other ways than relays.
func (in *collector) contacts(tracker *liveness.Tracker) {
	if in.d.config.LastContact != nil {
		tracker.Contacts(in.d.config.LastContact, in.d.config.ContactFor)
	}
}

// write commits a batch; in parts when it is too large for one entry, as when
// thousands of nodes change their state at once.
func (in *collector) write(ctx context.Context, b *batch) error {
	err := in.d.config.Store.Update(trace.With(ctx, in.d.spanOf(b.reports)), b.apply)
	switch {
	case errors.Is(err, cluster.ErrInvalid) && b.size() > 1:
		first, second := b.halve()
		if err := in.write(ctx, first); err != nil {
			return err
		}
		return in.write(ctx, second)
	case errors.Is(err, cluster.ErrInvalid):
		// It would be refused again for ever, and hold up all that comes after it.
		if unsaid, due := in.unwritten.Due(in.d.config.Now(), ""); due {
			in.d.config.Log.Error("an agent's news can't be written", "batch", b.String(), "err", err, "unsaid", unsaid)
		}
		return nil
	case err != nil:
		return fmt.Errorf("write %s: %w", b, err)
	}
	for _, r := range b.notOurs {
		// Rate-limited: an agent can send such reports without end.
		if unsaid, due := in.refusals.Due(in.d.config.Now(), r.NodeID); due {
			in.d.config.Log.Warn("report refused: the task is not the node's", "node", r.NodeID, "task", r.Report.TaskID, "unsaid", unsaid)
		}
	}
	for _, c := range b.copies {
		if c.Copy.Run == "" {
			in.d.config.Log.Info("no other machine has this node's identity any more", "node", c.NodeID)
			continue
		}
		in.d.config.Log.Error("two machines have the identity of one node; the later one is refused: stop it, remove its data directory, and join it anew",
			"node", c.NodeID, "run", c.Copy.Run, "addr", c.Copy.Addr)
	}
	for _, v := range b.states {
		in.d.config.Log.Debug("node changes state", "node", v.NodeID, "state", v.State.String(), "reason", v.Message)
	}
	return nil
}
