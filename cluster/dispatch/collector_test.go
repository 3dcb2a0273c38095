package dispatch

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"skep/cluster"
	"skep/cluster/dispatch/liveness"
	"skep/store"
)

func TestReports_ReachTheStoreFromAnyManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		for i, managerID := range w.names {
			nodeID, taskID := fmt.Sprint("n", i), fmt.Sprint("t", i)
			w.addNode(nodeID)
			w.addTask(taskID, nodeID)
			a := w.connect(nodeID, managerID)
			if node := w.node(nodeID); node.Status.State != cluster.NodeReady || node.Description.Hostname != nodeID || node.Status.Addr != fmt.Sprint("10.0.0.", i) || node.Status.Since.IsZero() {
				t.Fatalf("node with a session on %s: %+v", managerID, node)
			}
			before := time.Now()
			a.report(taskID, cluster.StateRunning, "started")
			if got := w.task(taskID); got.Status.State != cluster.StateRunning || got.Status.Applied == 0 || got.RunningAt == 0 || time.Since(before) != 0 {
				t.Fatalf("after %v: %+v", time.Since(before), got)
			}
			a.report(taskID, cluster.StateStarting, "late")
			if got := w.task(taskID); got.Status.Message != "started" {
				t.Fatalf("a report took the task back: %+v", got)
			}
			a.send(cluster.FromAgent{Describe: &swarm.NodeDescription{Hostname: "renamed"}})
			synctest.Wait()
			if got := w.node(nodeID).Description.Hostname; got != "renamed" {
				t.Fatalf("hostname %q", got)
			}
			if got := w.now().Sessions()[nodeID]; got != managerID {
				t.Fatalf("session of %s on %q", nodeID, got)
			}
		}
		if got := w.managers["m2"].Sessions(); len(got) != 1 || got["n1"] != "m2" {
			t.Fatalf("m2 knows of %v", got)
		}
	})
}

func TestReports_OfAnotherNodesTaskAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.addNode("n1")
		w.addNode("n2")
		w.addTask("t1", "n1")
		thief := w.connect("n2", "m2")
		thief.report("t1", cluster.StateFailed, "")
		if got := w.task("t1").Status.State; got != cluster.StateAssigned {
			t.Fatalf("task is %s", got)
		}
		if log := w.managers["m2"].logged(); !strings.Contains(log, "refused") || !strings.Contains(log, "node=n2") || !strings.Contains(log, "task t1") {
			t.Errorf("log: %s", log)
		}
		owner := w.connect("n1", "m2")
		for _, state := range []cluster.State{cluster.StateOrphaned, cluster.StateRemove, cluster.StateAssigned, 9999} {
			owner.report("t1", state, "")
			if got := w.task("t1").Status.State; got != cluster.StateAssigned {
				t.Fatalf("an agent reported %s", got)
			}
		}
		owner.report("t1", cluster.StateRunning, strings.Repeat("é", maxTextLength))
		if got := w.task("t1").Status; got.State != cluster.StateRunning || len(got.Message) > maxTextLength {
			t.Fatalf("task is %s with a message of %d bytes", got.State, len(got.Message))
		}
	})
}

// What a new session repeats, and idle time, write nothing.
func TestIntake_WritesOnlyChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.addNode("n1")
		w.addTask("t1", "n1")
		a := w.connect("n1", "m2")
		a.report("t1", cluster.StateRunning, "started")
		time.Sleep(time.Minute) // The managers' own nodes have no agents here, and go down.
		entries := w.journal.count()
		time.Sleep(10 * time.Minute)
		a.report("t1", cluster.StateRunning, "started")
		a = w.connect("n1", "m2")
		a.report("t1", cluster.StateRunning, "started")
		if got := w.journal.count(); got != entries {
			t.Errorf("%d entries for nothing", got-entries)
		}
		if asked := w.managers["m1"].asked; asked < 2*600*5 {
			t.Errorf("the leader heard of its followers %d times in ten minutes", asked)
		}
	})
}

// While a batch is being committed, all that comes in goes into the next one.
func TestIntake_BatchesUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		var agents []*testAgent
		for i := range 30 {
			nodeID := fmt.Sprint("n", i)
			w.addNode(nodeID)
			w.addTask(fmt.Sprint("t", i), nodeID)
			agents = append(agents, w.connect(nodeID, w.names[i%3]))
		}
		time.Sleep(time.Minute)
		entries := w.journal.count()
		w.journal.delay = 10 * time.Millisecond
		for _, state := range []cluster.State{cluster.StateAccepted, cluster.StatePreparing, cluster.StateReady, cluster.StateStarting, cluster.StateRunning} {
			for i, a := range agents {
				go a.send(cluster.FromAgent{Reports: []cluster.Report{{TaskID: fmt.Sprint("t", i), Status: cluster.TaskStatus{State: state}}}})
			}
			time.Sleep(5 * time.Millisecond)
		}
		time.Sleep(50 * time.Millisecond)
		for i := range agents {
			if got := w.task(fmt.Sprint("t", i)).Status.State; got != cluster.StateRunning {
				t.Errorf("task %d is %s", i, got)
			}
		}
		if got := w.journal.count() - entries; got > 6 {
			t.Errorf("150 reports took %d entries", got)
		}
	})
}

