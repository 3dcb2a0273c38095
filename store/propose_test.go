package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"

	"skep/cluster"
)

func TestUpdate_IsVisibleOnceItReturns(t *testing.T) {
	s, r := lead(t)
	put(t, s, service("s1", "web"), &cluster.Task{ID: "t1", ServiceID: "s1", NodeID: "n1"})
	v := s.View()
	if got := v.ServiceNamed("WEB"); got == nil || got.ID != "s1" || got.Version != 1 || got.CreatedAt.IsZero() {
		t.Errorf("service web = %+v", got)
	}
	if got := v.Task("t1"); got == nil || got.Version != 1 || got.CreatedAt == 0 || v.Index() != 1 {
		t.Errorf("task t1 = %+v at index %d", got, v.Index())
	}
	created := v.Service("s1").CreatedAt
	changed := *v.Service("s1")
	changed.Spec.Name = "shop"
	put(t, s, &changed)
	if v.ServiceNamed("web") == nil || v.ServiceNamed("shop") != nil {
		t.Error("an old view changed")
	}
	now := s.View()
	if got := now.ServiceNamed("shop"); now.ServiceNamed("web") != nil || got.Version != 2 || !got.CreatedAt.Equal(created) {
		t.Errorf("service shop = %+v", got)
	}
	update(t, s, func(tx *Tx) error {
		tx.Delete(tx.Service("s1"))
		tx.Delete(tx.Task("t1"))
		tx.Delete(service("s9", "never there"))
		return nil
	})
	if now := s.View(); now.ServiceCount() != 0 || now.ServiceNamed("shop") != nil || now.TaskCount() != 0 {
		t.Error("something is left of what was deleted")
	}
	if r.count() != 3 {
		t.Errorf("%d entries, want 3", r.count())
	}
}

func TestUpdate_JoinsWaitingOnesIntoOneEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := &instant{fsm: s.FSM(), hold: make(chan struct{})}
		leadOn(t, s, r)
		var wait sync.WaitGroup
		for i := range 51 {
			wait.Go(func() { put(t, s, &cluster.Task{ID: fmt.Sprint("t", i)}) })
			if i == 0 {
				synctest.Wait() // The first is under way; the others pile up behind it.
			}
		}
		synctest.Wait()
		r.hold <- struct{}{}
		synctest.Wait()
		if n := s.View().TaskCount(); n != 1 {
			t.Errorf("%d tasks after the first entry, want 1", n)
		}
		r.hold <- struct{}{}
		wait.Wait()
		if s.View().TaskCount() != 51 || r.count() != 2 {
			t.Errorf("%d tasks in %d entries, want 51 in 2", s.View().TaskCount(), r.count())
		}
	})
}

func TestUpdate_BoundsTheSizeOfAnEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := &instant{fsm: s.FSM(), hold: make(chan struct{})}
		leadOn(t, s, r)
		var wait sync.WaitGroup
		for i := range 13 {
			wait.Go(func() {
				put(t, s, &cluster.Node{ID: fmt.Sprint("n", i), ManagerAddr: strings.Repeat("x", softEntry/4)})
			})
			if i == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		close(r.hold)
		wait.Wait()
		// The first alone, then four to an entry.
		if r.count() != 4 {
			t.Errorf("%d entries, want 4", r.count())
		}
		for _, e := range r.entries {
			if len(e.Data) > softEntry*5/4 {
				t.Errorf("entry %d has %d bytes", e.Index, len(e.Data))
			}
		}
	})
}

func TestUpdate_RefusesWhatIsTooLarge(t *testing.T) {
	s, r := lead(t)
	err := s.Update(t.Context(), func(tx *Tx) error {
		for i := range 9 {
			// An error that the function swallows must not let half of it through.
			_ = tx.Put(&cluster.Node{ID: fmt.Sprint("n", i), ManagerAddr: strings.Repeat("x", 1<<20)})
		}
		return nil
	})
	if !errors.Is(err, cluster.ErrInvalid) || !strings.Contains(err.Error(), "over 8 MiB") {
		t.Errorf("9 MiB: %v", err)
	}
	if r.count() != 0 {
		t.Errorf("%d entries were written", r.count())
	}
}

