package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"skep/cluster"
	"skep/store"
)

const (
	// writeRetry is the wait after a batch that couldn't be written.
	writeRetry = 100 * time.Millisecond
	// proposerPatience is how long the store may need to accept updates.
	proposerPatience = time.Second
)

// collector is the leader's side of relays: a goroutine that exists while Lead runs.
type collector struct {
	d          *Dispatcher
	deliveries chan *pendingRelay
	changed    chan struct{}
	// ended is closed when Lead returns.
	ended chan struct{}
	// refusals counts reports that were refused, and unwritten what the database refused.
	refusals, unwritten cluster.Seldom

	mu sync.Mutex // guards the fields below
	// where tells which manager has the session of each node; replaced, never written to.
	where map[string]string
	// sought is what sought says; replaced, never written to.
	sought []string
	// leased is which machine the last lease of each node was for.
	leased map[string]lastLease
}

// pendingRelay is a relay that waits for its acknowledgement.
type pendingRelay struct {
	ctx    context.Context
	relay  cluster.Relay
	answer chan error
}

// Lead takes in what all managers relay, writes what changes an object, and
// judges which nodes are alive, until ctx ends. It runs on the leader only, while
// it leads, beside Run.
func (d *Dispatcher) Lead(ctx context.Context) error {
	in := &collector{
		d:          d,
		deliveries: make(chan *pendingRelay),
		changed:    make(chan struct{}, 1),
		ended:      make(chan struct{}),
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
	answer.Missing = in.sought
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
		return node == nil || node.Status.State == cluster.NodeDown || !in.takes(nodeID, runOf(r, nodeID), now)
	})
}

func (in *collector) deliver(ctx context.Context, r cluster.Relay) error {
	if in == nil {
		return fmt.Errorf("take relay of manager %s: %w", r.Manager, cluster.ErrNotLeader)
	}
	dl := &pendingRelay{ctx, r, make(chan error, 1)}
	select {
	case in.deliveries <- dl:
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
	select {
	case in.changed <- struct{}{}:
	default:
	}
}

func (in *collector) sessions() map[string]string {
	in.mu.Lock()
	defer in.mu.Unlock()
	sessions := make(map[string]string, len(in.where))
	for nodeID, managerID := range in.where {
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
	return in.where[nodeID]
}

// run owns what the leader knows. While a batch is being written, relays gather
// for the next one.
func (in *collector) run(ctx context.Context) error {
	var (
		live    = newLiveness(in.d.config.Now())
		waiting []*pendingRelay
		look    = true
		hearing = true // Until all managers have told of their sessions, or had the time to.
		wake    = time.NewTimer(0)
		written chan error // Not nil while a batch is being written.
		writing []*pendingRelay
		failing = cluster.Complaint{Log: in.d.config.Log, Patience: relayPatience, Now: in.d.config.Now}
	)
	defer wake.Stop()
	for {
		if written == nil {
			b := &batch{}
			if look {
				b.verdicts, hearing = in.decideStates(live, waiting, wake)
				b.copies = live.copies(in.d.config.Store.View(), in.d.config.Now())
				look = false
			}
			writing, waiting = b.gather(waiting, in.where, hearing)
			b.trim(in.d.config.Store.View())
			if b.size() == 0 {
				in.answer(live, writing, nil)
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
		case dl := <-in.deliveries:
			if dl.ctx.Err() != nil {
				continue // Its sender gave up, and may have sent a newer one already.
			}
			if in.d.config.Heard != nil {
				live.noteContacts(in.d.config.Heard, in.d.config.HeardFor)
			}
			if live.noteRelay(dl.relay, in.d.config.Now()) {
				look = true
			}
			waiting = append(waiting, dl)
		case <-in.changed:
			look = true
		case <-wake.C:
			look = true
		case err := <-written:
			written = nil
			in.answer(live, writing, err)
			failing.About(err, "agents' news can't be written; trying again", "agents' news are written again", "node", in.d.config.NodeID)
			if err != nil && !in.pause(ctx) {
				return context.Cause(ctx)
			}
			look = look || err != nil
		}
	}
}

func (in *collector) pause(ctx context.Context) bool {
	timer := time.NewTimer(writeRetry)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (in *collector) answer(live *liveness, deliveries []*pendingRelay, err error) {
	now := in.d.config.Now()
	for _, dl := range deliveries {
		if dl.ctx.Err() == nil {
			live.heardAgain(dl.relay.Manager, now)
		}
		dl.answer <- err
	}
}

// decideStates looks at all nodes and sets the timer for the next look. Hearing tells
// whether there may be sessions that this new leader hasn't been told of.
func (in *collector) decideStates(live *liveness, waiting []*pendingRelay, wake *time.Timer) (verdicts []stateChange, hearing bool) {
	now := in.d.config.Now()
	for _, dl := range waiting {
		if dl.ctx.Err() == nil {
			live.heardAgain(dl.relay.Manager, now)
		}
	}
	if in.d.config.Heard != nil {
		live.noteContacts(in.d.config.Heard, in.d.config.HeardFor)
	}
	scene, where, next := live.observe(in.d.config.Store.View(), in.d.members(), now)
	scene.suspectLong = in.d.config.SuspectLong
	sought, more := sought(scene)
	in.mu.Lock()
	in.where, in.sought = where, sought
	in.mu.Unlock()
	verdicts, at := decideNodeStates(scene)
	for _, at := range []time.Time{at, more} {
		if next.IsZero() || (!at.IsZero() && at.Before(next)) {
			next = at
		}
	}
	if next.IsZero() {
		wake.Stop()
	} else {
		wake.Reset(next.Sub(now))
	}
	return verdicts, scene.unheard > 0 && now.Sub(scene.started) < settleMost
}

// write commits a batch; in parts when it is too large for one entry, as when
// thousands of nodes change their state at once.
func (in *collector) write(ctx context.Context, b *batch) error {
	err := in.update(ctx, b.apply)
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
	for _, r := range b.foreign {
		// Now and then: who says such things may say them without end.
		if unsaid, due := in.refusals.Due(in.d.config.Now(), r.NodeID); due {
			in.d.config.Log.Warn("report refused: the task is not the node's", "node", r.NodeID, "task", r.Report.TaskID, "unsaid", unsaid)
		}
	}
	for _, c := range b.copies {
		if c.copy.Run == "" {
			in.d.config.Log.Info("no other machine has this node's identity any more", "node", c.nodeID)
			continue
		}
		in.d.config.Log.Error("two machines have the identity of one node; the later one is refused: stop it, remove its data directory, and join it anew",
			"node", c.nodeID, "run", c.copy.Run, "addr", c.copy.Addr)
	}
	for _, v := range b.verdicts {
		in.d.config.Log.Debug("node changes state", "node", v.nodeID, "state", v.state.String(), "reason", v.message)
	}
	return nil
}

// update is Store.Update, but for a moment of patience: when leadership begins, the
// proposer may come a little later than this.
func (in *collector) update(ctx context.Context, fn func(*store.Tx) error) error {
	deadline := time.NewTimer(proposerPatience)
	defer deadline.Stop()
	for {
		err := in.d.config.Store.Update(ctx, fn)
		if !errors.Is(err, cluster.ErrNotLeader) {
			return err
		}
		select {
		case <-time.After(proposerPatience / 100):
		case <-deadline.C:
			return err
		case <-ctx.Done():
			return err
		}
	}
}
