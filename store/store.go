package store

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"skep/cluster"
	"skep/cluster/telemetry"
	"skep/cluster/trace"
)

// Config is what a Store needs from outside. The zero value works.
type Config struct {
	// Now is the machine's clock, which Store.Now, Tx.Now and the times of objects come
	// from; time.Now by default.
	Now func() time.Time
	// Log takes what operators should know; slog.Default() by default.
	Log *slog.Logger
	// Build is which skep this is: one that doesn't fit the cluster's level must not have
	// its database. The zero value is what this source is.
	Build cluster.Build
	// Fatal is called, at most once, when going on would let this manager drift
	// apart from the others. It must not return in production: by default it logs
	// and exits. Where it returns (in tests), the Store applies nothing any more.
	Fatal func(error)
	// Metrics are what is measured; nothing by default.
	Metrics telemetry.Store
	// Trace has spans of Updates; nil has none.
	Trace *trace.Tracer
	// Wrote is told, on the leader, how many Updates an entry had that were accepted, and how long raft took
	// to commit it, before they are answered. It must not block; nobody by default.
	Wrote func(updates int, took time.Duration)
}

// Store is one manager's copy of the database.
type Store struct {
	clock   clock
	log     *slog.Logger
	fatal   func(error)
	build   cluster.Build
	metrics telemetry.Store
	written telemetry.Timer // metrics.Update's of "ok": there are thousands a second
	trace   *trace.Tracer
	wrote   func(updates int, took time.Duration)
	intern  *interner // used by raft's FSM goroutine only

	published atomic.Pointer[state]
	leading   atomic.Pointer[leadership]

	mu            sync.Mutex // guards the fields below, and serialises writes to and copies of current
	current       *state
	subscriptions map[*Subscription]struct{}
	waiters       map[*waiter]struct{}
	failed        error
}

// New makes an empty Store; raft fills it through FSM.
func New(config Config) *Store {
	s := &Store{
		clock: clock{machine: config.Now}, log: config.Log, fatal: config.Fatal, build: config.Build, metrics: config.Metrics, written: config.Metrics.Update.Of("ok"), trace: config.Trace, wrote: config.Wrote,
		intern:        newInterner(),
		subscriptions: make(map[*Subscription]struct{}),
		waiters:       make(map[*waiter]struct{}),
	}
	if s.clock.machine == nil {
		s.clock.machine = time.Now
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.build == (cluster.Build{}) {
		s.build = cluster.NewBuild("")
	}
	if s.fatal == nil {
		s.fatal = exit(s.log)
	}
	s.current = newState()
	s.published.Store(s.current.copy())
	return s
}

// exit is the default of the Fatal callbacks.
func exit(log *slog.Logger) func(error) {
	return func(err error) {
		log.Error("stop at once", "error", err)
		os.Exit(1)
	}
}

// View returns the database as of the last applied entry.
func (s *Store) View() View { return View{s.published.Load()} }

// Subscribe starts a subscription; its first Take has everything after now.
func (s *Store) Subscribe() *Subscription {
	sub := &Subscription{ready: make(chan struct{}, 1)}
	sub.close = func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.subscriptions, sub)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sub.view = s.View()
	s.subscriptions[sub] = struct{}{}
	return sub
}

// waiter waits for an index.
type waiter struct {
	index   uint64
	reached chan struct{}
}

// Wait returns nil once View has everything up to index, which must be the Index
// of a View, here or on another manager. It must not be raft's commit index: raft
// counts entries of its own that never reach the database.
func (s *Store) Wait(ctx context.Context, index uint64) error {
	s.mu.Lock()
	if s.current.applied >= index {
		s.mu.Unlock()
		return nil
	}
	w := &waiter{index: index, reached: make(chan struct{})}
	s.waiters[w] = struct{}{}
	s.mu.Unlock()
	select {
	case <-w.reached:
		return nil
	case <-ctx.Done():
		s.mu.Lock()
		delete(s.waiters, w)
		s.mu.Unlock()
		return fmt.Errorf("wait for index %d: %w", index, context.Cause(ctx))
	}
}

// publishLocked makes current visible: to View, then to waiters and subscribers.
func (s *Store) publishLocked(changes []Change, lost bool) {
	s.published.Store(s.current.copy())
	for w := range s.waiters {
		if w.index <= s.current.applied {
			close(w.reached)
			delete(s.waiters, w)
		}
	}
	if len(changes) == 0 && !lost {
		return
	}
	view := s.View()
	for sub := range s.subscriptions {
		if sub.offer(changes, view, lost) {
			s.metrics.Resets.Add(1)
		}
	}
}

// failLocked stops the Store: what came in can't be applied, and whatever comes
// after builds on it.
func (s *Store) failLocked(err error) error {
	if s.failed == nil {
		s.failed = err
		s.fatal(err)
	}
	return s.failed
}