func TestUpdate_FailingLeavesNoTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := &instant{fsm: s.FSM(), hold: make(chan struct{})}
		leadOn(t, s, r)
		free := func() { r.hold <- struct{}{} }
		go free()
		put(t, s, service("s1", "web"), &cluster.Task{ID: "t1", ServiceID: "s1", NodeID: "n1"}, &cluster.Node{ID: "n1"})

		var wait sync.WaitGroup
		wait.Go(func() { put(t, s, &cluster.Node{ID: "n2"}) })
		synctest.Wait()
		// In the next batch: a good one, one that fails after it did everything a
		// transaction can do, one that panics, another good one.
		wait.Go(func() { put(t, s, &cluster.Node{ID: "n3"}) })
		synctest.Wait()
		ruin := func(tx *Tx) {
			tx.Delete(tx.Node("n1"))
			moved := *tx.Task("t1")
			moved.NodeID, moved.Slot = "n9", 4
			renamed := *tx.Service("s1")
			renamed.Spec.Name = "gone"
			again := renamed
			again.Spec.Name = "gone again"
			for _, object := range []any{
				&moved, &renamed, &again, service("s2", "web"), &cluster.Cluster{ID: "c1"},
				&cluster.Revision{ServiceID: "s1", Number: 3}, &cluster.Rollout{ServiceID: "s1"}, newSecret("x1", "key"), newConfig("x2", "conf"),
			} {
				if err := tx.Put(object); err != nil {
					t.Error(err)
				}
			}
			tx.Delete(tx.Task("t1"))
		}
		failure := errors.New("no")
		wait.Go(func() {
			if err := s.Update(t.Context(), func(tx *Tx) error { ruin(tx); return failure }); !errors.Is(err, failure) {
				t.Errorf("the failing one: %v", err)
			}
		})
		wait.Go(func() {
			defer func() {
				if p := recover(); p == nil || !strings.Contains(fmt.Sprint(p), "ouch") {
					t.Errorf("the panicking one: %v", p)
				}
			}()
			s.Update(t.Context(), func(tx *Tx) error { ruin(tx); panic("ouch") })
		})
		synctest.Wait()
		wait.Go(func() {
			update(t, s, func(tx *Tx) error {
				if tx.ServiceNamed("web") == nil || tx.ServiceNamed("gone") != nil || tx.Service("s2") != nil {
					t.Error("services of the failing one are left")
				}
				if tx.Node("n1") == nil || tx.Task("t1") == nil || tx.Task("t1").NodeID != "n1" {
					t.Error("what the failing one deleted or moved is so")
				}
				for task := range tx.TasksOfNode("n9") {
					t.Errorf("task %s is on n9", task.ID)
				}
				if tx.Cluster() != nil || tx.Revision("s1", 3) != nil || tx.Rollout("s1") != nil {
					t.Error("what the failing one made is there")
				}
				if tx.SecretNamed("key") != nil || tx.Config("x2") != nil || tx.ConfigNamed("conf") != nil {
					t.Error("secrets or configs of the failing one are left")
				}
				n := 0
				for range tx.TasksOfService("s1") {
					n++
				}
				if n != 1 {
					t.Errorf("%d tasks by service, want 1", n)
				}
				return tx.Put(&cluster.Node{ID: "n4"})
			})
		})
		synctest.Wait()
		free()
		free()
		wait.Wait()
		if r.count() != 3 || s.View().NodeCount() != 4 {
			t.Errorf("%d entries, %d nodes, want 3 and 4", r.count(), s.View().NodeCount())
		}
	})
}

func TestUpdate_WithoutChangesNeedsNoEntry(t *testing.T) {
	s, r := lead(t)
	update(t, s, func(*Tx) error { return nil })
	if r.count() != 0 {
		t.Errorf("%d entries", r.count())
	}
}

// A function that found something done already by one before it in the batch
// must not hear success, should that one's entry come to nothing.
func TestUpdate_AnswerWaitsForWhatItRestsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := &instant{fsm: s.FSM(), hold: make(chan struct{})}
		leadOn(t, s, r)
		go put(t, s, &cluster.Node{ID: "n0"})
		synctest.Wait()
		results := make(chan error, 2)
		go func() { results <- s.Update(t.Context(), func(tx *Tx) error { return tx.Put(service("s1", "web")) }) }()
		synctest.Wait()
		go func() {
			results <- s.Update(t.Context(), func(tx *Tx) error {
				if tx.ServiceNamed("web") == nil {
					t.Error("the second ran first")
				}
				return nil
			})
		}()
		synctest.Wait()
		r.hold <- struct{}{}
		synctest.Wait()
		if len(results) != 0 {
			t.Fatal("an update was answered before the entry that it rests on")
		}
		r.mu.Lock()
		r.outcome = raft.ErrLeadershipLost
		r.mu.Unlock()
		r.hold <- struct{}{}
		for range 2 {
			if err := <-results; !errors.Is(err, cluster.ErrUnknownOutcome) {
				t.Errorf("answer: %v", err)
			}
		}
	})
}

