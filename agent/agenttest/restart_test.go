package agenttest_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/container"

	"skep/cluster"
)

func healthcheck() *container.HealthConfig {
	return &container.HealthConfig{Test: []string{"CMD", "/probe"}}
}

// settle lets the record be written.
func (m *manager) settle() {
	m.t.Helper()
	m.beat(time.Second)
}

func TestRestart_TakesContainersOverWithoutAManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.full(10, task("t1", 10, cluster.StateRunning), task("t2", 10, cluster.StateRunning), task("t3", 10, cluster.StateRunning))
		m.settle()
		first := m.reports["t1"].ContainerID
		b.crash()
		b.driver.Kill("t2", 5)

		b.refused.Store(true)
		b.start()
		time.Sleep(time.Minute) // no manager
		b.driver.Kill("t3", 6)
		time.Sleep(time.Minute)
		if b.driver.Count(node) != 1 {
			t.Fatalf("%d containers run, want the one that nobody killed", b.driver.Count(node))
		}
		b.refused.Store(false)
		m = b.accept()
		synctest.Wait()
		m.expect("t1", cluster.StateRunning, "started", "")
		m.expect("t2", cluster.StateFailed, "started", "task: non-zero exit (5)")
		m.expect("t3", cluster.StateFailed, "started", "task: non-zero exit (6)")
		if m.reports["t1"].ContainerID != first {
			t.Error("the container was made anew")
		}
		b.stop()
	})
}

func TestRestart_ARecordThatLagsIsMadeUpFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.full(10, task("t1", 10, cluster.StateReady))
		m.settle()
		old := b.record.now()
		m.diff(10, 11, nil, task("t1", 11, cluster.StateRunning), task("t2", 11, cluster.StateRunning))
		first, second := m.reports["t1"].ContainerID, m.reports["t2"].ContainerID
		b.crash()
		b.record = &memory{data: old} // the writes since then never reached the disk

		b.start()
		m = b.accept()
		m.beat(5 * time.Second)
		if b.driver.Count(node) != 2 {
			t.Fatal("a container was removed before any manager said so")
		}
		m.full(11, task("t1", 11, cluster.StateRunning), task("t2", 11, cluster.StateRunning))
		m.expect("t1", cluster.StateRunning, "started", "")
		m.expect("t2", cluster.StateRunning, "started", "")
		if m.reports["t1"].ContainerID != first || m.reports["t2"].ContainerID != second {
			t.Error("containers were made anew")
		}
		b.stop()
	})
}

func TestRestart_RemovesStrangersOfItsOwnNodeOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.full(10, task("t1", 10, cluster.StateRunning), task("t2", 10, cluster.StateRunning))
		b.crash()
		b.record = &memory{} // the record is lost

		other := task("t9", 1, cluster.StateRunning)
		other.NodeID = "node2"
		prepare(t, b.driver, other, revision(nil))

		b.start()
		m = b.accept()
		m.full(11, task("t2", 10, cluster.StateRunning))
		m.expect("t2", cluster.StateRunning, "started", "")
		list, _ := b.driver.List(t.Context(), node)
		if len(list) != 1 || list[0].TaskID != "t2" {
			t.Errorf("own containers = %v", list)
		}
		if list, _ := b.driver.List(t.Context(), "node2"); len(list) != 1 {
			t.Error("another node's container was removed")
		}
		b.stop()
	})
}

func TestRestart_GoesOnRemoving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.full(10, task("t1", 10, cluster.StateRunning))
		b.driver.SetAway(true)
		m.diff(10, 11, []string{"t1"})
		m.settle()
		b.crash()
		b.driver.SetAway(false)
		b.refused.Store(true)
		b.start()
		time.Sleep(time.Minute)
		if list, _ := b.driver.List(t.Context(), node); len(list) != 0 {
			t.Errorf("containers left: %v", list)
		}
		b.stop()
	})
}

func TestRestart_KnowsWhatItHasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.full(10, task("t1", 10, cluster.StateRunning))
		m.settle()
		b.crash()
		b.start()
		m = b.accept()
		m.full(9) // a manager that is behind
		if b.driver.Count(node) != 1 {
			t.Error("the restart made the agent forget what it had seen")
		}
		b.stop()
	})
}

func TestRecord_ADamagedOneIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.record.data = []byte("rubbish")
		b.start()
		if err := <-b.done; err == nil {
			t.Error("the agent runs on a damaged record")
		}
	})
}
