package dispatch

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"skep/cluster"
	"skep/store"
)

func TestServeSession_SendsWelcomePeersAndAssignments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.update(func(tx *store.Tx) error {
			return tx.Put(&cluster.Cluster{ID: "c", GossipKeys: [][]byte{{1}}})
		})
		w.addNode("n1")
		w.addNode("n2")
		w.addTask("t1", "n1")
		w.addTask("t2", "n2")
		synctest.Wait() // m2 knows of all that: a session that came earlier would be told later.
		a := w.connect("n1", "m2")
		if got := a.inbox[0].Welcome; got == nil || got.HeartbeatMillis != 1000 {
			t.Fatalf("first message: %+v", a.inbox[0])
		}
		if got := a.inbox[1].Peers; got == nil || len(got.Managers) != 2 || got.Role != swarm.NodeRoleWorker || len(got.GossipKeys) != 1 {
			t.Fatalf("second message: %+v", got)
		}
		if got := a.holds(); !slices.Equal(got, []string{"t1 r1 running"}) {
			t.Fatalf("holds %v", got)
		}
		before := time.Now()
		w.addTask("t3", "n1")
		synctest.Wait()
		if got := a.holds(); len(got) != 2 || time.Since(before) != 0 {
			t.Fatalf("holds %v after %v", got, time.Since(before))
		}
		w.update(func(tx *store.Tx) error {
			stopped := *tx.Task("t1")
			stopped.Desired = cluster.StateShutdown
			tx.Delete(tx.Task("t3"))
			return tx.Put(&stopped)
		})
		synctest.Wait()
		if got := a.holds(); !slices.Equal(got, []string{"t1 r1 shutdown"}) {
			t.Fatalf("holds %v", got)
		}
		// A change of the revision comes by itself, and to those who have it only.
		w.update(func(tx *store.Tx) error {
			r := *tx.Revision("s", 1)
			r.Auth = "fresh"
			return tx.Put(&r)
		})
		synctest.Wait()
		if a.revisions["s.1"].Auth != "fresh" {
			t.Fatal("the changed revision wasn't sent")
		}
		// New peers and roles too.
		w.update(func(tx *store.Tx) error {
			node := *tx.Node("n1")
			node.Role = swarm.NodeRoleManager
			return tx.Put(&node)
		})
		synctest.Wait()
		if a.peers.Role != swarm.NodeRoleManager {
			t.Fatalf("role %v", a.peers.Role)
		}
		w.update(func(tx *store.Tx) error {
			node := *tx.Node("n1")
			node.ManagerAddr = "10.0.0.1:2377"
			return tx.Put(&node)
		})
		synctest.Wait()
		if len(a.peers.Managers) != 3 {
			t.Fatalf("managers %v", a.peers.Managers)
		}
	})
}

func TestServeSession_RefusesWithReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		stranger := w.dial("x", "m1")
		go stranger.send(cluster.FromAgent{Hello: &cluster.Hello{Format: cluster.WireFormat}})
		if err := <-stranger.served; !errors.Is(err, cluster.ErrDenied) {
			t.Errorf("stranger: %v", err)
		}
		synctest.Wait()
		if !strings.Contains(stranger.refused, "not in the cluster") {
			t.Errorf("stranger refused with %q", stranger.refused)
		}
		w.addNode("n1")
		old := w.dial("n1", "m1")
		go old.send(cluster.FromAgent{Hello: &cluster.Hello{Format: 99}})
		<-old.served
		synctest.Wait()
		if !strings.Contains(old.refused, "format 99") {
			t.Errorf("old agent refused with %q", old.refused)
		}
		rude := w.dial("n1", "m1")
		go rude.send(cluster.FromAgent{})
		if err := <-rude.served; err == nil {
			t.Error("a session without Hello")
		}
		// One that never says anything is given up, too.
		mute := w.dial("n1", "m1")
		if err := <-mute.served; !errors.Is(err, errSilent) {
			t.Errorf("mute: %v", err)
		}
		removed := w.connect("n1", "m1")
		w.update(func(tx *store.Tx) error { tx.Delete(tx.Node("n1")); return nil })
		if err := <-removed.served; !errors.Is(err, cluster.ErrDenied) {
			t.Errorf("removed: %v", err)
		}
		synctest.Wait()
		if !strings.Contains(removed.refused, "removed") {
			t.Errorf("removed node refused with %q", removed.refused)
		}
	})
}

