package scheduler

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"skep/cluster"
	"skep/cluster/telemetry"
	"skep/cluster/trace"
	"skep/scheduler/placement"
	"skep/store"
)

const (
	// planLimit is how many intents one plan makes, about: so that what is urgent
	// never waits for a long row of other things.
	planLimit = 8000
	// entryLimit is how many intents go into one Update.
	entryLimit = 4000
	// retryAfter is how long the loop waits after the store couldn't write.
	retryAfter = 100 * time.Millisecond
)

// Store is the part of *store.Store that the loop uses.
type Store interface {
	Subscribe() *store.Subscription
	Update(ctx context.Context, fn func(*store.Tx) error) error
}

var _ Store = (*store.Store)(nil)

// Config is what Run needs from outside.
type Config struct {
	Store Store
	// Now is the clock that the store stamps with; time.Now by default.
	Now func() time.Time
	// Monotonic is a clock of which only differences count, which must be how much time has
	// really passed, whoever sets a clock; Now by default.
	Monotonic func() time.Time
	// NewID makes IDs of tasks; cluster.NewID of crypto/rand by default.
	NewID func() string
	// Log takes what operators should know; slog.Default() by default.
	Log *slog.Logger
	// Metrics are what is measured; nothing by default.
	Metrics telemetry.Scheduler
	// Trace has spans of plans for services whose change somebody asked for; nil has none.
	Trace *trace.Tracer
}

// Run is the leader's loop: it plans what has changed and writes the result, until
// ctx ends (then it returns nil) or the store can't be written to any more.
func Run(ctx context.Context, config Config) error {
	l := newLoop(config)
	defer l.subscription.Close()
	// The first Take gives a view; changes from then on are exactly what comes after.
	_, view, _ := l.subscription.Take()
	l.relist(view)
	defer l.measure.Dirty.Is(0) // It says so of the leader.
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l.measure.Dirty.Is(l.dirty.count())
		err := l.step(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, cluster.ErrUnavailable):
			l.config.Log.Warn("write plan; trying again", "error", err)
			timer.Reset(retryAfter)
			select {
			case <-timer.C:
			case <-ctx.Done():
				return nil
			}
			l.refresh()
			continue
		case err != nil:
			return fmt.Errorf("schedule: %w", err)
		}
		l.measure.Dirty.Is(l.dirty.count())
		if l.dirty.any() {
			l.refresh()
			continue
		}
		var wake <-chan time.Time
		if at, ok := l.wakes.next(); ok {
			timer.Reset(max(at.Sub(l.config.Now()), 0))
			wake = timer.C
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.subscription.Ready():
		case <-wake:
		}
		l.refresh()
	}
}

// loop is the state of Run, which can be made anew from the store at any time.
type loop struct {
	config       Config
	subscription *store.Subscription
	view         store.View
	ledger       *placement.Ledger
	dirty        dirty
	wakes        wakes
	// waiting are the services that Result.Waiting named.
	waiting map[string]struct{}
	// following are those of them that are to be where tasks of others are.
	following map[string]struct{}
	// depending are the services that Result.Depending named, by the names of those that they
	// wait for, in lower case.
	depending map[string]map[string]struct{}
	// dependsOn has the same by service.
	dependsOn map[string][]string
	// assigned is set when a task was assigned since the last refresh.
	assigned bool
	// global are the services with a task on each node, and auto those that are rebalanced by themselves.
	global, auto map[string]struct{}
	forgot       time.Time
	// lost and began are as Input's.
	lost    map[string]time.Time
	began   time.Time
	measure measure
}

func newLoop(config Config) *loop {
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.Monotonic == nil {
		config.Monotonic = config.Now
	}
	if config.NewID == nil {
		random := bufio.NewReader(rand.Reader)
		config.NewID = func() string { return cluster.NewID(random) }
	}
	if config.Log == nil {
		config.Log = slog.Default()
	}
	return &loop{config: config, subscription: config.Store.Subscribe(), measure: newMeasure(config.Metrics)}
}

// relist forgets everything and looks at the whole database.
func (l *loop) relist(view store.View) {
	l.view, l.ledger, l.dirty, l.wakes, l.waiting = view, List(view), newDirty(), newWakes(), make(map[string]struct{})
	l.following = make(map[string]struct{})
	l.depending, l.dependsOn = make(map[string]map[string]struct{}), make(map[string][]string)
	l.lost, l.began = make(map[string]time.Time), l.config.Monotonic()
	l.dirty.all(view)
	l.global, l.auto = make(map[string]struct{}), make(map[string]struct{})
	for s := range view.Services() {
		l.onService(s.ID, s)
	}
}

