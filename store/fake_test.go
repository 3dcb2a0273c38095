package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"skep/cluster"
)

// instant is a raft that commits at once, unless told otherwise.
type instant struct {
	fsm raft.FSM

	mu      sync.Mutex // guards the fields below
	entries []*raft.Log
	index   uint64
	// hold, when set, keeps each entry until it can be received from.
	hold chan struct{}
	// outcome, when set, is what becomes of the next entries; they are not applied.
	outcome error
	// barrier, when set, is what becomes of barriers, of the next few when there are few.
	barrier error
	few     int
}

type future struct {
	done     chan struct{}
	err      error
	response any
	index    uint64
}

func (f *future) Error() error  { <-f.done; return f.err }
func (f *future) Response() any { return f.response }
func (f *future) Index() uint64 { return f.index }

func (r *instant) Apply(data []byte, _ time.Duration) raft.ApplyFuture {
	f := &future{done: make(chan struct{})}
	r.mu.Lock()
	hold := r.hold
	r.mu.Unlock()
	finish := func() {
		defer close(f.done)
		r.mu.Lock()
		defer r.mu.Unlock()
		if f.err = r.outcome; f.err != nil {
			return
		}
		r.index++
		log := &raft.Log{Index: r.index, Term: 1, Data: data}
		r.entries = append(r.entries, log)
		f.index, f.response = r.index, r.fsm.Apply(log)
	}
	if hold == nil {
		finish()
		return f
	}
	go func() {
		<-hold
		finish()
	}()
	return f
}

func (r *instant) Barrier(time.Duration) raft.Future {
	f := &future{done: make(chan struct{}), err: r.barrier}
	if r.few--; r.few == 0 {
		r.barrier = nil
	}
	close(f.done)
	return f
}

func (r *instant) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.entries)
}

var quiet = slog.New(slog.DiscardHandler)

// newStore makes a Store that must not fail.
func newStore(t testing.TB) *Store {
	return New(Config{Log: quiet, Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
}

// lead runs the proposer on an instant raft until the test ends.
func lead(t testing.TB) (*Store, *instant) {
	t.Helper()
	s := newStore(t)
	r := &instant{fsm: s.FSM()}
	leadOn(t, s, r)
	return s, r
}

// leadOn runs the proposer and returns what ends it and hands out its error.
func leadOn(t testing.TB, s *Store, r Raft) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Lead(ctx, r, nil) }()
	until(t, func() bool { return s.leading.Load() != nil })
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() { cancel(); err = <-done })
		return err
	}
	t.Cleanup(func() { stop() })
	return stop
}

// until waits for a condition.
func until(t testing.TB, holds func() bool) {
	t.Helper()
	for range 10_000 {
		if holds() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatal("waited for 10 s in vain")
}

// member is one manager: a real raft of a single voter, quick to elect itself.
type member struct {
	*raft.Raft
	store *Store
}

func startRaft(t testing.TB, s *Store, logs raft.LogStore, stable raft.StableStore, snapshots raft.SnapshotStore) *member {
	t.Helper()
	config := raft.DefaultConfig()
	config.LocalID = "m1"
	config.HeartbeatTimeout, config.ElectionTimeout = 20*time.Millisecond, 20*time.Millisecond
	config.LeaderLeaseTimeout, config.CommitTimeout = 20*time.Millisecond, time.Millisecond
	config.TrailingLogs = 8
	config.Logger = hclog.NewNullLogger()
	address, transport := raft.NewInmemTransport("m1")
	has, err := raft.HasExistingState(logs, stable, snapshots)
	if err != nil {
		t.Fatal(err)
	}
	if !has {
		voters := raft.Configuration{Servers: []raft.Server{{ID: "m1", Address: address}}}
		if err := raft.BootstrapCluster(config, logs, stable, snapshots, transport, voters); err != nil {
			t.Fatal(err)
		}
	}
	r, err := raft.NewRaft(config, s.FSM(), logs, stable, snapshots, transport)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Shutdown().Error() })
	until(t, func() bool { return r.State() == raft.Leader })
	return &member{Raft: r, store: s}
}

func update(t testing.TB, s *Store, fn func(*Tx) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Update(ctx, fn); err != nil {
		t.Fatal(err)
	}
}

// put puts objects in one update.
func put(t testing.TB, s *Store, objects ...any) {
	t.Helper()
	update(t, s, func(tx *Tx) error {
		for _, object := range objects {
			if err := tx.Put(object); err != nil {
				return err
			}
		}
		return nil
	})
}

func service(id, name string) *cluster.Service {
	s := &cluster.Service{ID: id}
	s.Spec.Name = name
	return s
}

func newSecret(id, name string) *cluster.Secret {
	s := &cluster.Secret{ID: id}
	s.Spec.Name = name
	return s
}

func newConfig(id, name string) *cluster.Config {
	c := &cluster.Config{ID: id}
	c.Spec.Name = name
	return c
}

func newNetwork(id, name string) *cluster.Network {
	n := &cluster.Network{ID: id}
	n.Spec.Name = name
	return n
}

// snapshotOf returns a view as a snapshot that isn't compressed.
func snapshotOf(t interface{ Fatal(...any) }, v View) []byte {
	var out bytes.Buffer
	if _, err := v.write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// compressedOf returns a view as a snapshot as it is on disk.
func compressedOf(t interface{ Fatal(...any) }, v View) []byte {
	out := &sink{}
	if err := (snapshot{v}).Persist(out); err != nil {
		t.Fatal(err)
	}
	if !out.closed {
		t.Fatal("Persist didn't close the sink")
	}
	return out.data
}

// sink is a snapshot sink in memory that can take up to limit bytes, if set.
type sink struct {
	data              []byte
	limit             int
	closed, cancelled bool
}

func (s *sink) Write(p []byte) (int, error) {
	if s.limit > 0 && len(s.data)+len(p) > s.limit {
		return 0, errors.New("no space left on device")
	}
	s.data = append(s.data, p...)
	return len(p), nil
}
func (s *sink) Close() error  { s.closed = true; return nil }
func (s *sink) Cancel() error { s.cancelled = true; return nil }
func (s *sink) ID() string    { return "test" }

var _ io.Writer = (*sink)(nil)

// same checks that two views are equal, and says where they aren't.
func same(t interface{ Fatalf(string, ...any) }, got, want View) {
	if got.Digest() == want.Digest() {
		return
	}
	list := func(v View) (out []string) {
		for _, object := range v.s.objects() {
			out = append(out, fmt.Sprintf("%T %+v", object, object))
		}
		return out
	}
	t.Fatalf("views differ\ngot %d: %q\nwant %d: %q", got.Index(), list(got), want.Index(), list(want))
}

// sharesMemory tells whether two strings are one in memory.
func sharesMemory(a, b string) bool { return unsafe.StringData(a) == unsafe.StringData(b) }

// identify returns the kind and the key of an object.
func identify(object any) (n kindNumber, key string) {
	n = kindNumbers[reflect.TypeOf(object)]
	return n, kinds[n-1].keyOf(object)
}
