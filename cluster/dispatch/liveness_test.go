package dispatch

import (
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"skep/cluster"
	"skep/cluster/dispatch/liveness"
)

// state waits until a node has a state, and tells how long that took.
func (w *world) until(nodeID string, state cluster.NodeState, limit time.Duration) time.Duration {
	w.t.Helper()
	begin := time.Now()
	for time.Since(begin) <= limit {
		synctest.Wait()
		if w.node(nodeID).Status.State == state {
			return time.Since(begin)
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.t.Fatalf("node %s is %s (%s) after %v, want %s", nodeID, w.node(nodeID).Status.State, w.node(nodeID).Status.Message, limit, state)
	return 0
}

// settle gives every manager's own node a session, as in life.
func (w *world) settle() map[string]*testAgent {
	agents := make(map[string]*testAgent)
	for _, id := range w.names {
		agents[id] = w.connect(id, id)
	}
	time.Sleep(5 * time.Second)
	return agents
}

// newWorldOfWorker is a world of three managers with the worker n1, which has been well
// for a minute. Its session is with m2.
func newWorldOfWorker(t *testing.T) (*world, *testAgent) {
	w := newWorld(t, 3)
	w.settle()
	w.addNode("n1")
	a := w.connect("n1", "m2")
	time.Sleep(time.Minute)
	return w, a
}

// Whose session a leader had that is gone, breaks no connection with the managers that are
// left. They look after such nodes at once, since most of them must miss many that vanish.
func TestLiveness_AllManagersLookAfterWhomNoneHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.settle()
		for _, id := range []string{"n1", "n2", "n3"} {
			w.addNode(id)
		}
		w.connect("n1", "m1")
		w.connect("n2", "m2")
		w.connect("n3", "m3")
		time.Sleep(time.Minute)
		probed := func(id string) map[string]int {
			w.mu.Lock()
			defer w.mu.Unlock()
			return maps.Clone(w.managers[id].probed)
		}
		for _, id := range w.names {
			if said := probed(id); len(said) > 0 {
				t.Errorf("%s probed while all was well: %v", id, said)
			}
		}
		w.kill("m1")
		w.lead("m2")
		time.Sleep(500 * time.Millisecond)
		for _, id := range []string{"m2", "m3"} {
			if said := probed(id); said["n1"] == 0 || said["m1"] == 0 || len(said) != 2 {
				t.Errorf("%s probed %v; want n1 and m1", id, said)
			}
		}
		w.suspect("n1")
		w.suspect("m1")
		time.Sleep(suspectLong)
		before := probed("m2")
		time.Sleep(time.Minute)
		if after := probed("m2"); !maps.Equal(before, after) {
			t.Errorf("nodes that are down are looked after again: %v, then %v", before, after)
		}
	})
}

func TestLiveness_KilledWorkerIsDownWhenGossipSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a := newWorldOfWorker(t)
		a.close()
		time.Sleep(time.Second)
		if got := w.node("n1").Status.State; got != cluster.NodeReady {
			t.Fatalf("node is %s before gossip lost it", got)
		}
		w.see("n1", false)
		if took := w.until("n1", cluster.NodeDown, time.Second); took > 10*time.Millisecond {
			t.Errorf("down %v after gossip lost it", took)
		}
		status := w.node("n1").Status
		if status.Message != liveness.MessageDead || time.Since(status.Since) > 10*time.Millisecond {
			t.Errorf("status %+v", status)
		}
		w.connect("n1", "m3")
		if status := w.node("n1").Status; status.State != cluster.NodeReady || status.Message != "" {
			t.Errorf("back with status %+v", status)
		}
	})
}

// A suspicion that nobody confirms, and nobody refutes, is believed after SuspectAfter.
func TestLiveness_KilledWorkerIsDownWhenLongSuspected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a := newWorldOfWorker(t)
		a.close()
		time.Sleep(100 * time.Millisecond)
		w.suspect("n1")
		if took := w.until("n1", cluster.NodeDown, time.Second); took < suspectLong || took > suspectLong+10*time.Millisecond {
			t.Errorf("down %v after gossip began to suspect it", took)
		}
		if status := w.node("n1").Status; status.Message != liveness.MessageSuspect {
			t.Errorf("status %+v", status)
		}
	})
}

func TestLiveness_PowerCutIsDownSoonAfterGossip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a := newWorldOfWorker(t)
		a.hush() // No more heartbeats, but no end of the connection either.
		time.Sleep(time.Second)
		w.see("n1", false)
		if took := w.until("n1", cluster.NodeDown, 3*time.Second); took > time.Second {
			t.Errorf("down %v after gossip lost it", took)
		}
	})
}

func TestLiveness_NodeThatGossipSeesGetsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, a := newWorldOfWorker(t)
		a.close()
		if took := w.until("n1", cluster.NodeDisconnected, time.Minute); took < liveness.DisconnectAfter || took > liveness.DisconnectAfter+50*time.Millisecond {
			t.Errorf("disconnected after %v", took)
		}
		if took := w.until("n1", cluster.NodeDown, time.Minute); took < 7*time.Second || took > 9*time.Second {
			t.Errorf("down %v later", took)
		}
	})
}

func TestLiveness_StopInOrderKeepsTasksForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.settle()
		w.addNode("n1")
		w.addTask("t1", "n1")
		for _, leader := range []string{"m1", "m2"} {
			a := w.connect("n1", "m2")
			a.send(cluster.FromAgent{Leaving: true, Reports: []cluster.Report{{TaskID: "t1", Status: cluster.TaskStatus{State: cluster.StateRunning}}}})
			if err := <-a.served; err == nil {
				t.Error("no reason for the end")
			}
			w.see("n1", false)
			w.until("n1", cluster.NodeUnknown, 10*time.Millisecond)
			if w.task("t1").Status.State != cluster.StateRunning {
				t.Error("the last reports are lost")
			}
			time.Sleep(5 * time.Second)
			w.lead(leader)
			time.Sleep(4 * time.Second)
			if status := w.node("n1").Status; status.State != cluster.NodeUnknown || status.Message != liveness.MessageStopped {
				t.Fatalf("status %+v", status)
			}
			back := w.connect("n1", "m1")
			w.see("n1", true)
			w.until("n1", cluster.NodeReady, 10*time.Millisecond)
			back.close()
		}
		a := w.connect("n1", "m2")
		a.send(cluster.FromAgent{Leaving: true})
		if took := w.until("n1", cluster.NodeDown, time.Minute); took < liveness.Grace || took > liveness.Grace+50*time.Millisecond {
			t.Errorf("down after %v", took)
		}
	})
}

// A machine that is stopped in order won't be back soon, so nobody waits for it, nor for
// others that stop with it; one that comes back is ready at once.
func TestLiveness_MachinesStoppedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.settle()
		var agents []*testAgent
		for i := range 4 {
			w.addNode(fmt.Sprint("n", i))
			agents = append(agents, w.connect(fmt.Sprint("n", i), "m2"))
		}
		for i, a := range agents {
			a.send(cluster.FromAgent{Leaving: true, Halting: true})
			if took := w.until(fmt.Sprint("n", i), cluster.NodeDown, 5*time.Second); took > 10*time.Millisecond {
				t.Errorf("down after %v", took)
			}
		}
		if status := w.node("n3").Status; status.Message != liveness.MessageHalted {
			t.Errorf("status %+v", status)
		}
		back := w.connect("n1", "m1")
		w.until("n1", cluster.NodeReady, 10*time.Millisecond)
		back.send(cluster.FromAgent{Leaving: true})
		w.until("n1", cluster.NodeUnknown, 10*time.Millisecond)
	})
}

// An agent that stops on one manager and is back on another at once has come back.
func TestLiveness_QuickRestartElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.settle()
		w.addNode("n1")
		a := w.connect("n1", "m2")
		w.cut("m2", true)
		a.send(cluster.FromAgent{Leaving: true})
		w.connect("n1", "m3")
		w.cut("m2", false)
		time.Sleep(time.Minute)
		if status := w.node("n1").Status; status.State != cluster.NodeReady {
			t.Errorf("status %+v", status)
		}
	})
}

// When the leader's machine dies, the next one puts its node down, and nobody else.
func TestLiveness_NewLeaderMissesTheOldOneOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.settle()
		for i := range 6 {
			w.addNode(fmt.Sprint("n", i))
			w.connect(fmt.Sprint("n", i), w.names[i%3])
		}
		time.Sleep(time.Minute)
		w.kill("m1") // Its agents lose their sessions.
		time.Sleep(100 * time.Millisecond)
		w.connect("n0", "m2")
		w.connect("n3", "m3")
		time.Sleep(400 * time.Millisecond)
		entries := w.journal.count()
		w.lead("m2")
		time.Sleep(time.Second)
		w.see("m1", false)
		w.until("m1", cluster.NodeDown, 500*time.Millisecond)
		time.Sleep(time.Minute)
		for node := range w.now().replica.View().Nodes() {
			if node.ID != "m1" && node.Status.State != cluster.NodeReady {
				t.Errorf("node %s is %s: %s", node.ID, node.Status.State, node.Status.Message)
			}
		}
		if got := w.journal.count() - entries; got != 1 {
			t.Errorf("%d entries", got)
		}
	})
}

func TestLiveness_DeadManagersSessionsDontCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.settle()
		w.addNode("n1")
		w.connect("n1", "m2")
		time.Sleep(time.Minute)
		w.cut("m2", true) // Its side of the network is gone, the node's too.
		w.see("m2", false)
		w.see("n1", false)
		if took := w.until("n1", cluster.NodeDown, time.Minute); took > liveness.StaleAfter+liveness.RelayEvery+liveness.Confirm {
			t.Errorf("down after %v", took)
		}
		w.cut("m2", false)
		w.until("n1", cluster.NodeReady, liveness.RelayEvery+50*time.Millisecond)
	})
}

func TestLiveness_MassFailureGuardWhenManyVanishAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.settle()
		agents := make(map[string]*testAgent)
		for i := range 8 {
			nodeID := fmt.Sprint("n", i)
			w.addNode(nodeID)
			agents[nodeID] = w.connect(nodeID, "m1")
		}
		time.Sleep(time.Minute)
		for i := range 5 {
			agents[fmt.Sprint("n", i)].close()
			w.see(fmt.Sprint("n", i), false)
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(9 * time.Second)
		for i := range 5 {
			if status := w.node(fmt.Sprint("n", i)).Status; status.State != cluster.NodeDisconnected || status.Message != liveness.MessageMassFailure {
				t.Errorf("node %d: %+v", i, status)
			}
		}
		w.connect("n0", "m1")
		w.see("n0", true)
		time.Sleep(10 * time.Second)
		for i := range 8 {
			want := cluster.NodeReady
			if i > 0 && i < 5 {
				want = cluster.NodeDown
			}
			if status := w.node(fmt.Sprint("n", i)).Status; status.State != want {
				t.Errorf("node %d: %+v", i, status)
			}
		}
	})
}

// loseFive has five of eight workers lose their sessions, which are spread over the
// managers, and gossip lose them too, as far as the managers say that it should.
func loseFive(w *world, whose ...string) {
	w.settle()
	agents := make(map[string]*testAgent)
	for i := range 8 {
		nodeID := fmt.Sprint("n", i)
		w.addNode(nodeID)
		agents[nodeID] = w.connect(nodeID, w.names[i%len(w.names)])
	}
	time.Sleep(time.Minute)
	for i := range 5 {
		agents[fmt.Sprint("n", i)].close()
		w.seenBy(whose, fmt.Sprint("n", i), false)
	}
}

func TestLiveness_NoMassFailureGuardForWhatMostManagersMiss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		loseFive(w, "m1", "m3")
		for i := range 5 {
			if took := w.until(fmt.Sprint("n", i), cluster.NodeDown, time.Minute); took > liveness.Confirm+50*time.Millisecond {
				t.Errorf("node %d was down after %v", i, took)
			}
		}
		time.Sleep(time.Minute)
		for i := range 3 {
			if status := w.node(fmt.Sprint("n", 5+i)).Status; status.State != cluster.NodeReady {
				t.Errorf("node %d, which is well: %+v", 5+i, status)
			}
		}
	})
}

func TestLiveness_MassFailureGuardForWhatTheLeaderAloneMisses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		loseFive(w, "m1")
		time.Sleep(14 * time.Second)
		for i := range 5 {
			if status := w.node(fmt.Sprint("n", i)).Status; status.State != cluster.NodeDisconnected || status.Message != liveness.MessageMassFailure {
				t.Errorf("node %d: %+v", i, status)
			}
		}
	})
}

// TestLiveness_ARelayThatWasOvertakenIsOld: a manager that stops gives up the relay
// under way and sends its last one, in which its agent has left; the leader may hear of
// them in the other order.
func TestLiveness_ARelayThatWasOvertakenIsOld(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	o := newOutbox(nil)
	o.addSession(cluster.NodeNews{NodeID: "n1"}, 1, false)
	first := o.next("m1", "e1", noon).relay
	o.removeSession("n1", true, false)
	last := o.next("m1", "e1", noon).relay
	tracker := liveness.NewTracker(now)
	known := liveness.Cluster{Nodes: []*cluster.Node{{ID: "n1"}}}
	if !tracker.Relay(last, now) || tracker.Relay(first, now.Add(time.Millisecond)) {
		t.Error("want the last relay to count, and the one before it not to")
	}
	if in := tracker.Observe(known, now); !in.Nodes[0].Stopped || len(in.Sessions) != 0 {
		t.Errorf("the node's agent has left; known is %+v", in)
	}
	// A manager that was started anew begins to count anew.
	again := cluster.Relay{Manager: "m1", Epoch: "e2", Number: 1, Sessions: []string{"n1"}}
	if !tracker.Relay(again, now.Add(time.Second)) || tracker.Observe(known, now.Add(time.Second)).Sessions["n1"] != "m1" {
		t.Error("after a restart the manager's sessions don't count")
	}
}
