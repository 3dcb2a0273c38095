package store

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/trace"
)

const (
	// softEntry is the size past which an entry takes no further Updates in.
	softEntry = 256 << 10
	// maxBatch is how many Updates one entry joins at most, so that the first of
	// them doesn't wait for an endless row of others.
	maxBatch = 1024
	// enqueueLimit is how long raft may take to accept an entry, commitLimit how
	// long to commit it. A leader that can't has lost its quorum or its disk.
	enqueueLimit = 5 * time.Second
	commitLimit  = 10 * time.Second
	// handOverLook is how often is looked whether a hand-over has ended.
	handOverLook = 10 * time.Millisecond
	// endGrace is how much longer an entry that is under way may take once
	// leadership ends: raft mostly knows its outcome at once.
	endGrace = time.Second
)

// Raft is the part of *raft.Raft that the proposer uses.
type Raft interface {
	Apply(data []byte, timeout time.Duration) raft.ApplyFuture
	Barrier(timeout time.Duration) raft.Future
}

// request is one Update on its way through the proposer.
type request struct {
	fn     func(*Tx) error
	by     string    // who asked
	came   time.Time // when; zero where nothing is measured
	span   *trace.Span
	made   *Made // who collects what it changes; nil for nobody
	wrote  []Change
	result error
	ran    chan struct{} // closed when fn has returned
	answer chan error    // holds one
}

// leadership is what exists only while Lead runs.
type leadership struct {
	requests chan *request // unbuffered: who was taken is always answered
	ended    chan struct{}
}

// Update runs fn in a transaction and commits what it put and deleted. When fn
// returns an error, nothing is written and Update returns that error. fn runs on
// the proposer's goroutine, together with other Updates', so it must be quick and
// must not block; it never runs any more once Update has returned.
//
// It fails with ErrNotLeader or ErrUnavailable when nothing was written, and with
// ErrUnknownOutcome when the write was under way as leadership or ctx ended.
// A transaction without writes doesn't go through raft; it is no leadership check.
func (s *Store) Update(ctx context.Context, fn func(*Tx) error) error {
	ctx, span := s.trace.Start(ctx, "store.update")
	err := s.update(ctx, fn, span)
	endUpdate(span, err)
	return err
}

func (s *Store) update(ctx context.Context, fn func(*Tx) error, span *trace.Span) error {
	r := &request{fn: fn, by: cluster.Actor(ctx), span: span, made: madeOf(ctx), ran: make(chan struct{}), answer: make(chan error, 1)}
	if s.metrics.Update.Any() {
		r.came = s.clock.machine()
		s.metrics.Pending.Add(1)
		defer s.metrics.Pending.Add(-1)
	}
	if err := s.hand(ctx, r); err != nil {
		s.count(r, err, s.clock.machine)
		return err
	}
	select {
	case err := <-r.answer:
		return unpanic(err)
	case <-ctx.Done():
	}
	<-r.ran
	select {
	case err := <-r.answer:
		return unpanic(err)
	default:
		return fmt.Errorf("update: %w: %w", cluster.ErrUnknownOutcome, context.Cause(ctx))
	}
}

// hand gives a request to the proposer, who answers it. After an error nobody does.
func (s *Store) hand(ctx context.Context, r *request) error {
	lead := s.leading.Load()
	if lead == nil {
		return cluster.ErrNotLeader
	}
	select {
	case lead.requests <- r:
		return nil
	case <-lead.ended:
		return cluster.ErrNotLeader
	case <-ctx.Done():
		return fmt.Errorf("update: %w", context.Cause(ctx))
	}
}

// count counts an Update by what it came to: also one whose caller no longer waits for that. The proposer does it for those
// that it answers, as callers on all processors would get into each other's way.
func (s *Store) count(r *request, result error, now func() time.Time) {
	if r.came.IsZero() {
		return
	}
	took := now().Sub(r.came)
	if result == nil {
		s.written.Took(took)
	} else {
		s.metrics.Update.Of(resultOf(result)).Took(took)
	}
}

