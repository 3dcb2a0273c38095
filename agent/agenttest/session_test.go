package agenttest_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/agent/simulate"
	"skep/cluster"
)

func TestSession_RunsATask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		if m.hello.Format != cluster.WireFormat || m.hello.Addr != "127.0.1.1" || m.hello.Description.Hostname != "host1" {
			t.Errorf("hello = %+v", m.hello)
		}
		m.full(10, task("t1", 10, cluster.StateRunning))
		m.expect("t1", cluster.StateRunning, "started", "")
		if got := m.reports["t1"]; got.ContainerID == "" || got.PID == 0 {
			t.Errorf("status = %+v", got)
		}
		m.diff(10, 11, nil, task("t1", 11, cluster.StateShutdown))
		m.expect("t1", cluster.StateShutdown, "shutdown", "")
		m.diff(11, 12, []string{"t1"})
		if list, _ := b.driver.List(t.Context(), node); len(list) != 0 {
			t.Errorf("containers left: %v", list)
		}
		b.stop()
	})
}

// A task that is to be removed leaves no container when it has ended, though its record may
// stay for a while.
func TestSession_RemovesTheContainerBeforeTheRecordGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		containers := func() (ids []string) {
			list, _ := b.driver.List(t.Context(), node)
			for _, c := range list {
				ids = append(ids, c.TaskID)
			}
			return ids
		}
		m.full(10, task("t1", 10, cluster.StateRunning), task("t2", 10, cluster.StateRunning), task("t3", 10, cluster.StateRunning))
		b.driver.Kill("t2", 3)
		synctest.Wait()
		m.expect("t2", cluster.StateFailed, "started", "task: non-zero exit (3)")
		m.diff(10, 11, nil, task("t1", 11, cluster.StateRemove))
		m.expect("t1", cluster.StateShutdown, "shutdown", "")
		if got := containers(); !slices.Equal(got, []string{"t2", "t3"}) {
			t.Errorf("there are containers of %v, want t2, t3", got)
		}
		b.driver.SetAway(true)
		m.diff(11, 12, nil, task("t2", 12, cluster.StateRemove))
		b.driver.SetAway(false)
		m.beat(time.Second)
		if got := containers(); !slices.Equal(got, []string{"t3"}) {
			t.Errorf("there are containers of %v, want t3", got)
		}
		m.expect("t2", cluster.StateFailed, "started", "task: non-zero exit (3)")
		// The records go later, one while its container is on the way.
		b.driver.Kill("t3", 3)
		synctest.Wait()
		m.diff(12, 13, []string{"t1", "t2"}, task("t3", 13, cluster.StateRemove))
		m.diff(13, 14, []string{"t3"})
		if got := containers(); got != nil {
			t.Errorf("there are containers of %v, want none", got)
		}
		b.stop()
	})
}

func TestSession_ReadyWaitsForRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.full(10, task("t1", 10, cluster.StateReady))
		m.expect("t1", cluster.StateReady, "prepared", "")
		m.diff(10, 11, nil, task("t1", 11, cluster.StateRunning))
		m.expect("t1", cluster.StateRunning, "started", "")
		b.stop()
	})
}

func TestSession_StatesOnlyIncrease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.full(10, task("t1", 10, cluster.StateRunning))
		b.driver.Kill("t1", 3)
		synctest.Wait()
		m.expect("t1", cluster.StateFailed, "started", "task: non-zero exit (3)")
		for i := 1; i < len(m.history["t1"]); i++ {
			if m.history["t1"][i] < m.history["t1"][i-1] {
				t.Errorf("states = %v", m.history["t1"])
			}
		}
		b.stop()
	})
}

func TestSession_ReconnectsAtOnceAndTellsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.full(10, task("t1", 10, cluster.StateRunning), task("t2", 10, cluster.StateRunning))
		m.beat(5 * time.Second)
		lost := time.Now()
		m.conn.Close()
		m = b.accept()
		if took := time.Since(lost); took > 0 {
			t.Errorf("reconnecting took %v", took)
		}
		synctest.Wait()
		m.expect("t1", cluster.StateRunning, "started", "")
		m.expect("t2", cluster.StateRunning, "started", "")
		b.stop()
	})
}

func TestSession_AttemptsGetRarer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.refused.Store(true)
		b.start()
		time.Sleep(time.Minute)
		if dials := b.dials.Load(); dials < 30 || dials > 80 {
			t.Errorf("%d attempts in a minute", dials)
		}
		b.refused.Store(false)
		b.accept()
		b.stop()
	})
}

