package manager

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/store"
)

// A read must see each write that was acknowledged before it began, and nothing that another read saw
// may be gone. The leader tells how far the database must be for that, its read index (Ongaro's thesis, 6.4), and
// any manager whose copy is as far answers from it.

const (
	// confirmLimit is how long one round of confirming leadership may take.
	confirmLimit = 2 * time.Second
	// askLimit is how long a leader may take to tell its read index.
	askLimit = time.Second
)

// callReadIndex is the kind of a call that asks for the read index.
const callReadIndex = 1

// readIndexQuestion is what a follower asks the leader.
type readIndexQuestion struct {
	// Term is the follower's. Like an answer to a heartbeat it says that the follower has voted for
	// nobody in a later one.
	Term uint64 `cbor:"1,keyasint"`
	// Lineage is that of its database.
	Lineage string `cbor:"2,keyasint,omitempty"`
	// Addr is where it listens.
	Addr string `cbor:"3,keyasint"`
}

// readIndexAnswer is what the leader says. Without an index Refused says why, and Elsewhere that
// another manager may lead.
type readIndexAnswer struct {
	Index     uint64 `cbor:"1,keyasint,omitempty"`
	Refused   string `cbor:"4,keyasint,omitempty"`
	Elsewhere bool   `cbor:"5,keyasint,omitempty"`
}

// refusedCall is an answer to any call.
type refusedCall struct {
	Refused string `cbor:"4,keyasint"`
}

// ReadBarrier returns when a read of the store is certain to see every write that was
// acknowledged before the call, and all that an earlier read of any manager saw; ErrNotLeader when this manager can't promise it.
// A quorum confirms a leadership of any term; but what is applied here has all earlier writes
// only in the term in which a leader's work has begun.
func (m *Manager) ReadBarrier(ctx context.Context) error {
	_, err := m.readIndex(ctx, m.establishedTerm(), false)
	return err
}

// CatchUp returns when this manager's copy of the database, which doesn't lead, has all that a read must see
// that began before the call. It asks the leader; those who call meanwhile share the next question.
func (m *Manager) CatchUp(ctx context.Context) error {
	index, err := m.questions.do(ctx, m.askReadIndex)
	if err != nil {
		return err
	}
	return m.store.Wait(ctx, index)
}

func (m *Manager) establishedTerm() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leader.term
}

// readIndex is the index of the database that reads must see which began before the call, if this manager leads in the term.
// Confirmed says that a quorum is known to have voted for nobody later than that when they began.
func (m *Manager) readIndex(ctx context.Context, term uint64, confirmed bool) (uint64, error) {
	if term == 0 {
		return 0, fmt.Errorf("read the database: %w", cluster.ErrNotLeader)
	}
	commit := m.raft.CommitIndex()
	if !confirmed {
		in, err := m.confirmations.do(ctx, m.confirmTerm)
		if err != nil {
			return 0, fmt.Errorf("read the database: %w", err)
		}
		confirmed = in == term
	}
	if !confirmed || m.leadsTerm() != term || m.establishedTerm() != term {
		return 0, fmt.Errorf("read the database: %w: leadership changed meanwhile", cluster.ErrNotLeader)
	}
	// A follower may have applied, and shown, an entry that is committed but not yet applied here. Those of raft's own
	// never reach the database.
	if m.store.View().Index() < commit {
		if err := m.entries.wait(ctx); err != nil {
			return 0, fmt.Errorf("read the database: %w: %w", cluster.ErrUnavailable, err)
		}
	}
	return m.store.View().Index(), nil
}

// confirmTerm confirms that this manager leads, and says in which term.
func (m *Manager) confirmTerm() (uint64, error) {
	term := m.leadsTerm()
	if term == 0 {
		return 0, cluster.ErrNotLeader
	}
	ctx, cancel := context.WithTimeout(context.Background(), confirmLimit)
	defer cancel()
	return term, m.confirm(ctx, term)
}

// askReadIndex asks the leader.
func (m *Manager) askReadIndex() (uint64, error) {
	peer, self, ok, changed := m.leads()
	addr, id, term := m.leaderInTerm()
	if !ok || self || string(id) != peer.NodeID {
		return 0, fmt.Errorf("ask the leader: %w", cluster.ErrNoLeader)
	}
	question := readIndexQuestion{Term: term, Addr: m.cfg.Addr}
	if record := m.store.View().Cluster(); record != nil {
		question.Lineage = record.Lineage
	}
	content, err := cluster.Encode(question)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), askLimit)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() { // A leader that was stopped or cut off may never answer.
		select {
		case <-changed:
			stop(cluster.ErrNotLeader)
		case <-ctx.Done():
		}
	}()
	said, err := m.transport.Call(ctx, string(id), m.transport.Addr(string(id), string(addr)), callReadIndex, content)
	if err != nil {
		return 0, fmt.Errorf("ask the leader: %w", err)
	}
	var answer readIndexAnswer
	if err := cluster.Decode(said, &answer); err != nil {
		return 0, fmt.Errorf("ask the leader: %w", err)
	}
	switch {
	case answer.Elsewhere:
		return 0, fmt.Errorf("ask the leader: %w: %s", cluster.ErrNotLeader, answer.Refused)
	case answer.Refused != "":
		return 0, fmt.Errorf("ask the leader: %w: %s", cluster.ErrUnavailable, answer.Refused)
	}
	return answer.Index, nil
}

