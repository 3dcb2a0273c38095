package agenttest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"skep/agent"
	"skep/cluster"
)

const fenceOver = "fence: the node's lease with the managers is over"

// asked is the last stamp with which the agent asked for a lease; 0 when it never did.
func (m *manager) asked() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.leases) == 0 {
		return 0
	}
	return m.leases[len(m.leases)-1]
}

// assignFenced sends a fenced task t1 and one without a fence, t2.
func (m *manager) assignFenced(labels map[string]string) {
	m.t.Helper()
	fenced, free := revision(map[string]string{cluster.LabelFence.Name: "true"}), revision(nil)
	for label, value := range labels {
		fenced.ServiceLabels[label] = value
	}
	free.ServiceID = "s2"
	other := task("t2", 5, cluster.StateRunning)
	other.ServiceID = "s2"
	m.send(&cluster.FromManager{Assignments: &cluster.Assignments{
		Full: true, To: 10, Tasks: []*cluster.Task{task("t1", 5, cluster.StateRunning), other}, Revisions: []*cluster.Revision{fenced, free},
	}})
}

func (b *bench) runsNow(taskID string) bool {
	containers, err := b.driver.List(b.t.Context(), node)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range containers {
		if c.TaskID == taskID {
			return c.Phase == agent.Running
		}
	}
	return false
}

// TestFence_ATaskRunsOnlyWhileThereIsALease: it is prepared, but not started, without
// one; a lease counts from when it was asked for; a task that was begun to be stopped
// stays stopped; and tasks without a fence don't notice.
func TestFence_ATaskRunsOnlyWhileThereIsALease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		defer b.stop()
		m := b.accept()
		m.full(1)
		m.beat(3 * time.Second) // The agent needs a lease, also for what is new.
		if m.asked() != 0 {
			t.Error("an agent without fenced tasks asks for a lease")
		}
		m.assignFenced(map[string]string{"skep.simulate.stop-delay": "2s"})
		m.beat(time.Second)
		m.expect("t1", cluster.StateReady, "prepared", "")
		if !b.runsNow("t2") || b.runsNow("t1") {
			t.Fatal("without a lease what isn't fenced runs, and nothing else")
		}
		m.send(&cluster.FromManager{Lease: m.asked() + 1})
		if b.runsNow("t1") {
			t.Fatal("a lease that nobody asked for counts")
		}
		stamp, began := m.asked(), time.Now()
		asked := time.Unix(0, stamp)
		m.beat(2 * time.Second)
		m.send(&cluster.FromManager{Lease: stamp})
		if !b.runsNow("t1") {
			t.Fatal("it doesn't start with the lease")
		}
		if since := began.Sub(asked); since < 0 || since > heartbeat {
			t.Fatalf("the last message asked %v ago", since)
		}
		// Half-way through another grant makes it longer, by the time of its own asking.
		m.beat(time.Second)
		stamp = m.asked()
		asked = time.Unix(0, stamp)
		m.send(&cluster.FromManager{Lease: stamp})
		for time.Since(asked) < cluster.FenceLease-heartbeat {
			m.beat(heartbeat / 2)
		}
		time.Sleep(time.Until(asked.Add(cluster.FenceLease - time.Millisecond)))
		synctest.Wait()
		if !b.runsNow("t1") || m.reported("t1").State != cluster.StateRunning {
			t.Fatal("it is stopped before its lease is over")
		}
		// The lease comes back while the task is being stopped, which it ignores.
		m.beat(time.Second)
		m.send(&cluster.FromManager{Lease: m.asked()})
		m.beat(1500 * time.Millisecond)
		m.expect("t1", cluster.StateShutdown, "shutdown", fenceOver)
		if b.runsNow("t1") || !b.runsNow("t2") {
			t.Error("the task with a fence still runs, or the other doesn't")
		}
		if late := time.Since(asked.Add(cluster.FenceLease + 2*time.Second)); late > time.Second {
			t.Errorf("looked %v too late", late)
		}
	})
}

// TestFence_StopsWithoutASession: nobody has to tell the agent. A daemon that is
// started again stops what it finds when it gets no lease, and not at once.
func TestFence_StopsWithoutASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.assignFenced(nil)
		m.beat(time.Second)
		m.send(&cluster.FromManager{Lease: m.asked()})
		asked := time.Unix(0, m.asked())
		if !b.runsNow("t1") {
			t.Fatal("it doesn't run")
		}
		b.refused.Store(true)
		m.conn.Close()
		time.Sleep(time.Until(asked.Add(cluster.FenceLease - time.Millisecond)))
		synctest.Wait()
		if !b.runsNow("t1") {
			t.Error("it is stopped before its lease is over")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if b.runsNow("t1") || !b.runsNow("t2") {
			t.Error("without a session the lease doesn't end")
		}
		b.stop()
	})
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.assignFenced(nil)
		m.beat(time.Second)
		m.send(&cluster.FromManager{Lease: m.asked()})
		m.beat(time.Second)
		b.stop()
		if !b.runsNow("t1") {
			t.Fatal("an agent that stops in order stops its tasks")
		}
		time.Sleep(time.Second)
		b.refused.Store(true)
		b.start()
		time.Sleep(1900 * time.Millisecond)
		synctest.Wait()
		if !b.runsNow("t1") {
			t.Error("a restart of the daemon stops a fenced task at once")
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if b.runsNow("t1") || !b.runsNow("t2") {
			t.Error("an agent that finds no manager after its start leaves a fenced task running")
		}
		b.stop()
	})
}
