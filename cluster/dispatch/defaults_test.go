package dispatch

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// TestServeSession_FollowsTheHeartbeatPeriod: sessions with another period end, and
// new ones have it; a shorter one notices a silent agent sooner.
func TestServeSession_FollowsTheHeartbeatPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		set := func(period time.Duration) {
			w.update(func(tx *store.Tx) error {
				c := &cluster.Cluster{ID: "c"}
				c.Spec.Dispatcher.HeartbeatPeriod = period
				return tx.Put(c)
			})
			synctest.Wait()
		}
		set(5 * time.Second)
		for _, step := range []struct{ period, want time.Duration }{
			{100 * time.Millisecond, 100 * time.Millisecond}, {time.Second, time.Second}, {250 * time.Millisecond, 250 * time.Millisecond},
			{5 * time.Second, time.Second},
		} {
			old := w.dialLenient("n1", "m1")
			synctest.Wait()
			set(step.period)
			if changed := old.inbox[0].Welcome.HeartbeatMillis != step.want.Milliseconds(); changed != old.over() {
				t.Errorf("to %v: the session with %d ms ended: %v", step.period, old.inbox[0].Welcome.HeartbeatMillis, old.over())
			}
			silent := w.dialLenient("n1", "m1")
			synctest.Wait()
			if got := silent.inbox[0].Welcome.HeartbeatMillis; got != step.want.Milliseconds() {
				t.Errorf("to %v: a new session has %d ms", step.period, got)
			}
			silent.hush()
			time.Sleep(3*step.want - 50*time.Millisecond)
			synctest.Wait()
			early := silent.over()
			time.Sleep(step.want)
			synctest.Wait()
			if early || !silent.over() {
				t.Errorf("to %v: ended before three periods: %v, after them: %v", step.period, early, silent.over())
			}
		}
	})
}

// TestServeSession_DefaultLogDriver: what an agent is told to run has the cluster's
// log driver where the service has none, and again when that changes.
func TestServeSession_DefaultLogDriver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		set := func(driver *swarm.Driver) {
			w.update(func(tx *store.Tx) error {
				c := &cluster.Cluster{ID: "c"}
				c.Spec.TaskDefaults.LogDriver = driver
				return tx.Put(c)
			})
			synctest.Wait()
		}
		w.addTask("t1", "n1")
		w.update(func(tx *store.Tx) error {
			own := &cluster.Revision{ServiceID: "own", Number: 1}
			own.Spec.LogDriver = &swarm.Driver{Name: "local"}
			if err := tx.Put(own); err != nil {
				return err
			}
			return tx.Put(&cluster.Task{ID: "t2", ServiceID: "own", Revision: 1, NodeID: "n1", Desired: cluster.StateRunning,
				Status: cluster.TaskStatus{State: cluster.StateAssigned}})
		})
		set(nil)
		a := w.connect("n1", "m1")
		check := func(want string) {
			t.Helper()
			got := ""
			if driver := a.revisions["s.1"].Spec.LogDriver; driver != nil {
				got = driver.Name
			}
			if got != want || a.revisions["own.1"].Spec.LogDriver.Name != "local" {
				t.Errorf("log drivers %q and %q; want %q and local", got, a.revisions["own.1"].Spec.LogDriver.Name, want)
			}
		}
		check("")
		set(&swarm.Driver{Name: "json-file", Options: map[string]string{"max-size": "1m"}})
		check("json-file")
		messages := len(a.inbox)
		set(&swarm.Driver{Name: "json-file", Options: map[string]string{"max-size": "1m"}})
		if n := len(a.inbox) - messages; n != 0 {
			t.Errorf("%d messages about nothing new", n)
		}
		set(&swarm.Driver{Name: "json-file", Options: map[string]string{"max-size": "2m"}})
		if got := a.revisions["s.1"].Spec.LogDriver.Options["max-size"]; got != "2m" {
			t.Errorf("the option is %q", got)
		}
		set(nil)
		check("")
		if revision := w.now().replica.View().Revision("s", 1); revision.Spec.LogDriver != nil {
			t.Error("the revision itself was changed")
		}
	})
}
