package manager

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

var (
	router = netip.MustParseAddr("192.0.2.1")
	noon   = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
)

// crowd has nodes join from one address, each second so many, and come after a while, if
// they do. It tells how many were let in.
func crowd(j *joins, perSecond, seconds int, comes time.Duration) (let int) {
	came := map[string]time.Time{}
	now := noon
	ready := func(id string) bool { return comes > 0 && now.Sub(came[id]) >= comes }
	for range seconds {
		for i := range perSecond {
			now = now.Add(time.Second / time.Duration(perSecond))
			id := fmt.Sprint(now.UnixNano(), i)
			if j.take(router, id, now, ready) == nil {
				came[id] = now
				let++
			}
		}
	}
	return let
}

func TestJoins_HonestMassesAreLetIn(t *testing.T) {
	// Ten thousand from one address within 90 s, each of which takes five seconds to come.
	if let := crowd(&joins{}, 112, 90, 5*time.Second); let != 112*90 {
		t.Errorf("%d of %d were let in", let, 112*90)
	}
	// When they take long they are let in as fast as they come; those refused try again.
	if let := crowd(&joins{}, 112, 90, 30*time.Second); let < 3*maxAbsent/2 {
		t.Errorf("%d slow ones were let in", let)
	}
}

func TestJoins_ThoseThatNeverComeAreFew(t *testing.T) {
	j := &joins{}
	if let := crowd(j, 50, 500, 0); let != maxAbsent {
		t.Errorf("%d were let in within %v; want %d", let, 500*time.Second, maxAbsent)
	}
	now := noon.Add(500 * time.Second)
	none := func(string) bool { return false }
	if err := j.take(router, "n", now, none); !errors.Is(err, cluster.ErrUnavailable) {
		t.Errorf("one more: %v", err)
	}
	if err := j.take(netip.MustParseAddr("192.0.2.2"), "n", now, none); err != nil {
		t.Errorf("another address: %v", err)
	}
	// One that came to nothing isn't counted, and those of long ago aren't.
	j.back(router, j.from[router].joined[0].nodeID)
	if err := j.take(router, "n", now, none); err != nil {
		t.Errorf("after one was taken back: %v", err)
	}
	if err := j.take(router, "n", noon.Add(joinSpan+30*time.Second), none); err != nil {
		t.Errorf("ten minutes later: %v", err)
	}
}

// Nodes that came and went are counted like those that never came.
func TestJoins_ComingAndGoingDoesntHelp(t *testing.T) {
	j, there := &joins{}, ""
	let := 0
	for i := range 3 * maxAbsent {
		id := fmt.Sprint(i)
		if j.take(router, id, noon.Add(time.Duration(i)*100*time.Millisecond), func(id string) bool { return id == there }) == nil {
			there = id
			let++
		}
	}
	if let > maxAbsent+1 {
		t.Errorf("%d were let in", let)
	}
}

func TestJoins_MemoryIsBounded(t *testing.T) {
	j := &joins{}
	for i := range 3 * maxJoins {
		addr := netip.AddrFrom4([4]byte{10, byte(i >> 8 & 7), byte(i), 1})
		now := noon.Add(time.Duration(i) * time.Millisecond)
		_ = j.take(addr, fmt.Sprint(i), now, func(string) bool { return true })
		j.guessed(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), now)
		if j.total > maxJoins || len(j.wrong) > maxAddresses {
			t.Fatalf("%d joins and %d addresses are remembered", j.total, len(j.wrong))
		}
	}
	kept := 0
	for _, all := range j.from {
		kept += len(all.joined)
	}
	if kept != j.total || kept < maxJoins/4 {
		t.Errorf("%d joins are remembered, %d are said to be", kept, j.total)
	}
}

func TestJoins_WrongTokensAreHeardAtARate(t *testing.T) {
	j := &joins{}
	heard := func(from, until time.Duration, every time.Duration) (count int) {
		for at := from; at < until; at += every {
			if j.hear(router, noon.Add(at)) == nil {
				j.guessed(router, noon.Add(at))
				count++
			}
		}
		return count
	}
	if n := heard(0, 10*time.Second, time.Millisecond); n < maxWrong+9*wrongRate || n > maxWrong+11*wrongRate {
		t.Errorf("%d were heard in ten seconds", n)
	}
	if err := j.hear(netip.MustParseAddr("192.0.2.2"), noon.Add(10*time.Second)); err != nil {
		t.Errorf("another address: %v", err)
	}
	// A hundred machines that try again every five to ten seconds are all heard.
	if n := heard(time.Minute, 2*time.Minute, time.Second/15); n < 60*15 {
		t.Errorf("%d of %d were heard", n, 60*15)
	}
}

func TestStrays(t *testing.T) {
	m := newLeader(t)
	node := func(id string, change func(*cluster.Node)) {
		n := &cluster.Node{ID: id, Role: swarm.NodeRoleWorker, Spec: swarm.NodeSpec{Role: swarm.NodeRoleWorker}, Awaited: true}
		if change != nil {
			change(n)
		}
		if err := m.store.Update(t.Context(), func(tx *store.Tx) error { return tx.Put(n) }); err != nil {
			t.Fatal(err)
		}
	}
	node("never", nil)
	node("came", func(n *cluster.Node) { n.Awaited = false })
	node("manager", func(n *cluster.Node) { n.Role, n.ManagerAddr = swarm.NodeRoleManager, "127.0.1.9:2377" })
	made := m.store.View().Node("never").CreatedAt
	if gone := strays(m.store.View(), made.Add(awaitedFor-time.Second)); len(gone) != 0 {
		t.Errorf("too early: %v", gone)
	}
	gone := strays(m.store.View(), made.Add(awaitedFor+time.Second))
	if len(gone) != 1 || gone[0].ID != "never" {
		t.Fatalf("%v", gone)
	}
	if removed, err := m.forgetSome(t.Context(), gone); removed != 1 || err != nil || m.store.View().Node("never") != nil {
		t.Errorf("%d removed, %v", removed, err)
	}
	for some := range maxAwaited / 512 {
		err := m.store.Update(t.Context(), func(tx *store.Tx) error {
			for i := range 512 {
				if err := tx.Put(&cluster.Node{ID: fmt.Sprintf("x%02d%03d", some, i), Role: swarm.NodeRoleWorker, Awaited: true}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	node("newest", nil)
	if gone := strays(m.store.View(), made); len(gone) != 1 || gone[0].ID != "x00000" {
		t.Errorf("beyond the most: %v", gone)
	}
}

func TestRoom(t *testing.T) {
	if err := room(maxNodes - 1); err != nil {
		t.Errorf("the last one: %v", err)
	}
	if err := room(maxNodes); !errors.Is(err, cluster.ErrPrecondition) {
		t.Errorf("one more: %v", err)
	}
}
