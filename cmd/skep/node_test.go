package main

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

const (
	activeN2  = `{"ID":"n2id","Version":{"Index":7},"Spec":{"Role":"worker","Availability":"active"},"Description":{"Hostname":"n2"},"Status":{"State":"ready"}}`
	drainedN2 = `{"ID":"n2id","Version":{"Index":8},"Spec":{"Role":"worker","Availability":"drain"},"Description":{"Hostname":"n2"},"Status":{"State":"ready"}}`
	twoLeft   = `[{"ID":"task1","ServiceID":"web1","Slot":1,"NodeID":"n2id","DesiredState":"running","Status":{"State":"running"}},
		{"ID":"task2","ServiceID":"db1","Slot":1,"NodeID":"n2id","DesiredState":"shutdown","Status":{"State":"running"}},
		{"ID":"task3","ServiceID":"db1","Slot":2,"NodeID":"n2id","DesiredState":"shutdown","Status":{"State":"failed"}}]`
	oneLeft = `[{"ID":"task1","ServiceID":"web1","Slot":1,"NodeID":"n2id","DesiredState":"running","Status":{"State":"running"}}]`
	noLeft  = `[{"ID":"task1","ServiceID":"web1","Slot":1,"NodeID":"n2id","DesiredState":"shutdown","Status":{"State":"shutdown"}}]`
)

func drainNode(t *testing.T) (*fakeNode, []string) {
	n := newFakeNode(t)
	n.answer("GET /nodes/n2", activeN2)
	n.answer("GET /nodes/n2id", drainedN2)
	n.answer("POST /nodes/n2id/update", "")
	n.answer("GET /services/web1", `{"ID":"web1","Spec":{"Name":"web"}}`)
	n.answer("GET /services/db1", `{"ID":"db1","Spec":{"Name":"db"}}`)
	return n, []string{"SKEP_HOST=" + n.url}
}

func TestNodeDrain_SetsAvailability(t *testing.T) {
	node, env := drainNode(t)
	if r := skep(t, env, "node", "drain", "n2"); r.status != 0 || r.stdout != "n2\n" {
		t.Fatalf("%+v", r)
	}
	set := node.asked("/nodes/n2id/update")
	if len(set) != 1 || set[0].URL.RawQuery != "version=7" || !strings.Contains(node.last(), `"Availability":"drain"`) {
		t.Fatalf("asked %+v %s", set, node.last())
	}
	if len(node.asked("/tasks")) != 0 {
		t.Error("it looked at tasks without --wait")
	}
	// What is so already isn't written again.
	if r := skep(t, env, "node", "activate", "n2"); r.status != 0 || len(node.asked("/update")) != 1 {
		t.Errorf("activate: %+v", r)
	}
	node.answer("GET /nodes/n2", drainedN2)
	if r := skep(t, env, "node", "activate", "n2"); r.status != 0 || !strings.Contains(node.last(), `"Availability":"active"`) {
		t.Errorf("activate: %+v", r)
	}
	if r := skep(t, env, "node", "drain", "n9"); r.status != 1 {
		t.Errorf("a node that isn't there: %+v", r)
	}
}

// A drain for a while is asked for as a duration, which the leader adds to its time.
func TestNodeDrain_ForAWhile(t *testing.T) {
	node, env := drainNode(t)
	node.answer("POST /skep/v1/nodes/n2id/drain", `{"NodeID":"n2id","Until":"2030-01-02T03:04:05Z"}`)
	if r := skep(t, env, "node", "drain", "--for", "30m", "n2"); r.status != 0 || r.stdout != "n2: drained until 2030-01-02T03:04:05Z\n" {
		t.Fatalf("%+v", r)
	}
	if asked := node.asked("/skep/v1/nodes/n2id/drain"); len(asked) != 1 || asked[0].URL.RawQuery != "for=30m0s" || len(node.asked("/update")) != 0 {
		t.Errorf("asked %+v", asked)
	}
	// With --wait, it waits no longer than the node is drained.
	node.answer("GET /tasks", oneLeft)
	if r := skep(t, env, "node", "drain", "--for", "700ms", "--wait", "n2"); r.status != 1 || !strings.Contains(r.stderr, "1 task left after 700ms") {
		t.Errorf("%+v", r)
	}
	for _, length := range []string{"0s", "-1m", "9000h"} {
		if r := skep(t, env, "node", "drain", "--for", length, "n2"); r.status != 1 || !strings.Contains(r.stderr, "give a time such as 30m, at most 8784h0m0s") {
			t.Errorf("--for %s: %+v", length, r)
		}
	}
	// Drained again without --for it is drained for good, and shows so.
	const timed = `{"ID":"n2id","Version":{"Index":9},"Spec":{"Role":"worker","Availability":"drain","Labels":{"skep.drain.until":"2030-01-02T03:04:05Z","zone":"a"}},"Description":{"Hostname":"n2"},"Status":{"State":"ready"}}`
	node.answer("GET /nodes", "["+timed+"]")
	node.answer("GET /info", "{}")
	if r := skep(t, env, "node", "ls"); r.status != 0 || !strings.Contains(r.stdout, "Drain until 2030-01-02 03:04:05 +0000") {
		t.Errorf("ls: %+v", r)
	}
	if r := skep(t, env, "node", "ls", "--format", "{{.Hostname}} {{.Availability}}"); r.status != 0 || r.stdout != "n2 Drain\n" {
		t.Errorf("ls for programs: %+v", r)
	}
	node.answer("GET /nodes/n2", timed)
	if r := skep(t, env, "node", "drain", "n2"); r.status != 0 || strings.Contains(node.last(), "skep.drain") || !strings.Contains(node.last(), `"Labels":{"zone":"a"}`) {
		t.Errorf("for good: %+v, it wrote %s", r, node.last())
	}
}

