package api

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// TestWhy explains services in all kinds of trouble; testdata/why.txt has the words.
func TestWhy(t *testing.T) {
	b := newBench(t)
	replicas := func(n uint64) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) { s.Mode.Replicated.Replicas = &n }
	}
	fails := func(text string, at int64) func(*cluster.Task) {
		return func(task *cluster.Task) {
			task.Desired = cluster.StateShutdown
			task.Status = cluster.TaskStatus{State: cluster.StateFailed, Err: text, Since: cluster.At(time.Unix(at, 0))}
		}
	}
	waits := func(text string) func(*cluster.Task) {
		return func(task *cluster.Task) {
			task.NodeID, task.Status = "", cluster.TaskStatus{State: cluster.StatePending, Message: "pending task scheduling", Err: text}
		}
	}
	b.create(spec("well"))
	b.addTask(1, b.inspect("well").ID, 1, 2)

	web := b.create(spec("web", replicas(5), func(s *swarm.ServiceSpec) {
		s.Labels["skep.fence"] = "true"
		s.TaskTemplate.Placement = &swarm.Placement{
			Constraints: []string{"node.role==worker", "node.hostname!=n3"},
			Platforms:   []swarm.Platform{{Architecture: "s390x", OS: "linux"}},
		}
	}))
	b.addTask(10, web, 1, 2)
	b.addTask(11, web, 2, 3)
	for i := range uint32(2) {
		b.addTask(12+int(i), web, 3+i, 1, waits("no suitable node (insufficient memory on 2 nodes)"))
	}
	b.addTask(20, web, 1, 2, fails("task: non-zero exit (1)", 1_700_000_000))
	b.addTask(21, web, 1, 2, fails("task: non-zero exit (1)", 1_700_000_060))
	b.addTask(22, web, 2, 3, fails("No such image: app:9", 1_700_000_030))
	b.update(func(tx *store.Tx) error {
		node := *tx.Node(nodeID(3))
		node.Status.State, node.Status.Message = cluster.NodeDown, "heartbeat failure"
		if err := tx.Put(&node); err != nil {
			return err
		}
		return tx.Put(&cluster.Rollout{
			ServiceID: web, State: swarm.UpdateStatePaused, Revision: 1, Total: 5, StartedAt: time.Unix(1_700_000_000, 0),
			Message: "update paused due to failure or early termination of task t",
		})
	})
	// Its old tasks run, but not what it is to be.
	late := b.create(spec("late"))
	b.addTask(30, late, 1, 2)
	b.update(func(tx *store.Tx) error {
		return tx.Put(&cluster.Rollout{
			ServiceID: late, State: swarm.UpdateStateUpdating, Revision: 1, Total: 1, StartedAt: time.Unix(1_700_000_000, 0),
			Message: "update waits for db to be healthy",
		})
	})
	var text strings.Builder
	for _, name := range []string{"well", "web", "late"} {
		var why cluster.Why
		b.do("GET", "/skep/v1/services/"+name+"/why", nil).want(t, 200, "").into(t, &why)
		text.WriteString(why.String() + "----\n")
	}
	if want, err := os.ReadFile("testdata/why.txt"); err != nil || string(want) != text.String() {
		t.Errorf("%v\n%s", err, text.String())
	}
	b.do("GET", "/skep/v1/services/none/why", nil).want(t, 404, "service none not found")
}

// A task waits for what its message says, whichever word comes first there.
func TestWaitsBecause(t *testing.T) {
	b := newBench(t)
	for _, message := range []string{"waiting for the restart delay to end at 12:00:00 UTC", "waiting until 12:00:00 UTC, when fenced task t1 must have stopped"} {
		task := &cluster.Task{Status: cluster.TaskStatus{State: cluster.StatePending, Message: message}}
		if got := waitsBecause(b.manager.store.View(), task); got != message {
			t.Errorf("%q, want %q", got, message)
		}
	}
}