// A relay is acknowledged only when it is committed, and told again to whoever
// leads next.
func TestRelay_SurvivesLeaderChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 3)
		w.addNode("n1")
		w.addTask("t1", "n1")
		a := w.connect("n1", "m3")
		w.journal.fail(raft.ErrLeadershipLost)
		a.report("t1", cluster.StatePreparing, "")
		a.report("t1", cluster.StateRunning, "")
		time.Sleep(time.Second)
		if w.managers["m3"].outbox.empty() {
			t.Fatal("acknowledged without a commit")
		}
		w.lead("")
		w.journal.fail(nil)
		time.Sleep(time.Second)
		a.report("t1", cluster.StateFailed, "exit 1")
		before := time.Now()
		w.lead("m2")
		time.Sleep(retryLast)
		synctest.Wait()
		if got := w.task("t1").Status; got.State != cluster.StateFailed || got.Message != "exit 1" {
			t.Fatalf("%v after the new leader came: %+v", time.Since(before), got)
		}
		if !w.managers["m3"].outbox.empty() {
			t.Error("the outbox isn't empty")
		}
		if w.now().Sessions()["n1"] != "m3" {
			t.Errorf("the new leader knows of %v", w.now().Sessions())
		}
	})
}

// Random reports through random managers, while leaders come and go and commits
// fail: in the end, the store has the last status of each task.
func TestRelay_PropertyNothingIsLost(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		synctest.Test(t, func(t *testing.T) { loseNothing(t, seed) })
		if t.Failed() {
			rt.Fatalf("seed %d", seed)
		}
	})
}

func loseNothing(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(t, 3)
	type running struct {
		*testAgent
		state cluster.State
		said  int
	}
	var agents []*running
	for i := range 5 {
		nodeID := fmt.Sprint("n", i)
		w.addNode(nodeID)
		w.addTask("t"+nodeID, nodeID)
		agents = append(agents, &running{testAgent: w.connect(nodeID, w.names[random.IntN(3)])})
	}
	states := []cluster.State{cluster.StateAccepted, cluster.StatePreparing, cluster.StateRunning}
	for range 60 {
		a := agents[random.IntN(len(agents))]
		switch random.IntN(12) {
		case 0:
			w.lead([]string{"", "m1", "m2", "m3"}[random.IntN(4)])
		case 1:
			w.journal.fail(raft.ErrLeadershipLost)
		case 2, 3:
			w.journal.fail(nil)
		case 4: // The agent moves, and repeats what it knows, as agents do.
			a.close()
			a.testAgent = w.connect(a.nodeID, w.names[random.IntN(3)])
			if a.said > 0 {
				a.report("t"+a.nodeID, a.state, fmt.Sprint(a.said))
			}
		default:
			a.said++
			a.state = max(a.state, states[random.IntN(3)])
			a.report("t"+a.nodeID, a.state, fmt.Sprint(a.said))
		}
		time.Sleep(time.Duration(random.IntN(150)) * time.Millisecond)
	}
	w.journal.fail(nil)
	w.lead("m1")
	time.Sleep(time.Second)
	synctest.Wait()
	// Managers that had no leader for long have let their agents go; those come back
	// and repeat what they know, as agents do.
	for _, a := range agents {
		a.mu.Lock()
		ended := a.ended
		a.mu.Unlock()
		if ended {
			a.close()
			a.testAgent = w.connect(a.nodeID, "m1")
			if a.said > 0 {
				a.report("t"+a.nodeID, a.state, fmt.Sprint(a.said))
			}
		}
	}
	time.Sleep(time.Second)
	synctest.Wait()
	for _, a := range agents {
		got := w.task("t" + a.nodeID).Status
		if a.said > 0 && (got.State != a.state || got.Message != fmt.Sprint(a.said)) {
			t.Errorf("node %s said %s (%d), the store has %s (%s)", a.nodeID, a.state, a.said, got.State, got.Message)
		}
	}
}