// answerReadIndex answers the question of the manager from.
func (m *Manager) answerReadIndex(ctx context.Context, from string, content []byte) readIndexAnswer {
	index, err := func() (uint64, error) {
		var question readIndexQuestion
		if err := cluster.Decode(content, &question); err != nil {
			return 0, err
		}
		member, enough := m.transport.Confirms(from, question.Addr)
		term := m.establishedTerm()
		switch record := m.store.View().Cluster(); {
		case term == 0 || term != question.Term:
			return 0, fmt.Errorf("this manager doesn't lead in term %d: %w", question.Term, cluster.ErrNotLeader)
		case !member:
			return 0, fmt.Errorf("node %s is no manager at %s: %w", from, question.Addr, cluster.ErrDenied)
		case record == nil || record.Lineage != question.Lineage:
			return 0, cluster.ErrLineage
		}
		ctx, cancel := context.WithTimeout(ctx, askLimit)
		defer cancel()
		index, err := m.readIndex(ctx, term, enough)
		if err == nil {
			m.transport.TellCommit(from, index)
		}
		return index, err
	}()
	if err != nil {
		return readIndexAnswer{Refused: err.Error(), Elsewhere: errors.Is(err, cluster.ErrNotLeader)}
	}
	return readIndexAnswer{Index: index}
}

// serveCalls answers the calls of another manager until conn or ctx ends.
func (m *Manager) serveCalls(ctx context.Context, conn net.Conn, from cluster.Identity) error {
	return m.transport.ServeCalls(ctx, conn, from.NodeID, func(kind byte, content []byte, answer func([]byte)) {
		switch {
		case m.belongs(from) != nil || !managers(from, m.store.View().Node(from.NodeID)):
			answer(encodeAnswer(refusedCall{fmt.Sprintf("node %s is not a manager any more", from.NodeID)}))
		case kind == callReadIndex:
			go func() { answer(encodeAnswer(m.answerReadIndex(ctx, from.NodeID, content))) }()
		case kind == callAPI:
			go func() { answer(encodeAnswer(m.answerAPI(ctx, content))) }()
		default:
			answer(encodeAnswer(refusedCall{fmt.Sprintf("calls of kind %d are unknown", kind)}))
		}
	})
}

func encodeAnswer(v any) []byte {
	data, err := cluster.Encode(v)
	if err != nil {
		return nil // which nobody can decode
	}
	return data
}

// shared has calls of a function, one at a time, that those share who came before it began.
type shared[T any] struct {
	mu      sync.Mutex // guards the fields below
	running bool
	next    *turn[T] // of those who came since the last one began
}

type turn[T any] struct {
	done  chan struct{} // closed when the two below are set
	value T
	err   error
}

// do gives what f gave in a call that began after this one.
func (s *shared[T]) do(ctx context.Context, f func() (T, error)) (T, error) {
	s.mu.Lock()
	mine := s.next
	if mine == nil {
		mine = &turn[T]{done: make(chan struct{})}
		s.next = mine
	}
	if !s.running {
		s.running = true
		go s.run(f)
	}
	s.mu.Unlock()
	select {
	case <-mine.done:
		return mine.value, mine.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("%w: %w", cluster.ErrUnavailable, context.Cause(ctx))
	}
}

// run takes the turns until nobody waits for one.
func (s *shared[T]) run(f func() (T, error)) {
	for {
		s.mu.Lock()
		now := s.next
		s.next = nil
		s.running = now != nil
		s.mu.Unlock()
		if now == nil {
			return
		}
		now.value, now.err = f()
		close(now.done)
	}
}

// entries are this manager's proposals to raft, and know which have no outcome yet.
type entries struct {
	store.Raft
	mu   sync.Mutex // guards open
	open map[*proposal]struct{}
}

// proposal is one of them.
type proposal struct {
	raft.ApplyFuture
	of   *entries
	once sync.Once
	done chan struct{}
}

func newEntries(r store.Raft) *entries { return &entries{Raft: r, open: map[*proposal]struct{}{}} }

// Apply proposes an entry. Somebody waits for its Error always.
func (e *entries) Apply(data []byte, timeout time.Duration) raft.ApplyFuture {
	p := &proposal{of: e, done: make(chan struct{})}
	e.mu.Lock() // From before it can be committed.
	e.open[p] = struct{}{}
	e.mu.Unlock()
	p.ApplyFuture = e.Raft.Apply(data, timeout)
	return p
}

// Error waits for the outcome: when it is nil, the entry is applied here.
func (p *proposal) Error() error {
	err := p.ApplyFuture.Error()
	p.once.Do(func() {
		p.of.mu.Lock()
		delete(p.of.open, p)
		p.of.mu.Unlock()
		close(p.done)
	})
	return err
}

// wait returns when all that was proposed has an outcome.
func (e *entries) wait(ctx context.Context) error {
	e.mu.Lock()
	open := make([]*proposal, 0, len(e.open))
	for p := range e.open {
		open = append(open, p)
	}
	e.mu.Unlock()
	for _, p := range open {
		select {
		case <-p.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