// A manager that lost its leader knows nothing new and can pass nothing on: it
// lets its agents go, and takes none in until a leader hears of it again.
func TestServeSession_EndsWhenTheLeaderIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.addNode("n1")
		a := w.connect("n1", "m2")
		w.cut("m2", true)
		began := time.Now()
		if err := <-a.served; !errors.Is(err, errIsolated) {
			t.Errorf("the session ended with %v", err)
		}
		if took := time.Since(began); took < leastIsolated || took > leastIsolated+time.Second {
			t.Errorf("the session ended after %v; want about %v", took, leastIsolated)
		}
		again := w.dial("n1", "m2")
		go again.send(cluster.FromAgent{Hello: &cluster.Hello{Format: cluster.WireFormat}})
		if err := <-again.served; !errors.Is(err, cluster.ErrDenied) {
			t.Errorf("a second session ended with %v", err)
		}
		synctest.Wait()
		if !strings.Contains(again.refused, "lost its leader") {
			t.Errorf("the agent was refused with %q", again.refused)
		}
		w.connect("n1", "m3")
		w.cut("m2", false)
		time.Sleep(time.Second)
		back := w.connect("n1", "m2")
		time.Sleep(5 * time.Second)
		if len(back.served) > 0 {
			t.Errorf("a session with a manager that is back ended: %v", <-back.served)
		}
	})
}

func TestServeSession_WaitsForANodeThatJustJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		m2 := w.managers["m2"].replica
		w.journal.lag(m2, true)
		w.addNode("n1")
		a := w.connect("n1", "m2")
		time.Sleep(time.Second)
		w.journal.lag(m2, false)
		synctest.Wait()
		if len(a.inbox) == 0 || a.inbox[0].Welcome == nil {
			t.Fatalf("no welcome: %+v", a.inbox)
		}
	})
}

func TestServeSession_NewSessionEndsTheOldOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		w.addTask("t1", "n1")
		first := w.connect("n1", "m1")
		second := w.connect("n1", "m1")
		before := time.Now()
		if err := <-first.served; !errors.Is(err, errReplaced) || time.Since(before) != 0 {
			t.Fatalf("first ended with %v after %v", err, time.Since(before))
		}
		w.addTask("t2", "n1")
		synctest.Wait()
		if len(second.holds()) != 2 || second.fulls != 1 {
			t.Fatalf("second holds %v", second.holds())
		}
		if w.now().Sessions()["n1"] != "m1" || w.node("n1").Status.State != cluster.NodeReady {
			t.Fatalf("sessions %v, node %+v", w.now().Sessions(), w.node("n1").Status)
		}
	})
}

func TestServeSession_EndsWhenSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		for _, lost := range []bool{false, true} {
			a := w.connect("n1", "m1")
			time.Sleep(time.Minute)
			synctest.Wait()
			if a.ended {
				t.Fatal("a session with heartbeats ended")
			}
			a.hush()
			before := time.Now()
			w.see("n1", !lost)
			err := <-a.served
			took := time.Since(before)
			if !errors.Is(err, errSilent) || (!lost && (took < 2*time.Second || took > 3*time.Second)) || (lost && took > 1500*time.Millisecond) {
				t.Errorf("ended with %v after %v (gossip lost it: %v)", err, took, lost)
			}
		}
	})
}

// TestServeSession_AnswersHeartbeats: at once, so that neither side wakes up for it later; and
// nothing else is answered.
func TestServeSession_AnswersHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		a := w.dial("n1", "m1")
		a.send(cluster.FromAgent{Hello: &cluster.Hello{Format: cluster.WireFormat}})
		time.Sleep(500 * time.Millisecond)
		for _, step := range []struct {
			message cluster.FromAgent
			answers int
		}{
			{cluster.FromAgent{}, 1},
			{cluster.FromAgent{Warning: "the clock is wrong"}, 1},
			{cluster.FromAgent{Describe: &swarm.NodeDescription{Hostname: "n1"}}, 0},
		} {
			before := len(a.inbox)
			a.send(step.message)
			synctest.Wait()
			if got := len(a.inbox) - before; got != step.answers {
				t.Errorf("%+v has %d answers at once, want %d", step.message, got, step.answers)
			}
		}
	})
}

func TestServeSession_EndsWithRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		a := w.connect("n1", "m1")
		w.kill("m1")
		if err := <-a.served; !errors.Is(err, errStopping) {
			t.Fatalf("ended with %v", err)
		}
	})
}