// resultOf is what an Update that failed came to, as it is counted.
func resultOf(err error) string {
	switch {
	case errors.Is(err, cluster.ErrUnknownOutcome):
		return "unknown"
	case errors.Is(err, cluster.ErrNotLeader):
		return "not_leader"
	}
	return "refused"
}

// Lead is what makes a leader of this manager: the proposer, and work beside it, which it
// calls once Update works and View has all that was committed before; nil is no work. When
// either ends, so does the other's context, and Lead returns when both have. It returns nil
// when ctx ends, or the reason why raft takes no more entries, or what work returned.
func (s *Store) Lead(ctx context.Context, r Raft, work func(context.Context) error) error {
	if err := catchUp(ctx, r); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("lead: wait for earlier entries: %w", outcome(err))
	}
	s.clock.raise(s.View().newest())
	lead := &leadership{requests: make(chan *request), ended: make(chan struct{})}
	if !s.leading.CompareAndSwap(nil, lead) {
		return errors.New("lead: the proposer runs already")
	}
	leading, end := context.WithCancelCause(ctx) // Whatever ends it first is the reason.
	var works sync.WaitGroup
	if work != nil {
		works.Go(func() { end(work(leading)) })
	}
	if err := s.propose(leading, r, lead); err != nil {
		end(fmt.Errorf("lead: %w", err))
	}
	s.leading.Store(nil)
	close(lead.ended)
	end(nil)
	works.Wait()
	if why := context.Cause(leading); ctx.Err() == nil && why != context.Canceled {
		return why
	}
	return nil
}

// propose commits Updates until ctx ends, or fails when raft takes no more entries.
func (s *Store) propose(ctx context.Context, r Raft, lead *leadership) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case first := <-lead.requests:
			if err := s.commit(ctx, r, lead, first); err != nil {
				return err
			}
		}
	}
}