func TestSession_GapBringsAFullSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.full(10)
		m.diff(11, 12, nil, task("t1", 12, cluster.StateRunning))
		if !m.over() {
			t.Fatal("the session goes on after a gap")
		}
		if b.driver.Count(node) != 0 {
			t.Fatal("an assignment out of sequence was acted upon")
		}
		m = b.accept()
		m.full(12, task("t1", 12, cluster.StateRunning))
		m.expect("t1", cluster.StateRunning, "started", "")
		b.stop()
	})
}

func TestSession_DifferenceBeforeTheFullSetEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.diff(10, 11, nil, task("t1", 11, cluster.StateRunning))
		if !m.over() {
			t.Fatal("the session goes on")
		}
		b.stop()
	})
}

func TestSession_FullSetTakesAwayWhatIsNotInIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.full(10, task("t1", 10, cluster.StateRunning), task("t2", 10, cluster.StateRunning))
		m.conn.Close()
		m = b.accept()
		m.full(20, task("t2", 10, cluster.StateRunning))
		list, _ := b.driver.List(t.Context(), node)
		if len(list) != 1 || list[0].TaskID != "t2" {
			t.Errorf("containers = %v", list)
		}
		b.stop()
	})
}

func TestSession_DesiredIsNeverLowered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		slow := task("t1", 10, cluster.StateRunning)
		m.send(&cluster.FromManager{Assignments: &cluster.Assignments{
			Full: true, To: 10, Tasks: []*cluster.Task{slow},
			Revisions: []*cluster.Revision{revision(map[string]string{"skep.simulate.stop-delay": "5s"})},
		}})
		m.diff(10, 11, nil, task("t1", 11, cluster.StateShutdown))
		m.diff(11, 12, nil, task("t1", 12, cluster.StateRunning))
		m.beat(10 * time.Second)
		m.expect("t1", cluster.StateShutdown, "shutdown", "")
		b.stop()
	})
}

func TestSession_HeartbeatsAndSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.full(10, task("t1", 10, cluster.StateRunning))
		began := time.Now()
		m.beat(20 * time.Second)
		if m.over() {
			t.Fatal("a session with heartbeats ended")
		}
		for i := 1; i < len(m.arrivals); i++ {
			if gap := m.arrivals[i].Sub(m.arrivals[i-1]); gap > heartbeat {
				t.Errorf("the agent was silent for %v", gap)
			}
		}
		if len(m.arrivals) > 30 {
			t.Errorf("%d messages in %v", len(m.arrivals), time.Since(began))
		}
		silent := time.Now()
		for !m.over() {
			time.Sleep(100 * time.Millisecond)
			if time.Since(silent) > 10*heartbeat {
				t.Fatal("a silent manager isn't given up")
			}
		}
		if took := time.Since(silent); took < 2*heartbeat || took > 4*heartbeat {
			t.Errorf("a silent manager was given up after %v", took)
		}
		b.accept()
		if b.driver.Count(node) != 1 {
			t.Error("losing the session stopped a container")
		}
		b.stop()
	})
}

// A manager that gossip misses is given up in half the time, but not while it speaks.
func TestSession_HeartbeatsAndSilenceOfAManagerThatIsMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, missedAfter := range []time.Duration{0, heartbeat, 2 * heartbeat, 4 * heartbeat} {
			b := newBench(t)
			b.start()
			m := b.accept()
			m.full(10)
			b.missed.Store(true)
			m.beat(20 * time.Second)
			if m.over() {
				t.Fatal("a session with heartbeats ended on gossip's word alone")
			}
			b.missed.Store(missedAfter == 0)
			silent := time.Now()
			for !m.over() && time.Since(silent) < 10*heartbeat {
				time.Sleep(50 * time.Millisecond)
				b.missed.Store(time.Since(silent) >= missedAfter)
			}
			want := min(max(3*heartbeat/2, missedAfter), 3*heartbeat)
			if took := time.Since(silent); took < want-heartbeat || took > want+heartbeat/2 {
				t.Errorf("missed after %v of silence: given up after %v; want %v", missedAfter, took, want)
			}
			b.accept()
			b.stop()
		}
	})
}

func TestSession_AManagerThatReadsNothingIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		conn := <-b.conns // never reads, so not even Hello comes through
		began := time.Now()
		b.accept()
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("took %v", took)
		}
		conn.Close()
		b.stop()
	})
}