func TestUpdate_NamesAreUnique(t *testing.T) {
	s, _ := lead(t)
	var wait sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 40 {
		wait.Go(func() {
			name := []string{"web", "Web", "WEB"}[i%3]
			err := s.Update(t.Context(), func(tx *Tx) error { return tx.Put(service(fmt.Sprint("s", i), name)) })
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won++
			} else if !errors.Is(err, cluster.ErrNameTaken) {
				t.Errorf("update %d: %v", i, err)
			}
		})
	}
	wait.Wait()
	if won != 1 || s.View().ServiceCount() != 1 {
		t.Errorf("%d got the name, %d services", won, s.View().ServiceCount())
	}
}

func TestUpdate_NamesOfSecretsAndConfigsAreUnique(t *testing.T) {
	s, _ := lead(t)
	put(t, s, newSecret("x1", "Key"), newConfig("x2", "key"))
	for _, object := range []any{newSecret("x3", "KEY"), newConfig("x4", "KEY")} {
		if err := s.Update(t.Context(), func(tx *Tx) error { return tx.Put(object) }); !errors.Is(err, cluster.ErrNameTaken) {
			t.Errorf("%T: %v", object, err)
		}
	}
	put(t, s, newSecret("x1", "other"), newSecret("x3", "KEY"))
	if v := s.View(); v.SecretNamed("OTHER").ID != "x1" || v.SecretNamed("key").ID != "x3" || v.ConfigNamed("Key").ID != "x2" {
		t.Error("a name is another's")
	}
}

func TestView_References(t *testing.T) {
	s, _ := lead(t)
	uses, doesnt, wrong := service("s1", "uses"), service("s2", "doesnt"), service("s3", "wrong")
	uses.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{
		Secrets: []*swarm.SecretReference{{SecretID: "x1", SecretName: "key"}},
		Configs: []*swarm.ConfigReference{{ConfigID: "x2", ConfigName: "conf"}},
	}
	wrong.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{
		Secrets: []*swarm.SecretReference{{SecretID: "x1", SecretName: "lock"}},
		Configs: []*swarm.ConfigReference{{ConfigID: "x1", ConfigName: "conf"}},
	}
	put(t, s, newSecret("x1", "key"), newConfig("x2", "conf"), uses, doesnt, wrong)
	var users []string
	for service := range s.View().ServicesUsing("x2") {
		users = append(users, service.ID)
	}
	if !slices.Equal(users, []string{"s1"}) {
		t.Errorf("x2 is used by %v", users)
	}
	for _, all := range []*cluster.Service{uses, doesnt} {
		if missing := s.View().Missing(&all.Spec.TaskTemplate); len(missing) > 0 {
			t.Errorf("%s misses %v", all.Spec.Name, missing)
		}
	}
	want := []Reference{{"secret", "x1", "lock"}, {"config", "x1", "conf"}}
	if missing := s.View().Missing(&wrong.Spec.TaskTemplate); !slices.Equal(missing, want) {
		t.Errorf("missing %v, want %v", missing, want)
	}
	var prefixed []string
	for secret := range s.View().SecretsWithPrefix("x") {
		prefixed = append(prefixed, secret.ID)
	}
	for config := range s.View().ConfigsWithPrefix("x2") {
		prefixed = append(prefixed, config.ID)
	}
	if !slices.Equal(prefixed, []string{"x1", "x2"}) {
		t.Errorf("by prefix %v", prefixed)
	}
}

// increment raises a counter kept in a service, the way the API changes one: read
// a view, then write if the version is still the same.
func increment(ctx context.Context, s *Store) error {
	seen := s.View().Service("s1")
	return s.Update(ctx, func(tx *Tx) error {
		stored := tx.Service("s1")
		if stored.Version != seen.Version {
			return cluster.ErrConflict
		}
		next := *seen
		next.LastRevision++
		return tx.Put(&next)
	})
}