func TestNodeDrain_WaitsUntilEmpty(t *testing.T) {
	node, env := drainNode(t)
	// Between two looks there is no leader for a while.
	node.answer("GET /tasks", twoLeft, `{"message":"The swarm does not have a leader."}`, oneLeft, oneLeft, noLeft)
	r := skep(t, env, "node", "drain", "--wait", "--timeout", "1m", "n2")
	want := "n2\nn2: 2 tasks left (db 1, web 1)\nn2: 1 task left (web 1)\nn2: empty\n"
	if r.status != 0 || r.stdout != want {
		t.Errorf("status %d, %s\n%s\nwant\n%s", r.status, r.stderr, r.stdout, want)
	}
}

func TestNodeDrain_SaysWhatIsLeftAtTheTimeout(t *testing.T) {
	node, env := drainNode(t)
	node.answer("GET /tasks", twoLeft)
	r := skep(t, env, "node", "drain", "-w", "--timeout", "700ms", "n2")
	if r.status != 1 {
		t.Errorf("status %d", r.status)
	}
	for _, line := range []string{
		"2 tasks left after 700ms:",
		"  web.1 (task task1) on n2: its turn hasn't come yet",
		"  db.1 (task task2) on n2: it is stopping",
	} {
		if !strings.Contains(r.stderr, line+"\n") {
			t.Errorf("no line %q in\n%s", line, r.stderr)
		}
	}
}

func TestNodeDrain_RefusesTimeoutsWithoutSense(t *testing.T) {
	node, env := drainNode(t)
	for _, args := range [][]string{{"--timeout", "1m"}, {"--wait", "--timeout", "-1s"}, {}} {
		args = append([]string{"node", "drain"}, args...)
		if len(args) > 2 {
			args = append(args, "n2")
		}
		if r := skep(t, env, args...); r.status != 1 || r.stderr == "" {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if len(node.asked("/update")) != 0 {
		t.Error("a refused command drained the node")
	}
}

func TestWhyLeft(t *testing.T) {
	drained := swarm.Node{ID: "n2", Spec: swarm.NodeSpec{Availability: swarm.NodeAvailabilityDrain}, Status: swarm.NodeStatus{State: swarm.NodeStateReady}}
	active, down := drained, drained
	active.Spec.Availability = swarm.NodeAvailabilityActive
	down.Status.State = swarm.NodeStateDown
	task := func(id string, slot int, node string, desired, state swarm.TaskState, err string) swarm.Task {
		return swarm.Task{ID: id, Slot: slot, NodeID: node, DesiredState: desired, Status: swarm.TaskStatus{State: state, Err: err}}
	}
	mine := task("a", 1, "n2", swarm.TaskStateRunning, swarm.TaskStateRunning, "")
	stopping := task("a", 1, "n2", swarm.TaskStateShutdown, swarm.TaskStateRunning, "")
	for _, c := range []struct {
		node   swarm.Node
		task   swarm.Task
		beside []swarm.Task
		want   string
	}{
		{active, mine, nil, "the node's availability is active again"},
		{down, mine, nil, "the node is down, so nobody can tell whether it still runs"},
		{drained, stopping, nil, "it is stopping"},
		{drained, mine, []swarm.Task{mine}, "its turn hasn't come yet"},
		{drained, mine, []swarm.Task{mine, task("b", 2, "n1", swarm.TaskStateRunning, swarm.TaskStateRunning, "")}, "its turn hasn't come yet"},
		{drained, mine, []swarm.Task{mine, task("b", 2, "n1", swarm.TaskStateReady, swarm.TaskStatePreparing, "no such image")}, "its turn comes after task b, which is preparing: no such image"},
		{drained, mine, []swarm.Task{mine, task("b", 1, "n1", swarm.TaskStateRunning, swarm.TaskStateStarting, "")}, "it goes on until its replacement runs: task b, which is starting"},
		{drained, mine, []swarm.Task{mine, task("b", 2, "", swarm.TaskStateReady, swarm.TaskStatePending, "no suitable node")}, "its turn comes after task b, which is pending: no suitable node"},
	} {
		if got := whyLeft(c.node, c.task, c.beside); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
