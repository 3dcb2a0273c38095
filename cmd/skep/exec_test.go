package main

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

func TestServiceExec_ChoosesTheTask(t *testing.T) {
	task := func(id string, slot int, node string, state swarm.TaskState) swarm.Task {
		task := swarm.Task{ID: id, Slot: slot, NodeID: node, DesiredState: swarm.TaskStateRunning}
		task.Status.State = state
		return task
	}
	old := task("b1old", 1, "n1", swarm.TaskStateRunning)
	old.DesiredState = swarm.TaskStateShutdown
	job := task("job1", 9, "n1", swarm.TaskStateRunning)
	job.DesiredState = swarm.TaskStateComplete
	tasks := []swarm.Task{
		task("c3run", 3, "n3", swarm.TaskStateRunning), old, task("b1dead", 1, "n1", swarm.TaskStateFailed), task("b2run", 2, "n2", swarm.TaskStateRunning),
		task("g1run", 0, "n7", swarm.TaskStatePreparing), task("1abcdef", 4, "n4", swarm.TaskStateRunning), job,
	}
	for which, want := range map[string]string{
		"": "b2run", "2": "b2run", "3": "c3run", "web.3": "c3run", "web.3.c3run": "c3run", "c3run": "c3run", "c3": "c3run", "b1old": "b1old", "b1d": "b1dead",
		"web.1.b1dead": "b1dead", "1ab": "1abcdef", "n4": "1abcdef", "web.n4": "1abcdef", "9": "job1",
		"1": "no running task 1", "5": "no running task 5", "n7": "no running task n7", "db.3": "no running task db.3", "web.3.none": "no running task", "web": "no running task",
	} {
		got, err := taskOf("web", tasks, which)
		if err != nil && !strings.Contains(err.Error(), want) || err == nil && got.ID != want {
			t.Errorf("%q: %s, %v; want %s", which, got.ID, err, want)
		}
	}
}

func TestServiceExec_AsksForTheContainer(t *testing.T) {
	node := webNode(t)
	node.answer("GET /tasks", `[{"ID":"t1","Slot":1,"NodeID":"n1","DesiredState":"running","Status":{"State":"running","ContainerStatus":{"ContainerID":"c1"}}}]`)
	node.answer("GET /tasks/t2", `{"ID":"t2","Status":{"State":"pending"}}`)
	node.answer("GET /containers/c1/json", `{"Id":"c1"}`)
	node.answer("POST /containers/c1/exec", `{"Id":"e1.n1"}`)
	node.answer("POST /exec/e1.n1/start", ``)
	env := []string{"SKEP_HOST=" + node.url}
	if r := skep(t, env, "service", "exec", "-d", "-e", "A=b", "web", "sh", "-c", "true"); r.status != 0 {
		t.Fatalf("%+v", r)
	}
	if body := node.last(); len(node.asked("/exec/e1.n1/start")) != 1 || !strings.Contains(body, `"Detach":true`) {
		t.Errorf("started with %s", body)
	}
	for says, args := range map[string][]string{
		"service web has no running task 2":       {"--task", "2", "web", "sh"},
		"task t2 has no container: it is pending": {"t2", "sh"},
		"there is no service and no task none":    {"none", "sh"},
		"requires at least 2 arguments":           {"web"},
	} {
		if r := skep(t, env, append([]string{"service", "exec"}, args...)...); r.status == 0 || !strings.Contains(r.stderr, says) {
			t.Errorf("%q: %+v", args, r)
		}
	}
}