func TestUpdate_StaleVersionsConflict(t *testing.T) {
	s := newStore(t)
	m := startRaft(t, s, raft.NewInmemStore(), raft.NewInmemStore(), raft.NewInmemSnapshotStore())
	leadOn(t, s, m)
	put(t, s, service("s1", "counter"))
	var wait sync.WaitGroup
	var mu sync.Mutex
	done, conflicts := uint64(0), 0
	for range 8 {
		wait.Go(func() {
			for range 25 {
				err := increment(t.Context(), s)
				mu.Lock()
				switch {
				case err == nil:
					done++
				case errors.Is(err, cluster.ErrConflict):
					conflicts++
				default:
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if got := s.View().Service("s1").LastRevision; got != done {
		t.Errorf("the counter is %d after %d successes", got, done)
	}
	if conflicts == 0 {
		t.Log("no conflict happened, which proves little")
	}
}

// Two updates of one batch that saw the same version: one of them must lose.
func TestUpdate_StaleVersionsConflictWithinABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := &instant{fsm: s.FSM()}
		leadOn(t, s, r)
		put(t, s, service("s1", "counter"))
		hold := make(chan struct{})
		r.mu.Lock()
		r.hold = hold
		r.mu.Unlock()
		go put(t, s, &cluster.Node{ID: "n1"})
		synctest.Wait()
		results := make(chan error, 2)
		for range 2 {
			go func() { results <- increment(t.Context(), s) }()
		}
		synctest.Wait()
		close(hold)
		first, second := <-results, <-results
		if (first == nil) == (second == nil) || !errors.Is(errors.Join(first, second), cluster.ErrConflict) {
			t.Errorf("results %v and %v, want one success and one conflict", first, second)
		}
		if got := s.View().Service("s1").LastRevision; got != 1 {
			t.Errorf("the counter is %d, want 1", got)
		}
	})
}

func TestUpdate_RefusesWrongObjects(t *testing.T) {
	s, _ := lead(t)
	put(t, s, service("s1", "web"))
	for what, object := range map[string]any{
		"not an object":            "text",
		"a struct, not a pointer":  cluster.Node{ID: "n1"},
		"an object without an ID":  &cluster.Node{},
		"the stored object itself": s.View().Service("s1"),
	} {
		if err := s.Update(t.Context(), func(tx *Tx) error { return tx.Put(object) }); !errors.Is(err, cluster.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Who is elected and hands over at once may have to lead after all.
func TestLead_WaitsForAHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := &instant{fsm: s.FSM(), barrier: raft.ErrLeadershipTransferInProgress, few: 5}
		stop := leadOn(t, s, r)
		put(t, s, &cluster.Node{ID: "n1"})
		if err := stop(); err != nil {
			t.Errorf("Lead: %v", err)
		}
		began := time.Now()
		s, r = newStore(t), &instant{barrier: raft.ErrLeadershipTransferInProgress}
		if err := s.Lead(t.Context(), r, nil); !errors.Is(err, raft.ErrLeadershipTransferInProgress) || time.Since(began) < commitLimit {
			t.Errorf("Lead, when a hand-over never ends: %v after %v", err, time.Since(began))
		}
	})
}

func TestUpdate_OutcomesOfRaft(t *testing.T) {
	for _, c := range []struct {
		raft, want error
		leads      bool // whether the proposer goes on
	}{
		{raft.ErrNotLeader, cluster.ErrNotLeader, false},
		{raft.ErrLeadershipTransferInProgress, cluster.ErrNotLeader, true},
		{raft.ErrEnqueueTimeout, cluster.ErrUnavailable, false},
		{raft.ErrLeadershipLost, cluster.ErrUnknownOutcome, false},
		{raft.ErrRaftShutdown, cluster.ErrUnknownOutcome, false},
		{raft.ErrAbortedByRestore, cluster.ErrUnknownOutcome, false},
		{errors.New("write log: disk full"), cluster.ErrUnknownOutcome, false},
	} {
		t.Run(c.raft.Error(), func(t *testing.T) {
			s := newStore(t)
			r := &instant{fsm: s.FSM(), outcome: c.raft}
			stop := leadOn(t, s, r)
			err := s.Update(t.Context(), func(tx *Tx) error { return tx.Put(&cluster.Node{ID: "n1"}) })
			if !errors.Is(err, c.want) {
				t.Errorf("Update: %v, want %v", err, c.want)
			}
			if s.View().NodeCount() != 0 {
				t.Error("a view shows what isn't committed")
			}
			if c.leads {
				r.mu.Lock()
				r.outcome = nil
				r.mu.Unlock()
				put(t, s, &cluster.Node{ID: "n1"})
				if err := stop(); err != nil {
					t.Errorf("Lead: %v", err)
				}
				return
			}
			until(t, func() bool { return s.leading.Load() == nil })
			if err := stop(); !errors.Is(err, c.want) {
				t.Errorf("Lead: %v, want %v", err, c.want)
			}
			if err := s.Update(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, cluster.ErrNotLeader) {
				t.Errorf("Update after that: %v", err)
			}
		})
	}
}

// An entry that met another state than it was proposed on wrote nothing, and the
// next one, proposed on the new state, goes through.
func TestUpdate_RefusedByTheFSM(t *testing.T) {
	s := newStore(t)
	r := &instant{fsm: s.FSM()}
	stale := &staleOnce{instant: r}
	leadOn(t, s, stale)
	err := s.Update(t.Context(), func(tx *Tx) error { return tx.Put(&cluster.Node{ID: "n1"}) })
	if !errors.Is(err, cluster.ErrUnavailable) || s.View().NodeCount() != 1 || s.View().Node("n1") != nil {
		t.Errorf("Update: %v, %d nodes", err, s.View().NodeCount())
	}
	put(t, s, &cluster.Node{ID: "n1"})
}

// staleOnce lets another entry in before the first one it is given.
type staleOnce struct {
	*instant
	done bool
}

func (r *staleOnce) Apply(data []byte, limit time.Duration) raft.ApplyFuture {
	if !r.done {
		r.done = true
		other, err := encodeEntry(entry{Changes: []record{{Kind: nodes.number, Object: must(cluster.Encode(&cluster.Node{ID: "other"}))}}})
		if err != nil {
			panic(err)
		}
		r.instant.Apply(other, limit)
	}
	return r.instant.Apply(data, limit)
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}

func TestUpdate_EndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := &instant{fsm: s.FSM(), hold: make(chan struct{})}
		leadOn(t, s, r)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		results := make(chan error, 2)
		go func() {
			results <- s.Update(ctx, func(tx *Tx) error { return tx.Put(&cluster.Node{ID: "n1"}) })
		}()
		synctest.Wait()
		if err := s.Update(ctx, func(tx *Tx) error { return tx.Put(&cluster.Node{ID: "n2"}) }); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, cluster.ErrUnknownOutcome) {
			t.Errorf("the one that waited: %v", err)
		}
		if err := <-results; !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, cluster.ErrUnknownOutcome) {
			t.Errorf("the one under way: %v", err)
		}
		close(r.hold)
		synctest.Wait()
		if v := s.View(); v.Node("n1") == nil || v.Node("n2") != nil {
			t.Error("the one under way should be written, the one that waited shouldn't")
		}
	})
}