func TestSession_RefusalsAndNonsenseEndIt(t *testing.T) {
	for name, message := range map[string]*cluster.FromManager{
		"refused":                   {Refused: "node was removed"},
		"another format":            {Welcome: &cluster.Welcome{Format: 99, HeartbeatMillis: 1000}},
		"no heartbeat period":       {Welcome: &cluster.Welcome{Format: cluster.WireFormat}},
		"assignment before welcome": {Assignments: &cluster.Assignments{Full: true, To: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.start()
				m := b.meet()
				m.send(message)
				if !m.over() {
					t.Error("the session goes on")
				}
				b.stop()
			})
		})
	}
}

func TestSession_AnotherNodesTaskIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		foreign := task("t1", 10, cluster.StateRunning)
		foreign.NodeID = "node2"
		m.full(10, foreign)
		if !m.over() || b.driver.Count("node2") != 0 {
			t.Error("the task was taken")
		}
		b.stop()
	})
}

func TestSession_AManagerThatIsBehindTakesNothingAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.full(10, task("old", 5, cluster.StateRunning))
		m.diff(10, 20, nil, task("new", 20, cluster.StateRunning))
		m.conn.Close()

		// It hasn't heard of the new task yet, nor that another one has gone.
		m = b.accept()
		m.full(15, task("old", 5, cluster.StateRunning), task("gone", 4, cluster.StateRunning))
		if b.driver.Count(node) != 2 || m.knows("gone") {
			t.Fatal("an old view was acted upon")
		}
		// It catches up in two messages.
		m.diff(15, 18, []string{"gone"})
		m.diff(18, 20, nil, task("new", 20, cluster.StateRunning))
		if b.driver.Count(node) != 2 || m.knows("gone") {
			t.Fatal("catching up went wrong")
		}
		m.diff(20, 21, []string{"old"})
		if b.driver.Count(node) != 1 {
			t.Fatal("a manager that has caught up isn't listened to")
		}
		m.conn.Close()

		// One that doesn't catch up is left.
		m = b.accept()
		m.full(19)
		m.beat(3 * time.Second / 2)
		if m.over() {
			t.Fatal("given up too early")
		}
		time.Sleep(time.Second)
		if !m.over() || b.driver.Count(node) != 1 {
			t.Error("a manager that stays behind is kept")
		}
		b.accept()
		b.stop()
	})
}

func TestSession_LeavesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.full(10, task("t1", 10, cluster.StateRunning))
		b.stop()
		synctest.Wait()
		if !m.leaving || !m.over() {
			t.Error("no farewell")
		}
		if b.driver.Count(node) != 1 {
			t.Error("the container was stopped with the agent")
		}
	})
}

func TestSession_PassesPeersOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.send(&cluster.FromManager{Peers: &cluster.Peers{Managers: []cluster.Peer{{NodeID: "m1", Addr: "127.0.1.1:2377"}}, Role: swarm.NodeRoleWorker}})
		if len(b.peers) != 1 || b.peers[0].Managers[0].NodeID != "m1" {
			t.Errorf("peers = %v", b.peers)
		}
		b.stop()
	})
}

func TestSession_EngineAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.driver.SetAway(true)
		b.start()
		m := b.accept()
		m.full(10, task("t1", 10, cluster.StateRunning))
		m.expect("t1", cluster.StatePreparing, "preparing", "cannot connect to the simulated engine")
		b.driver.SetAway(false)
		m.beat(3 * time.Second)
		m.expect("t1", cluster.StateRunning, "started", "")

		b.driver.SetAway(true)
		m.beat(3 * time.Second)
		m.expect("t1", cluster.StateRunning, "started", "") // a blip is nobody's business
		m.beat(5 * time.Second)
		m.expect("t1", cluster.StateRunning, "started", "cannot connect to the simulated engine")
		b.driver.Kill("t1", 4)
		b.driver.SetAway(false)
		m.beat(3 * time.Second)
		m.expect("t1", cluster.StateFailed, "started", "task: non-zero exit (4)")
		b.stop()
	})
}

// mute is a simulated engine whose events come in, but that may answer no questions.
type mute struct {
	*simulate.Driver
	silent atomic.Bool
}

func (m *mute) Describe(ctx context.Context) (swarm.NodeDescription, error) {
	if m.silent.Load() {
		<-ctx.Done()
		return swarm.NodeDescription{}, ctx.Err()
	}
	return m.Driver.Describe(ctx)
}

func TestSession_TellsWhetherTheEngineIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		engine := &mute{Driver: b.driver}
		b.runs = engine
		b.driver.SetAway(true)
		b.start()
		m := b.accept()
		m.full(10)
		m.beat(8 * time.Second)
		m.engine(true) // it was never there
		b.driver.SetAway(false)
		m.beat(5 * time.Second)
		m.engine(false)

		b.driver.SetAway(true)
		m.beat(3 * time.Second)
		m.engine(false) // a blip
		b.driver.SetAway(false)
		m.beat(8 * time.Second)
		m.engine(false)

		b.driver.SetAway(true)
		m.beat(8 * time.Second)
		m.engine(true)
		m.conn.Close() // the next manager hears of it with the Hello
		m = b.meet()
		m.engine(true)
		m.send(&cluster.FromManager{Welcome: &cluster.Welcome{Format: cluster.WireFormat, HeartbeatMillis: b.period.Milliseconds()}})
		m.full(10)
		m.beat(time.Second)
		m.engine(true)
		b.driver.SetAway(false)
		m.beat(5 * time.Second)
		m.engine(false)

		engine.silent.Store(true) // it hangs, with its stream open
		m.beat(50 * time.Second)
		m.engine(true)
		engine.silent.Store(false)
		m.beat(20 * time.Second)
		m.engine(false)
		b.stop()
	})
}

func TestSession_LostEventsAreMadeUpFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.full(10, task("t1", 10, cluster.StateRunning), task("t2", 10, cluster.StateRunning), task("t3", 10, cluster.StateRunning))
		b.driver.DropWatch()
		b.driver.Kill("t1", 9)
		b.driver.Vanish("t2")
		m.beat(time.Second)
		m.expect("t1", cluster.StateFailed, "started", "task: non-zero exit (9)")
		m.expect("t2", cluster.StateFailed, "started", "No such container: t2")
		m.expect("t3", cluster.StateRunning, "started", "")
		b.stop()
	})
}

func TestSession_RemovedByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.full(10, task("t1", 10, cluster.StateRunning))
		b.driver.Vanish("t1")
		synctest.Wait()
		m.expect("t1", cluster.StateFailed, "started", "task: non-zero exit (137)")
		b.stop()
	})
}

func TestSession_HealthDecides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		r := revision(map[string]string{"skep.simulate.health-delay": "30s"})
		r.Spec.ContainerSpec.Healthcheck = healthcheck()
		m.send(&cluster.FromManager{Assignments: &cluster.Assignments{
			Full: true, To: 10, Tasks: []*cluster.Task{task("t1", 10, cluster.StateRunning)}, Revisions: []*cluster.Revision{r},
		}})
		m.beat(29 * time.Second)
		m.expect("t1", cluster.StateStarting, "starting", "")
		m.beat(2 * time.Second)
		m.expect("t1", cluster.StateRunning, "started", "")
		b.driver.SetHealth("t1", agent.HealthBad)
		synctest.Wait()
		m.expect("t1", cluster.StateFailed, "started", "dockerexec: unhealthy container")
		if b.driver.Count(node) != 0 {
			t.Error("the unhealthy container runs on")
		}
		b.stop()
	})
}

func TestSession_StopInterruptsAPull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.send(&cluster.FromManager{Assignments: &cluster.Assignments{
			Full: true, To: 10, Tasks: []*cluster.Task{task("t1", 10, cluster.StateRunning)},
			Revisions: []*cluster.Revision{revision(map[string]string{"skep.simulate.prepare-delay": "10m"})},
		}})
		m.expect("t1", cluster.StatePreparing, "preparing", "")
		m.diff(10, 11, nil, task("t1", 11, cluster.StateShutdown))
		m.expect("t1", cluster.StateShutdown, "shutdown", "")
		b.stop()
	})
}

func TestSession_ATaskWaitsForItsRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.send(&cluster.FromManager{Assignments: &cluster.Assignments{Full: true, To: 10, Tasks: []*cluster.Task{task("t1", 10, cluster.StateRunning)}}})
		m.expect("t1", cluster.StateAssigned, "", "waiting for what the task is to run")
		m.send(&cluster.FromManager{Assignments: &cluster.Assignments{From: 10, To: 10, Revisions: []*cluster.Revision{revision(nil)}}})
		m.expect("t1", cluster.StateRunning, "started", "")
		b.stop()
	})
}

func TestSession_TenThousandTasks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		var tasks []*cluster.Task
		for i := range 10000 {
			tasks = append(tasks, task(fmt.Sprint("t", i), 10, cluster.StateRunning))
		}
		m.full(10, tasks...)
		for _, task := range tasks {
			m.expect(task.ID, cluster.StateRunning, "started", "")
		}
		if goroutines := runtime.NumGoroutine(); goroutines > 100 {
			t.Errorf("%d goroutines for tasks that only run", goroutines)
		}
		b.stop()
	})
}