// An agent that reads nothing for a while gets what it missed in one message, and
// the session holds no more than the limit for it.
func TestServeSession_SlowAgentGetsJoinedChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		a := w.connect("n1", "m1")
		var slow atomic.Int64
		a.mu.Lock()
		a.pause = func() time.Duration { return time.Duration(slow.Load()) }
		a.mu.Unlock()
		for _, total := range []int{maxMarks / 2, 3 * maxMarks} {
			slow.Store(int64(2 * time.Second))
			w.addTask(fmt.Sprintf("first-of-%d", total), "n1")
			synctest.Wait() // The agent sleeps over this one.
			messages, fulls := len(a.inbox), a.fulls
			for i := range total {
				if i%500 != 0 {
					continue
				}
				w.update(func(tx *store.Tx) error {
					for k := i; k < min(i+500, total); k++ {
						task := &cluster.Task{ID: fmt.Sprintf("t%d-%d", total, k), ServiceID: "s", Revision: 1, NodeID: "n1"}
						task.Status.State = cluster.StateAssigned
						if err := tx.Put(task); err != nil {
							return err
						}
					}
					return nil
				})
			}
			synctest.Wait()
			s := w.now().session("n1")
			s.mu.Lock()
			marks := len(s.due.marks.tasks)
			s.mu.Unlock()
			if marks > maxMarks {
				t.Errorf("%d marks wait", marks)
			}
			slow.Store(0)
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if got := assignmentsAfter(a, messages); got > 2 {
				t.Errorf("%d messages for %d changes", got, total)
			}
			if want := total > maxMarks; want != (a.fulls > fulls) {
				t.Errorf("%d changes: complete set sent again: %v", total, !want)
			}
		}
		if got, want := len(a.holds()), maxMarks/2+3*maxMarks+2; got != want {
			t.Errorf("agent holds %d of %d tasks", got, want)
		}
	})
}

func assignmentsAfter(a *testAgent, messages int) int {
	count := 0
	for _, m := range a.inbox[messages:] {
		if m.Assignments != nil && len(m.Assignments.Tasks) > 0 {
			count++
		}
	}
	return count
}

func TestServeSession_EndsWhenTheAgentTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		a := w.connect("n1", "m1")
		a.mu.Lock()
		a.pause = func() time.Duration { return time.Hour }
		a.mu.Unlock()
		before := time.Now()
		if err := <-a.served; !errors.Is(err, errStalled) || time.Since(before) > 5*time.Second {
			t.Fatalf("ended with %v after %v", err, time.Since(before))
		}
		time.Sleep(time.Hour)
	})
}

// An agent's own news isn't told to it again, but what a manager says is.
func TestServeSession_DoesNotEchoReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		w.addTask("t1", "n1")
		a := w.connect("n1", "m1")
		before := a.taken
		for _, state := range []cluster.State{cluster.StateAccepted, cluster.StatePreparing, cluster.StateRunning} {
			a.report("t1", state, "")
		}
		if w.task("t1").Status.State != cluster.StateRunning || a.taken != before {
			t.Fatalf("task is %s, %d echoes", w.task("t1").Status.State, a.taken-before)
		}
		w.update(func(tx *store.Tx) error {
			task := *tx.Task("t1")
			task.Status.State = cluster.StateOrphaned
			return tx.Put(&task)
		})
		synctest.Wait()
		if got := a.holds(); !slices.Equal(got, []string{"t1 r1 running orphaned"}) {
			t.Fatalf("holds %v", got)
		}
	})
}

// An agent that saw a later index elsewhere must hear when this manager has it too.
func TestServeSession_TellsWhenItHasCaughtUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.addNode("n1")
		m2 := w.managers["m2"].replica
		w.journal.lag(m2, true)
		w.addNode("n2")
		a := w.connect("n1", "m2")
		if a.to >= w.node("n2").Version {
			t.Fatal("m2 didn't lag")
		}
		w.journal.lag(m2, false)
		time.Sleep(time.Second)
		synctest.Wait()
		if a.to < w.node("n2").Version {
			t.Fatalf("told up to %d, it has %d", a.to, w.node("n2").Version)
		}
	})
}

