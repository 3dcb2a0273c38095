package scheduler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// unsteady is a store that fails to write now and then.
type unsteady struct {
	*store.Memory
	fail func() error
}

func (u *unsteady) Update(ctx context.Context, fn func(*store.Tx) error) error {
	if u.fail != nil {
		if err := u.fail(); err != nil {
			return err
		}
	}
	return u.Memory.Update(ctx, fn)
}

// startRun runs the loop on a hive's database until stop is called.
func startRun(t *testing.T, s Store) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{Store: s, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	}()
	return func() error {
		cancel()
		return <-ended
	}
}

func newRunHive(t *testing.T) *hive {
	h := &hive{t: t, db: store.NewMemory(time.Now), now: time.Now()}
	h.put(h.node("n1"))
	return h
}

func TestRun_HealsAtOnceAndAfterTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRunHive(t)
		stop := startRun(t, h.db)
		none, some := time.Duration(0), 3*time.Second
		for name, delay := range map[string]*time.Duration{"fast": &none, "slow": &some} {
			h.service(name, func(s *swarm.ServiceSpec) { s.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Delay: delay} })
		}
		began := time.Now()
		live := func(service string) *cluster.Task {
			synctest.Wait()
			for t := range h.db.View().TasksOfService(service) {
				if t.Live() {
					return t
				}
			}
			return nil
		}
		fast, slow := live("fast"), live("slow")
		if fast == nil || slow == nil || fast.NodeID != "n1" {
			t.Fatalf("nothing was created:\n%s", h.describe(""))
		}
		h.report(fast.ID, cluster.StateFailed, "")
		h.report(slow.ID, cluster.StateFailed, "")
		if next := live("fast"); next.ID == fast.ID || next.Desired != cluster.StateRunning {
			t.Errorf("not healed:\n%s", h.describe("fast"))
		}
		if next := live("slow"); next.ID == slow.ID || next.Desired != cluster.StateReady {
			t.Errorf("not made ready:\n%s", h.describe("slow"))
		}
		if time.Since(began) != 0 {
			t.Errorf("that took %v", time.Since(began))
		}
		time.Sleep(some - time.Millisecond)
		if next := live("slow"); next.Desired != cluster.StateReady {
			t.Errorf("started too early:\n%s", h.describe("slow"))
		}
		time.Sleep(time.Millisecond)
		if next := live("slow"); next.Desired != cluster.StateRunning {
			t.Errorf("not started:\n%s", h.describe("slow"))
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestRun_TriesAgainWhenTheStoreIsUnavailable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRunHive(t)
		failures := 3
		stop := startRun(t, &unsteady{h.db, func() error {
			if failures--; failures >= 0 {
				return fmt.Errorf("update: %w", cluster.ErrUnavailable)
			}
			return nil
		}})
		h.service("web", func(*swarm.ServiceSpec) {})
		time.Sleep(4 * retryAfter)
		synctest.Wait()
		if h.db.View().TaskCount() != 1 {
			t.Errorf("nothing was created:\n%s", h.describe(""))
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestRun_EndsWhenLeadershipDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, reason := range []error{cluster.ErrNotLeader, cluster.ErrUnknownOutcome} {
			h := newRunHive(t)
			h.service("web", func(*swarm.ServiceSpec) {})
			err := Run(context.Background(), Config{Store: &unsteady{h.db, func() error { return reason }}})
			if !errors.Is(err, reason) {
				t.Errorf("%v instead of %v", err, reason)
			}
		}
	})
}

// TestRun_SurvivesResync writes more than a subscription keeps while the loop is
// held up.
func TestRun_SurvivesResync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newRunHive(t)
		hold := make(chan struct{})
		stop := startRun(t, &unsteady{h.db, func() error { <-hold; return nil }})
		h.service("first", func(*swarm.ServiceSpec) {})
		synctest.Wait() // The loop is in Update now.
		for range 70 {
			h.update(func(tx *store.Tx) error {
				for i := range 1000 {
					n := *h.node(fmt.Sprintf("x%03d", i))
					n.Status.State = cluster.NodeDown
					if err := tx.Put(&n); err != nil {
						return err
					}
				}
				return nil
			})
		}
		h.service("second", func(*swarm.ServiceSpec) {})
		close(hold)
		synctest.Wait()
		for _, id := range []string{"first", "second"} {
			if text := h.describe(id); text == "" {
				t.Errorf("%s has no task", id)
			}
		}
		if h.db.View().TaskCount() != 2 {
			t.Errorf("tasks:\n%s", h.describe(""))
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}
