package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"skep/cluster"
)

func reader(data []byte) io.ReadCloser { return io.NopCloser(bytes.NewReader(data)) }

func contextOf(t testing.TB, limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), limit)
}

func TestSnapshot_AndTheRestOfTheLogGiveTheLiveState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		live, log := history(t)
		cut := rapid.IntRange(0, len(log)).Draw(t, "cut")
		before := replay(t, nil, log[:cut])
		data := snapshotOf(t, before.View())
		after := replay(t, data, log[cut:])
		same(t, after.View(), live.View())
		checkIndexes(t, after.View())
		if again := snapshotOf(t, replay(t, data, nil).View()); !bytes.Equal(again, data) {
			t.Fatalf("a restored snapshot gives another snapshot")
		}
	})
}

func TestSnapshot_IsOfItsMoment(t *testing.T) {
	s, _ := lead(t)
	put(t, s, &cluster.Node{ID: "n1"})
	taken, err := s.FSM().Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, &cluster.Node{ID: "n2"})
	out := &sink{}
	if err := taken.Persist(out); err != nil {
		t.Fatal(err)
	}
	other := newStore(t)
	if err := other.FSM().Restore(reader(out.data)); err != nil {
		t.Fatal(err)
	}
	if v := other.View(); v.NodeCount() != 1 || v.Index() != 1 {
		t.Errorf("%d nodes at index %d, want 1 at 1", v.NodeCount(), v.Index())
	}
	full := &sink{limit: len(out.data) / 2}
	if err := taken.Persist(full); err == nil || !full.cancelled || full.closed {
		t.Errorf("on a full disk: %v, cancelled %v, closed %v", err, full.cancelled, full.closed)
	}
}

// sample is a store with one object of each kind.
func sample(t testing.TB) *Store {
	s, _ := lead(t)
	put(t, s, &cluster.Cluster{ID: "c1"}, &cluster.Node{ID: "n1"}, service("s1", "web"),
		&cluster.Revision{ServiceID: "s1", Number: 1}, &cluster.Rollout{ServiceID: "s1"}, &cluster.Task{ID: "t1", ServiceID: "s1"},
		&cluster.Secret{ID: "x1"}, &cluster.Config{ID: "x1"})
	return s
}

func TestRestore_RejectsWhatIsDamaged(t *testing.T) {
	good := snapshotOf(t, sample(t).View())
	rejects := func(what string, at int, data []byte) {
		t.Helper()
		var fatal error
		s := New(Config{Log: quiet, Fatal: func(err error) { fatal = err }})
		if err := s.FSM().Restore(reader(data)); err == nil || fatal == nil {
			t.Fatalf("%s at %d: restored", what, at)
		}
		if s.View().Index() != 0 || s.View().NodeCount() != 0 {
			t.Fatalf("%s at %d: half of it is there", what, at)
		}
	}
	for i := range good {
		rejects("cut", i, good[:i])
		for _, bit := range []byte{1, 0x80} {
			bad := slices.Clone(good)
			bad[i] ^= bit
			rejects("flipped", i, bad)
		}
	}
	rejects("longer", len(good), append(slices.Clone(good), 0))
	// A snapshot that says it is shorter, with a checksum that fits.
	short := slices.Clone(good[:len(good)-sha256.Size])
	short[8+2+8+7]--
	sum := sha256.Sum256(short)
	rejects("count", 0, append(short, sum[:]...))
}

func TestRestore_StopsAtANewerFormat(t *testing.T) {
	data := snapshotOf(t, sample(t).View())
	data[9] = format + 1
	var fatal error
	s := New(Config{Log: quiet, Fatal: func(err error) { fatal = err }})
	if err := s.FSM().Restore(reader(data)); err == nil || fatal == nil || !strings.Contains(fatal.Error(), "install the version that the other managers run") {
		t.Errorf("restored with %v, fatal %v", err, fatal)
	}
}

func TestRestore_WakesWhoWaits(t *testing.T) {
	data := snapshotOf(t, sample(t).View())
	s := newStore(t)
	sub := s.Subscribe()
	defer sub.Close()
	reached := make(chan error, 1)
	go func() { reached <- s.Wait(t.Context(), 1) }()
	if err := s.FSM().Restore(reader(data)); err != nil {
		t.Fatal(err)
	}
	if err := <-reached; err != nil {
		t.Errorf("Wait: %v", err)
	}
	<-sub.Ready()
	if changes, view, lost := sub.Take(); !lost || len(changes) != 0 || view.NodeCount() != 1 {
		t.Errorf("Take = %d changes, %d nodes, lost %v", len(changes), view.NodeCount(), lost)
	}
}

// Records read from a snapshot share their common strings like those that came
// through the log.
func TestRestore_SharesStrings(t *testing.T) {
	s, _ := lead(t)
	put(t, s, &cluster.Task{ID: "t1", ServiceID: "service"}, &cluster.Task{ID: "t2", ServiceID: "service"})
	restored := newStore(t)
	if err := restored.FSM().Restore(reader(snapshotOf(t, s.View()))); err != nil {
		t.Fatal(err)
	}
	for _, v := range []View{s.View(), restored.View()} {
		if !sharesMemory(v.Task("t1").ServiceID, v.Task("t2").ServiceID) {
			t.Error("two tasks of a service each have their own copy of its ID")
		}
	}
}

func TestRaft_SnapshotsAndReplays(t *testing.T) {
	logs, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	s := newStore(t)
	m := startRaft(t, s, logs, logs, snapshots)
	stop := leadOn(t, s, m)
	for i := range 30 {
		put(t, s, &cluster.Node{ID: string(rune('a' + i))})
	}
	if err := m.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		put(t, s, &cluster.Task{ID: string(rune('a' + i))})
	}
	stop()
	if err := m.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	again := newStore(t)
	startRaft(t, again, logs, logs, snapshots)
	ctx, cancel := contextOf(t, 10*time.Second)
	defer cancel()
	if err := again.Wait(ctx, s.View().Index()); err != nil {
		t.Fatal(err)
	}
	same(t, again.View(), s.View())
}

// TestCompressed_IsTheSnapshot: what is on disk is read as what was written, and whatever becomes of its bytes, as
// nothing else.
func TestCompressed_IsTheSnapshot(t *testing.T) {
	v := sample(t).View()
	good := compressedOf(t, v)
	read := func(data []byte) (digest [32]byte, err error) {
		s, err := readCompressed(bytes.NewReader(data), newInterner())
		if err == nil {
			digest = View{s}.Digest()
		}
		return digest, err
	}
	if digest, err := read(good); err != nil || digest != v.Digest() {
		t.Fatalf("%x, %v", digest, err)
	}
	refused := 0
	try := func(what string, at int, data []byte) {
		digest, err := read(data)
		if err != nil {
			refused++
		} else if digest != v.Digest() {
			t.Fatalf("%s at %d: something else is read", what, at)
		}
	}
	for i := range good {
		if _, err := read(good[:i]); err == nil {
			t.Fatalf("cut at %d: it is read", i)
		}
		for _, bit := range []byte{1, 0x10, 0x80} {
			bad := slices.Clone(good)
			bad[i] ^= bit
			try("flipped", i, bad)
		}
	}
	if refused < 2*len(good) {
		t.Errorf("of %d flipped bits only %d are refused", 3*len(good), refused)
	}
	if _, err := read(append(slices.Clone(good), 0)); err == nil {
		t.Error("what follows its end isn't refused")
	}
}