func TestLead_GivesUpOnARaftThatNeverAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := &instant{fsm: s.FSM(), hold: make(chan struct{})}
		stop := leadOn(t, s, r)
		start := time.Now()
		err := s.Update(t.Context(), func(tx *Tx) error { return tx.Put(&cluster.Node{ID: "n1"}) })
		if !errors.Is(err, cluster.ErrUnknownOutcome) || time.Since(start) != commitLimit {
			t.Errorf("Update: %v after %v", err, time.Since(start))
		}
		if err := stop(); !errors.Is(err, cluster.ErrUnknownOutcome) {
			t.Errorf("Lead: %v", err)
		}
		close(r.hold)
		synctest.Wait()
	})
}

func TestLead_WaitsALittleForTheLastEntryWhenItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		r := &instant{fsm: s.FSM(), hold: make(chan struct{})}
		stop := leadOn(t, s, r)
		results := make(chan error, 1)
		go func() {
			results <- s.Update(t.Context(), func(tx *Tx) error { return tx.Put(&cluster.Node{ID: "n1"}) })
		}()
		synctest.Wait()
		go stop()
		time.Sleep(endGrace / 2)
		close(r.hold)
		if err := <-results; err != nil {
			t.Errorf("Update: %v", err)
		}
		if err := stop(); err != nil {
			t.Errorf("Lead: %v", err)
		}
	})
}