func TestOutbox_KeepsTheNewestUntilAcknowledged(t *testing.T) {
	o := newOutbox(nil)
	report := func(state cluster.State) cluster.Report {
		return cluster.Report{TaskID: "t", Status: cluster.TaskStatus{State: state}}
	}
	o.addReports("n", []cluster.Report{report(cluster.StateRunning), report(cluster.StateStarting)})
	first := o.next("m", "e", noon)
	if len(first.relay.Reports) != 1 || first.relay.Reports[0].Report.Status.State != cluster.StateRunning {
		t.Fatalf("packed %+v", first.relay.Reports)
	}
	o.addReports("n", []cluster.Report{report(cluster.StateFailed)})
	o.ack(first)
	second := o.next("m", "e", noon)
	if len(second.relay.Reports) != 1 || second.relay.Reports[0].Report.Status.State != cluster.StateFailed {
		t.Fatalf("packed %+v", second.relay.Reports)
	}
	o.ack(second)
	if !o.empty() {
		t.Fatal("not empty")
	}
	var many []cluster.Report
	for i := range maxRelayReports + 10 {
		many = append(many, cluster.Report{TaskID: fmt.Sprint(i)})
	}
	o.addReports("n", many)
	<-o.news
	third := o.next("m", "e", noon)
	o.ack(third)
	if fourth := o.next("m", "e", noon); len(third.relay.Reports) != maxRelayReports || len(fourth.relay.Reports) != 10 {
		t.Fatalf("%d and %d reports", len(third.relay.Reports), len(fourth.relay.Reports))
	}
	select {
	case <-o.news:
	default:
		t.Fatal("the rest must be told at once")
	}
}

func TestHandler_RefusesWhatItMust(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		ask := func(m *manager, method, path, body string) int {
			answer := httptest.NewRecorder()
			m.Handler().ServeHTTP(answer, httptest.NewRequest(method, path, strings.NewReader(body)))
			return answer.Code
		}
		relay, err := cluster.Encode(cluster.Relay{Manager: "m2"})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			manager, method, path, body string
			want                        int
		}{
			{"m1", "POST", "/v1/relay", string(relay), http.StatusNoContent},
			{"m2", "POST", "/v1/relay", string(relay), http.StatusServiceUnavailable},
			{"m1", "POST", "/v1/relay", "nonsense", http.StatusBadRequest},
			{"m1", "GET", "/v1/relay", "", http.StatusMethodNotAllowed},
			{"m1", "POST", "/v1/logs", strings.Repeat("x", maxLogsBody+1), http.StatusRequestEntityTooLarge},
			{"m1", "POST", "/v1/logs", "\xa1\x01\x62n1", http.StatusNotFound},
			{"m1", "POST", "/v1/else", "", http.StatusNotFound},
		} {
			if got := ask(w.managers[c.manager], c.method, c.path, c.body); got != c.want {
				t.Errorf("%s %s on %s: %d, want %d", c.method, c.path, c.manager, got, c.want)
			}
		}
	})
}

// A manager that stops tells what it knows first.
func TestRun_TellsLastNewsWhenItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		w.addNode("n1")
		w.addTask("t1", "n1")
		a := w.connect("n1", "m2")
		w.cut("m2", true)
		a.report("t1", cluster.StateRunning, "")
		w.cut("m2", false)
		w.managers["m2"].stop()
		<-w.managers["m2"].ran
		synctest.Wait()
		if got := w.task("t1").Status.State; got != cluster.StateRunning {
			t.Fatalf("task is %s", got)
		}
	})
}

func TestLead_EndsAndAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		m := w.now()
		w.lead("")
		if _, err := m.leading().take(t.Context(), cluster.Relay{}); !errors.Is(err, cluster.ErrNotLeader) {
			t.Fatalf("take: %v", err)
		}
		if err := m.replica.Update(t.Context(), func(*store.Tx) error { return nil }); !errors.Is(err, cluster.ErrNotLeader) {
			t.Fatalf("update: %v", err)
		}
	})
}

// More news than one entry may hold are written in several.
func TestIntake_WritesLargeBatchesInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		b := &batch{}
		for i := range 41 {
			nodeID := fmt.Sprint("n", i)
			w.addNode(nodeID)
			b.news = append(b.news, cluster.NodeNews{NodeID: nodeID, Description: swarm.NodeDescription{Hostname: strings.Repeat("x", maxDescription)}})
			b.states = append(b.states, liveness.Change{NodeID: nodeID, State: cluster.NodeDown, Message: liveness.MessageDead})
		}
		entries := w.journal.count()
		if err := w.now().leading().write(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		for i := range 41 {
			if node := w.node(fmt.Sprint("n", i)); node.Status.State != cluster.NodeDown || len(node.Description.Hostname) != maxDescription {
				t.Errorf("node %d is %s", i, node.Status.State)
			}
		}
		if got := w.journal.count() - entries; got < 2 || got > 8 {
			t.Errorf("%d entries", got)
		}
	})
}