// catchUp returns when all earlier entries are applied. While leadership is handed over
// raft takes no entry, not even that of the question; when nobody took it this manager
// leads on, and asks again.
func catchUp(ctx context.Context, r Raft) error {
	for waited := time.Duration(0); ; waited += handOverLook {
		err := await(ctx, r.Barrier(enqueueLimit), commitLimit)
		if !errors.Is(err, raft.ErrLeadershipTransferInProgress) || waited >= commitLimit {
			return err
		}
		select {
		case <-time.After(handOverLook):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// commit runs first and whatever else waits, proposes their changes as one entry
// and answers all of them. It returns an error when leadership can't go on.
func (s *Store) commit(ctx context.Context, r Raft, lead *leadership, first *request) error {
	b := s.newBatch()
	b.run(first)
	for len(b.waiting) > 0 && len(b.waiting) < maxBatch && b.size < softEntry {
		select {
		case next := <-lead.requests:
			b.run(next)
			continue
		default:
		}
		break
	}
	if len(b.waiting) == 0 {
		return nil
	}
	began := s.clock.machine()
	_, span := s.trace.Start(trace.With(ctx, trace.Join(b.spans)), "raft.commit")
	err := b.propose(ctx, r)
	b.endCommit(span, err)
	ended := s.clock.machine()
	took := ended.Sub(began)
	s.metrics.Commit.Took(took)
	s.metrics.Batch.Was(len(b.waiting))
	if n := b.accepted(); s.wrote != nil && err == nil && n > 0 {
		s.wrote(n, took)
	}
	for _, request := range b.waiting {
		if err != nil {
			request.result = fmt.Errorf("update: %w", err)
		} else if request.made != nil {
			request.made.add(request.wrote, b.index)
		}
		s.count(request, request.result, func() time.Time { return ended })
		request.answer <- request.result
	}
	if errors.Is(err, errRefused) || errors.Is(err, raft.ErrLeadershipTransferInProgress) {
		return nil // Nothing was written; the next batch may fare better.
	}
	return err
}

// batch is the Updates that become one entry.
type batch struct {
	store   *Store
	scratch *state
	now     time.Time
	records []record
	size    int
	waiting []*request    // run, to be answered once the entry is committed
	spans   []*trace.Span // those of waiting that have one
	index   uint64        // of the entry, once it is committed
}

func (s *Store) newBatch() *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &batch{store: s, scratch: s.current.copy(), now: s.clock.now()}
}

// run runs one Update's function on the scratch copy. What fails leaves no trace
// there. What saw nothing but committed objects and writes nothing is answered at
// once; all else is answered with the entry, since it may rest on what the entry
// writes.
func (b *batch) run(r *request) {
	defer close(r.ran)
	r.span.Event("taken")
	tx := &Tx{View: View{b.scratch}, now: b.now, by: r.by}
	r.result = call(r.fn, tx)
	if r.result == nil {
		r.result = tx.refused
	}
	if r.result != nil {
		tx.undo()
	}
	for _, c := range tx.changes {
		b.records = append(b.records, c.record)
	}
	b.size += tx.size
	if len(b.records) == 0 {
		b.store.count(r, r.result, b.store.clock.machine)
		r.answer <- r.result
		return
	}
	b.waiting = append(b.waiting, r)
	if r.made != nil {
		for _, c := range tx.changes {
			r.wrote = append(r.wrote, Change{Before: c.before, After: c.after, By: r.by})
		}
	}
	if r.span != nil {
		b.spans = append(b.spans, r.span)
		setOrigins(b.store.trace, r.span, tx.changes)
	}
}

// accepted is how many of the Updates aren't refused.
func (b *batch) accepted() (n int) {
	for _, request := range b.waiting {
		if request.result == nil {
			n++
		}
	}
	return n
}

// propose commits the batch as one entry.
func (b *batch) propose(ctx context.Context, r Raft) error {
	data, err := encodeEntry(entry{Base: b.scratch.applied, Changes: b.records})
	if err != nil {
		return err
	}
	future := r.Apply(data, enqueueLimit)
	if err := await(ctx, future, commitLimit); err != nil {
		return outcome(err)
	}
	b.index = future.Index()
	// An error of the FSM is in the response, not in the future's Error.
	if err, ok := future.Response().(error); ok {
		if errors.Is(err, errRefused) {
			return fmt.Errorf("%w: %w", cluster.ErrUnavailable, err)
		}
		return fmt.Errorf("%w: %w", cluster.ErrUnknownOutcome, err)
	}
	return nil
}

// errLate means that raft gave no outcome in time.
var errLate = errors.New("raft gave no outcome in time")

// await waits for a future, but not for ever. Where it gives up, the goroutine
// that waits for the future stays until raft shuts down, which resolves it. The limit
// is counted in parts, as in watchdog.go: a process that was stopped, or a machine that
// slept, finds all of it gone at once, and raft's answer on the way.
func await(ctx context.Context, f raft.Future, limit time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- f.Error() }()
	tick := time.NewTicker(limit / watchTicks)
	defer tick.Stop()
	for range watchTicks {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			continue
		case <-ctx.Done():
		}
		break
	}
	if ctx.Err() == nil {
		return errLate
	}
	timer := time.NewTimer(endGrace)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return errLate
	}
}

// outcome says in our words what raft's error means for a write: surely not
// written, or unknown.
func outcome(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return fmt.Errorf("%w: %w", cluster.ErrNotLeader, err)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return fmt.Errorf("%w: %w", cluster.ErrUnavailable, err)
	default:
		// Leadership lost, shut down, a failed log write, no answer in time: the entry
		// may still be on a majority's disks, or get there.
		return fmt.Errorf("%w: %w", cluster.ErrUnknownOutcome, err)
	}
}

// panicked carries a panic of an Update's function from the proposer, which must
// go on, to the caller whose fault it is.
type panicked struct {
	value any
	stack []byte
}

func (p panicked) Error() string { return fmt.Sprintf("update: %v\n%s", p.value, p.stack) }

func call(fn func(*Tx) error, tx *Tx) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = panicked{value, debug.Stack()}
		}
	}()
	return fn(tx)
}

func unpanic(err error) error {
	if p, ok := err.(panicked); ok {
		panic(p.Error())
	}
	return err
}