func TestSession_Logs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.send(&cluster.FromManager{Assignments: &cluster.Assignments{
			Full: true, To: 10, Tasks: []*cluster.Task{task("t1", 10, cluster.StateReady)},
			Revisions: []*cluster.Revision{revision(map[string]string{"skep.simulate.log-every": "1s"})},
		}})
		ask := func(id uint64, taskID string, follow bool) {
			m.send(&cluster.FromManager{Logs: &cluster.LogRequest{ID: id, TaskID: taskID,
				Query: cluster.LogOptions{Stdout: true, Stderr: true, Follow: follow, Tail: -1}}})
		}
		answer := func(id uint64) (text string, done bool, err string) {
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, chunk := range m.logs {
				if chunk.ID == id {
					for _, line := range chunk.Lines {
						text += string(line.Data)
					}
					done, err = done || chunk.Done, err+chunk.Err
				}
			}
			return text, done, err
		}
		ask(1, "t1", true) // waits for the start
		ask(2, "nobody", false)
		if _, done, err := answer(2); !done || !strings.Contains(err, "no such task") {
			t.Errorf("unknown task: %v %q", done, err)
		}
		if _, done, _ := answer(1); done {
			t.Error("following ended before the start")
		}
		m.diff(10, 11, nil, task("t1", 11, cluster.StateRunning))
		m.beat(3 * time.Second)
		if text, done, _ := answer(1); done || strings.Count(text, "\n") != 4 {
			t.Errorf("following: %v %q", done, text)
		}
		ask(3, "t1", true)
		m.send(&cluster.FromManager{CancelLogs: 3})
		before, _, _ := answer(3)
		m.beat(2 * time.Second)
		if after, done, _ := answer(3); after != before || done {
			t.Errorf("a cancelled request goes on: %q", after)
		}
		b.driver.Kill("t1", 1)
		synctest.Wait()
		if text, done, err := answer(1); !done || err != "" || !strings.Contains(text, "exits with 1") {
			t.Errorf("at the end: %v %q %q", done, text, err)
		}
		ask(4, "t1", false) // of a dead task
		if text, done, _ := answer(4); !done || strings.Count(text, "\n") < 5 {
			t.Errorf("dead task: %v %q", done, text)
		}
		b.stop()
	})
}

// TestSession_LogsWithAWindow holds that an agent sends no more of a log than may be on
// its way, and goes on when a part of it was taken.
func TestSession_LogsWithAWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.send(&cluster.FromManager{Assignments: &cluster.Assignments{
			Full: true, To: 10, Tasks: []*cluster.Task{task("t1", 10, cluster.StateRunning)},
			Revisions: []*cluster.Revision{revision(map[string]string{"skep.simulate.log-every": "10ms"})},
		}})
		m.beat(5 * time.Second)
		const window = 2000
		m.send(&cluster.FromManager{Logs: &cluster.LogRequest{ID: 1, TaskID: "t1", Query: cluster.LogOptions{Stdout: true, Stderr: true, Tail: -1, Window: window}}})
		got := func() (lines, bytes int, done bool) {
			synctest.Wait()
			m.mu.Lock()
			defer m.mu.Unlock()
			for _, chunk := range m.logs {
				lines += len(chunk.Lines)
				for i := range chunk.Lines {
					bytes += chunk.Lines[i].Size()
				}
				done = done || chunk.Done
			}
			return lines, bytes, done
		}
		taken := 0
		for range 1000 {
			lines, bytes, done := got()
			if bytes-taken > window {
				t.Fatalf("%d bytes are on their way", bytes-taken)
			}
			if done {
				if lines < 400 {
					t.Errorf("%d lines", lines)
				}
				b.stop()
				return
			}
			if bytes == taken {
				t.Fatalf("after %d bytes nothing more comes", bytes)
			}
			m.send(&cluster.FromManager{LogCredit: &cluster.LogCredit{ID: 1, Bytes: bytes - taken}})
			taken = bytes
		}
		t.Error("the log doesn't end")
	})
}

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	if _, err := agent.New(agent.Config{}); !errors.Is(err, cluster.ErrInvalid) {
		t.Errorf("err = %v", err)
	}
}

// A message of a type that this version doesn't know is a heartbeat.
func TestSession_OutlivesALaterManagersMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		for range 20 {
			if err := cluster.WriteFrame(m.conn, map[int]any{99: map[int]any{1: "new"}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(heartbeat)
		}
		m.full(10, task("t1", 10, cluster.StateRunning))
		m.beat(time.Second)
		m.expect("t1", cluster.StateRunning, "started", "")
		if m.ended || b.dials.Load() != 1 {
			t.Errorf("ended %v after %d attempts", m.ended, b.dials.Load())
		}
		b.stop()
	})
}