// Lost changes bring a complete set.
func TestHub_LostSubscriptionSendsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		w.addNode("n2")
		w.addTask("t1", "n1")
		a, gone := w.connect("n1", "m1"), w.connect("n2", "m1")
		m := w.now()
		w.addTask("t2", "n1")
		w.update(func(tx *store.Tx) error { tx.Delete(tx.Task("t1")); return nil })
		synctest.Wait()
		fulls := a.fulls
		m.publish(nil, m.replica.View(), true)
		synctest.Wait()
		if got := a.holds(); a.fulls != fulls+1 || !slices.Equal(got, []string{"t2 r1 running"}) {
			t.Fatalf("%d complete sets, holds %v", a.fulls, got)
		}
		// As if the removal of n2 were among what was lost.
		w.update(func(tx *store.Tx) error { tx.Delete(tx.Node("n2")); return nil })
		m.publish(nil, m.replica.View(), true)
		<-gone.served
	})
}

// Whatever happens to tasks, and however slowly agents read, each of them ends up
// with exactly its tasks, having seen no gap, no duplicate and no step back (which
// testAgent checks with every message).
func TestServeSession_PropertyAgentsFollowTheStore(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		synctest.Test(t, func(t *testing.T) { followTheStore(t, seed) })
		if t.Failed() {
			rt.Fatalf("seed %d", seed)
		}
	})
}

func followTheStore(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t, 2)
	nodes := []string{"n1", "n2", "n3"}
	agents := make(map[string]*testAgent)
	connect := func(nodeID string) {
		a := w.connect(nodeID, w.names[random.IntN(2)])
		pauses := rand.New(rand.NewPCG(seed, random.Uint64()))
		a.mu.Lock()
		a.pause = func() time.Duration { return time.Duration(pauses.IntN(300)) * time.Millisecond }
		a.mu.Unlock()
		if old := agents[nodeID]; old != nil {
			old.close()
		}
		agents[nodeID] = a
	}
	w.update(func(tx *store.Tx) error {
		for i, id := range []string{"w1", "w2", "ingress"} {
			n := &cluster.Network{ID: id, VNI: cluster.FirstVNI + uint32(i)}
			n.Spec.Name, n.Spec.Ingress = id, id == "ingress"
			if err := tx.Put(n); err != nil {
				return err
			}
		}
		// Without a port that all nodes publish nobody hears of the ingress network.
		published := &cluster.Service{ID: "published", Ports: []swarm.PortConfig{{Protocol: swarm.PortConfigProtocolTCP, TargetPort: 80, PublishedPort: 8080, PublishMode: swarm.PortConfigPublishModeIngress}}}
		published.Spec.Name = "published"
		return tx.Put(published)
	})
	for i, nodeID := range nodes {
		w.addNode(nodeID)
		w.update(func(tx *store.Tx) error {
			n := *tx.Node(nodeID)
			n.Index = uint16(i + 1)
			return tx.Put(&n)
		})
		connect(nodeID)
	}
	for step := range 40 {
		switch what := random.IntN(20); {
		case what == 0:
			connect(nodes[random.IntN(3)])
		case what == 1:
			m := w.managers[w.names[random.IntN(2)]]
			m.publish(nil, m.view(), true)
		case what == 2:
			w.journal.lag(w.managers["m2"].replica, true)
		case what == 3:
			w.journal.lag(w.managers["m2"].replica, false)
		default:
			w.update(func(tx *store.Tx) error { return disturb(tx, random, step, nodes) })
		}
		time.Sleep(time.Duration(random.IntN(100)) * time.Millisecond)
	}
	w.journal.lag(w.managers["m2"].replica, false)
	time.Sleep(10 * time.Second)
	synctest.Wait()
	for _, nodeID := range nodes {
		var want []string
		for task := range w.now().replica.View().TasksOfNode(nodeID) {
			if !task.Assigned() {
				continue
			}
			want = append(want, orders(task))
			r := w.now().replica.View().Revision(task.ServiceID, task.Revision)
			if got := agents[nodeID].revisions["s."+fmt.Sprint(task.Revision)]; got == nil || got.Auth != r.Auth {
				t.Errorf("node %s: revision %d is %v, want %v", nodeID, task.Revision, got, r)
			}
		}
		slices.Sort(want)
		if diff := cmp.Diff(want, agents[nodeID].holds()); diff != "" {
			t.Errorf("node %s (-store +agent): %s", nodeID, diff)
		}
		was := agents[nodeID].knowsOf()
		again := w.connect(nodeID, "m1") // It is told everything anew.
		time.Sleep(time.Second)
		if diff := cmp.Diff(again.knowsOf(), was, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("node %s, of networks (-new agent +old agent): %s", nodeID, diff)
		}
		if len(was) < 2 || len(was[""]) != len(nodes) {
			t.Errorf("node %s knows only %+v", nodeID, was)
		}
	}
}