func TestLead_NeedsABarrier(t *testing.T) {
	s := newStore(t)
	if err := s.Update(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, cluster.ErrNotLeader) {
		t.Errorf("Update before Lead: %v", err)
	}
	if err := s.Lead(t.Context(), &instant{fsm: s.FSM(), barrier: raft.ErrNotLeader}, nil); !errors.Is(err, cluster.ErrNotLeader) {
		t.Errorf("Lead: %v", err)
	}
	if err := s.Update(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, cluster.ErrNotLeader) {
		t.Errorf("Update after a failed barrier: %v", err)
	}
}

func noWrite(*Tx) error { return nil }

// What a leader does begins when it can write, and Lead returns when it has ended.
func TestLead_CallsBack(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name string
		// work ends by itself with this; nil is when its context does.
		fails error
		// raft takes no entry after the first one.
		raft error
		want error
	}{
		{name: "until its context ends"},
		{name: "the work fails", fails: broken, want: broken},
		{name: "raft takes no more", raft: raft.ErrLeadershipLost, want: raft.ErrLeadershipLost},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore(t)
				r := &instant{fsm: s.FSM()}
				ctx, cancel := context.WithCancel(t.Context())
				ended := false
				led := make(chan error, 1)
				go func() {
					led <- s.Lead(ctx, r, func(ctx context.Context) error {
						defer func() { ended = true }()
						if err := s.Update(ctx, func(tx *Tx) error { return tx.Put(&cluster.Node{ID: "n1"}) }); err != nil {
							t.Errorf("the first write: %v", err)
						}
						if r.mu.Lock(); c.raft != nil {
							r.outcome = c.raft
						}
						r.mu.Unlock()
						if c.fails != nil {
							return c.fails
						}
						<-ctx.Done()
						time.Sleep(time.Second) // It takes a while to end.
						if err := s.Update(context.WithoutCancel(ctx), noWrite); !errors.Is(err, cluster.ErrNotLeader) {
							t.Errorf("a write when leadership has ended: %v", err)
						}
						return ctx.Err()
					})
				}()
				synctest.Wait()
				if c.raft != nil {
					_ = s.Update(ctx, func(tx *Tx) error { return tx.Put(&cluster.Node{ID: "n2"}) })
				} else if c.fails == nil {
					cancel()
				}
				if err := <-led; !errors.Is(err, c.want) || !ended {
					t.Errorf("Lead: %v, and the work has ended: %v", err, ended)
				}
				if err := s.Update(t.Context(), noWrite); !errors.Is(err, cluster.ErrNotLeader) {
					t.Errorf("Update: %v", err)
				}
				cancel()
			})
		})
	}
}

// The work fails while raft commits nothing: Lead doesn't wait for all of that write's time.
func TestLead_TheWorkFailsDuringAWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		broken := errors.New("broken")
		hold := make(chan struct{})
		r := &instant{fsm: s.FSM(), hold: hold}
		began := time.Now()
		err := s.Lead(t.Context(), r, func(ctx context.Context) error {
			go func() { _ = s.Update(ctx, func(tx *Tx) error { return tx.Put(&cluster.Node{ID: "n1"}) }) }()
			time.Sleep(time.Millisecond)
			return broken
		})
		if !errors.Is(err, broken) || time.Since(began) > 2*endGrace {
			t.Errorf("Lead: %v after %v", err, time.Since(began))
		}
		close(hold)
	})
}

func TestLead_NoWorkWithoutABarrier(t *testing.T) {
	s := newStore(t)
	err := s.Lead(t.Context(), &instant{fsm: s.FSM(), barrier: raft.ErrNotLeader}, func(context.Context) error {
		t.Error("the work began")
		return nil
	})
	if !errors.Is(err, cluster.ErrNotLeader) {
		t.Error(err)
	}
}

func TestLead_RunsOnce(t *testing.T) {
	s, r := lead(t)
	if err := s.Lead(t.Context(), r, nil); err == nil {
		t.Error("a second proposer ran")
	}
	put(t, s, &cluster.Node{ID: "n1"})
}

// A function may use its caller's variables, so it mustn't run any more once
// Update has returned, even when the context ended meanwhile.
func TestUpdate_NeverLeavesItsFunctionRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t)
		leadOn(t, s, &instant{fsm: s.FSM()})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		finished := false
		err := s.Update(ctx, func(*Tx) error {
			time.Sleep(time.Minute)
			finished = true
			return nil
		})
		if !finished || err != nil {
			t.Errorf("finished %v, %v", finished, err)
		}
	})
}
