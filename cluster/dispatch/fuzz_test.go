package dispatch

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// FuzzNews has the agent of node n1 send frames of any content after a good Hello,
// and manager m2 a relay of any content. Whatever they say, the session ends or goes
// on, and nothing is written but the state of n1 and of its task; of another node's
// only if the manager says so. All managers have the same afterwards.
func FuzzNews(f *testing.F) {
	report := cluster.Report{TaskID: "t1", Status: cluster.TaskStatus{State: cluster.StateFailed, Message: "m", Err: "e", ContainerID: "c", ExitCode: 1}}
	foreign := report
	foreign.TaskID = "t2"
	description := swarm.NodeDescription{Hostname: "other", Engine: swarm.EngineDescription{Labels: map[string]string{"a": "b"}}}
	relay := cluster.Relay{Manager: "m2", Epoch: "e", Number: 1, Sessions: []string{"n2"}, Leases: []string{"n2"}, EngineAway: []string{"n2"}, Stopped: []string{"n1"},
		Nodes: []cluster.NodeNews{{NodeID: "n2", Description: description, Addr: "10.0.0.2"}}, Reports: []cluster.NodeReport{{NodeID: "n2", Report: foreign}, {NodeID: "n1", Report: foreign}}}
	told, err := cluster.Encode(relay)
	if err != nil {
		f.Fatal(err)
	}
	asked, err := cluster.Encode(logsBody{NodeID: "n1", TaskID: "t1"})
	if err != nil {
		f.Fatal(err)
	}
	for _, row := range [][]cluster.FromAgent{
		{}, {{Reports: []cluster.Report{report, foreign}, EngineAway: true}}, {{Describe: &description}, {Lease: 7}, {Leaving: true}},
		{{Hello: &cluster.Hello{}}}, {{Logs: &cluster.LogChunk{ID: 1, Lines: []cluster.LogLine{{Data: []byte("x")}}, Done: true}}},
	} {
		var frames bytes.Buffer
		for _, message := range row {
			if err := cluster.WriteFrame(&frames, message); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(frames.Bytes(), told)
		f.Add(append([]byte{0, 0, 0, 5}, frames.Bytes()...), asked)
	}
	f.Fuzz(func(t *testing.T, frames, body []byte) {
		if len(frames) > 64<<10 {
			t.Skip("it takes long and shows nothing new")
		}
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, 2)
			for i, node := range []string{"n1", "n2"} {
				w.addNode(node)
				w.addTask([]string{"t1", "t2"}[i], node)
			}
			a := w.connect("n1", "m1")
			before := w.now().replica.View()
			a.conn.SetWriteDeadline(time.Now().Add(time.Second))
			a.conn.Write(frames) // It fails where the session has ended.
			synctest.Wait()
			after := w.now().replica.View()
			w.unharmed(t, before, after)
			if was, is := before.Task("t2"), after.Task("t2"); is != was {
				t.Errorf("the agent of n1 made task t2 of n2 %+v, which was %+v", is, was)
			}
			if was, is := before.Node("n2"), after.Node("n2"); is != was {
				t.Errorf("the agent of n1 made node n2 %+v, which was %+v", is, was)
			}
			for _, path := range []string{"/v1/relay", "/v1/logs"} {
				answer := httptest.NewRecorder()
				served := make(chan struct{})
				r := httptest.NewRequestWithContext(t.Context(), "POST", path, bytes.NewReader(body))
				go func() { defer close(served); w.now().Handler().ServeHTTP(answer, r) }()
				synctest.Wait()
				a.close() // Which ends what waits for a log of it.
				<-served
				switch answer.Code {
				case http.StatusOK, http.StatusNoContent, http.StatusBadRequest, http.StatusNotFound, http.StatusForbidden:
				default:
					t.Errorf("%s: %d %s", path, answer.Code, answer.Body)
				}
			}
			time.Sleep(5 * time.Second)
			w.unharmed(t, before, w.now().replica.View())
			if one, other := w.managers["m1"].replica.View(), w.managers["m2"].replica.View(); one.Digest() != other.Digest() {
				t.Errorf("two managers have different things, at %d and %d", one.Index(), other.Index())
			}
		})
	})
}

// unharmed checks that news changed nothing that isn't an agent's to say.
func (w *world) unharmed(t *testing.T, before, after store.View) {
	t.Helper()
	if before.NodeCount() != after.NodeCount() || after.Task("t1") == nil || after.Task("t2") == nil || after.Revision("s", 1) != before.Revision("s", 1) {
		t.Errorf("something is gone or has come: %d nodes, which were %d", after.NodeCount(), before.NodeCount())
	}
	for was := range before.Nodes() {
		if is := after.Node(was.ID); is == nil || is.Role != was.Role || is.Spec.Role != was.Spec.Role || is.ManagerAddr != was.ManagerAddr {
			t.Errorf("node %s became %+v", was.ID, is)
		}
		for old := range before.TasksOfNode(was.ID) {
			task := *after.Task(old.ID)
			if task.Status.State < old.Status.State {
				t.Errorf("task %s went back from %s to %s", task.ID, old.Status.State, task.Status.State)
			}
			task.Status, task.Version, task.UpdatedAt, task.RunningAt, task.Generic = old.Status, old.Version, old.UpdatedAt, old.RunningAt, old.Generic
			if a, _ := cluster.Encode(task); !bytes.Equal(a, must(cluster.Encode(*old))) {
				t.Errorf("task %s became %+v", task.ID, after.Task(old.ID))
			}
		}
	}
}

func must(data []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return data
}