// disturb makes up to three random changes.
func disturb(tx *store.Tx, random *rand.Rand, step int, nodes []string) error {
	var tasks []*cluster.Task
	for task := range tx.Tasks() {
		tasks = append(tasks, task)
	}
	for i := range 1 + random.IntN(3) {
		number := 1 + random.Uint64N(3)
		if r := tx.Revision("s", number); r == nil || random.IntN(4) == 0 {
			if err := tx.Put(&cluster.Revision{ServiceID: "s", Number: number, Auth: fmt.Sprint(step)}); err != nil {
				return err
			}
		}
		if len(tasks) == 0 || random.IntN(3) == 0 {
			task := &cluster.Task{ID: fmt.Sprintf("t%d.%d", step, i), ServiceID: "s", Revision: number, Desired: cluster.StateReady}
			if random.IntN(4) > 0 {
				task.NodeID = nodes[random.IntN(3)]
				// The others wait for their node: agents don't hear of them.
				task.Status.State = []cluster.State{cluster.StatePending, cluster.StateAssigned, cluster.StateAssigned}[random.IntN(3)]
			}
			for place := range uint32(random.IntN(4)) {
				task.Addresses = append(task.Addresses, cluster.Address{VNI: cluster.FirstVNI + place, Host: cluster.Host(1 + step*3 + i)})
			}
			if err := tx.Put(task); err != nil {
				return err
			}
			continue
		}
		task := *tasks[random.IntN(len(tasks))]
		if tx.Task(task.ID) == nil {
			continue
		}
		switch random.IntN(5) {
		case 0:
			tx.Delete(&task)
			continue
		case 4:
			task.Addresses = nil
		case 1:
			task.Desired = []cluster.State{cluster.StateRunning, cluster.StateShutdown, cluster.StateRemove}[random.IntN(3)]
		case 2:
			next := []cluster.State{cluster.StatePreparing, cluster.StateRunning, cluster.StateFailed, cluster.StateOrphaned}[random.IntN(4)]
			task.Status.State = max(task.Status.State, next)
		case 3:
			if task.NodeID == "" {
				task.NodeID = nodes[random.IntN(3)]
			}
			task.Status.State = max(task.Status.State, cluster.StateAssigned)
		}
		if err := tx.Put(&task); err != nil {
			return err
		}
	}
	web := &cluster.Service{ID: "s"}
	web.Spec.Name = fmt.Sprintf("web%d", random.IntN(2))
	for i := range random.IntN(3) {
		web.Spec.TaskTemplate.Networks = append(web.Spec.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: fmt.Sprintf("w%d", i+1)})
	}
	return tx.Put(web)
}

// A message of a type that this version doesn't know is a heartbeat.
func TestServeSession_OutlivesALaterAgentsMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.addNode("n1")
		w.addTask("t1", "n1")
		a := w.connect("n1", "m1")
		for range 5 {
			if err := cluster.WriteFrame(a.conn, map[int]any{99: map[int]any{1: "new"}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		a.report("t1", cluster.StateRunning, "started")
		if a.over() || w.task("t1").Status.State != cluster.StateRunning {
			t.Errorf("over %v; %+v", a.over(), w.task("t1").Status)
		}
	})
}

// An agent whose skep is older than the cluster's level is told what to install; what
// others run is in their nodes.
func TestServeSession_RefusesABuildThatDoesNotFit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		w.update(func(tx *store.Tx) error {
			return tx.Put(&cluster.Cluster{ID: "c", ClusterLevel: cluster.ClusterLevel{Level: cluster.Level, LevelVersion: "0.9.0"}})
		})
		w.addNode("n1")
		w.addNode("n2")
		old := w.dial("n1", "m1")
		old.send(cluster.FromAgent{Hello: &cluster.Hello{Format: cluster.WireFormat, Build: cluster.Build{Version: "9", Level: 99, MinLevel: 99}}})
		synctest.Wait()
		if !old.over() || !strings.Contains(old.refused, "which is too old for skep 9 (levels 99 to 99)") {
			t.Errorf("refused with %q", old.refused)
		}
		build := cluster.NewBuild("1.0")
		a := w.dial("n2", "m1")
		a.send(cluster.FromAgent{Hello: &cluster.Hello{Format: cluster.WireFormat, Build: build}})
		time.Sleep(time.Second)
		if node := w.node("n2"); node.Build != build || w.node("n1").Build != (cluster.Build{}) {
			t.Errorf("%+v, %+v", node.Build, w.node("n1").Build)
		}
	})
}