// refresh takes in what has changed, and what is due.
func (l *loop) refresh() {
	changes, view, lost := l.subscription.Take()
	if lost {
		l.relist(view)
		return
	}
	l.view = view
	for _, c := range changes {
		l.onChange(c)
	}
	l.follow()
	now := l.config.Now()
	for _, due := range l.wakes.due(now) {
		switch {
		case due.NodeID != "":
			l.dirty.nodes.add(due.NodeID)
		case due.ServiceID != "":
			l.dirty.services.add(due.ServiceID)
		default:
			l.onRoomFreed()
		}
	}
	if now.Sub(l.forgot) > time.Minute {
		l.ledger.Forget(now)
		l.forgot = now
	}
}

// step plans what is dirty and writes the plan. After an error, everything is
// dirty that may not have been written.
func (l *loop) step(ctx context.Context) error {
	if !l.dirty.any() {
		return nil
	}
	ctx, span := l.config.Trace.Start(trace.With(ctx, l.config.Trace.Origin(l.dirty.services.ids...)), "scheduler.plan")
	result, input := l.plan()
	if len(result.Intents) > 0 { // One that wants nothing isn't told of.
		span.SetNumber(trace.Services, result.Planned)
		span.SetNumber(trace.Intents, len(result.Intents))
		span.End(nil)
	}
	dropped, err := Write(ctx, l.config.Store, result.Intents)
	l.measure.Dropped.Add(dropped)
	if err != nil {
		l.dirty.services.add(input.Services...)
		l.dirty.nodes.add(input.Nodes...)
		return err
	}
	return nil
}

// plan plans what is dirty and notes when to look again.
func (l *loop) plan() (Result, Input) {
	services, nodes := l.dirty.services.take(planLimit), l.dirty.nodes.take(math.MaxInt)
	input := Input{
		View: l.view, Ledger: l.ledger, Services: services, Nodes: nodes, Limit: planLimit,
		Now: l.config.Now(), Monotonic: l.config.Monotonic(), NewID: l.config.NewID, Lost: l.lost, LeaderSince: l.began,
	}
	began := l.config.Monotonic()
	result := Plan(input)
	l.measure.plan(l.config.Monotonic().Sub(began), result)
	l.dirty.services.add(services[result.Planned:]...)
	for _, id := range services[:result.Planned] {
		l.wakes.drop(Wake{ServiceID: id})
		delete(l.waiting, id)
		delete(l.following, id)
		l.independent(id)
	}
	for _, id := range nodes {
		l.wakes.drop(Wake{NodeID: id})
	}
	for _, wake := range result.Wakes {
		l.wakes.set(wake)
	}
	for _, id := range result.Waiting {
		l.waiting[id] = struct{}{}
		if s := l.view.Service(id); s != nil {
			if _, near := cluster.LabelAffinity.Of(s.Spec.Labels); near {
				l.following[id] = struct{}{}
			}
		}
	}
	for _, d := range result.Depending {
		l.depends(d)
	}
	return result, input
}

// Write applies intents, in order, in as few Updates as their size allows. It tells how many
// of them no longer fitted.
func Write(ctx context.Context, s Store, intents []Intent) (dropped int, err error) {
	for len(intents) > 0 {
		part := intents[:min(len(intents), entryLimit)]
		intents = intents[len(part):]
		unfit := 0
		err := s.Update(ctx, func(tx *store.Tx) error {
			unfit = 0
			in := &Tx{Tx: tx, schedulable: make(map[string]bool)}
			for _, intent := range part {
				before := tx.Writes()
				if err := intent.Apply(in); err != nil {
					return err
				}
				if tx.Writes() == before {
					unfit++
				}
			}
			return nil
		})
		if err != nil {
			return dropped, fmt.Errorf("write plan: %w", err)
		}
		dropped += unfit
	}
	return dropped, nil
}

// List makes a ledger from a view.
func List(view store.View) *placement.Ledger {
	l := placement.New()
	for n := range view.Nodes() {
		l.ChangeNode(nil, n)
	}
	for s := range view.Services() {
		l.ChangeService(nil, s)
	}
	for r := range view.Revisions() {
		l.ChangeRevision(nil, r)
	}
	for t := range view.Tasks() {
		l.ChangeTask(nil, t)
	}
	return l
}
