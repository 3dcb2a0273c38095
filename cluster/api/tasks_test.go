package api

import (
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

func TestTasks(t *testing.T) {
	b := newBench(t)
	web := b.create(spec("web", func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"tier": "front"} }))
	db := b.create(spec("db"))
	b.addTask(1, web, 1, 1, func(task *cluster.Task) {
		task.Generic = []cluster.Claim{{Kind: "gpu", Names: []string{"a", "b"}}, {Kind: "ssd", Count: 2}}
		task.Status.Ports = "32768:53/udp,8080:80/tcp"
	})
	b.addTask(2, web, 2, 2, func(task *cluster.Task) {
		task.Desired = cluster.StateShutdown
		task.Status = cluster.TaskStatus{State: cluster.StateFailed, Err: "task: non-zero exit (137)", ContainerID: "dead", ExitCode: 137}
	})
	b.addTask(3, db, 1, 2)
	b.addTask(4, db, 2, 0, func(task *cluster.Task) {
		task.NodeID = ""
		task.Status = cluster.TaskStatus{State: cluster.StatePending, Message: "pending task scheduling", Err: "no suitable node"}
	})
	b.addTask(5, web, 3, 2, func(task *cluster.Task) { // Only its addresses rest.
		task.Desired, task.Status.State = cluster.StateRemove, cluster.StateShutdown
	})
	b.do("GET", "/tasks/"+taskID(5), nil).want(t, 404, "not found")
	b.do("GET", "/tasks/"+taskID(5)+"/logs?stdout=1", nil).want(t, 404, "not found")
	b.do("GET", "/tasks/web.3."+taskID(5), nil).want(t, 404, "not found")
	for filter, want := range map[string]int{
		``: 4, `{"service":["web"]}`: 2, `{"service":{"` + web[:10] + `":true}}`: 2, `{"service":["web","db"]}`: 4, `{"node":["n2"]}`: 2,
		`{"service":["web"],"node":["n2"]}`: 1, `{"desired-state":["running"]}`: 3, `{"desired-state":["shutdown","running"]}`: 4, `{"desired-state":["accepted"]}`: 0,
		`{"label":["tier=front"]}`: 2, `{"name":["web.1"]}`: 1, `{"name":["web."]}`: 2, `{"id":["` + taskID(3) + `"]}`: 1, `{"runtime":["container"]}`: 4, `{"runtime":["plugin"]}`: 0,
		`{"_up-to-date":{"true":true},"service":{"` + web + `":true}}`: 2,
	} {
		var tasks []swarm.Task
		b.do("GET", "/tasks?filters="+filter, nil).want(t, 200, "").into(t, &tasks)
		if len(tasks) != want {
			t.Errorf("%s: %d tasks, want %d", filter, len(tasks), want)
		}
	}
	b.do("GET", `/tasks?filters={"service":["none"]}`, nil).want(t, 404, "service none not found")
	b.do("GET", `/tasks?filters={"node":["none"]}`, nil).want(t, 404, "node none not found")
	b.do("GET", `/tasks?filters={"desired-state":["tired"]}`, nil).want(t, 400, "Invalid desired-state filter: 'tired'")
	b.do("GET", `/tasks?filters={"mode":["x"]}`, nil).want(t, 400, "invalid filter 'mode'")

	var task swarm.Task
	b.do("GET", "/tasks/"+taskID(2), nil).want(t, 200, "").into(t, &task)
	if task.Slot != 2 || task.NodeID != nodeID(2) || task.ServiceID != web || task.DesiredState != "shutdown" || task.Status.State != "failed" ||
		task.Status.ContainerStatus.ExitCode != 137 || task.Spec.ContainerSpec.Image != "timecheck:1.0" || task.Version.Index == 0 || task.Status.Timestamp.IsZero() {
		t.Fatalf("%+v", task)
	}
	b.do("GET", "/tasks/"+taskID(1), nil).want(t, 200, `"GenericResources":[{"NamedResourceSpec":{"Kind":"gpu","Value":"a"}},{"NamedResourceSpec":{"Kind":"gpu","Value":"b"}},{"DiscreteResourceSpec":{"Kind":"ssd","Value":2}}]`)
	b.do("GET", "/tasks/"+taskID(1), nil).want(t, 200, `"PortStatus":{"Ports":[{"Protocol":"udp","TargetPort":53,"PublishedPort":32768,"PublishMode":"host"},{"Protocol":"tcp","TargetPort":80,"PublishedPort":8080,"PublishMode":"host"}]}`)
	b.do("GET", "/tasks/web.2."+taskID(2), nil).want(t, 200, taskID(2))
	b.do("GET", "/tasks/"+taskID(4), nil).want(t, 200, `"State":"pending"`)
	b.do("GET", "/tasks/task", nil).want(t, 400, "ambiguous (4 matches found)")
	b.do("GET", "/tasks/zzz", nil).want(t, 404, "task zzz not found")

	// After scaling the tasks are still up to date; after a change of the image they
	// are not.
	s := b.inspect("web").Spec
	s.Mode.Replicated.Replicas = ptr(uint64(2))
	b.post("web", "", s).want(t, 200, "")
	count := func() int {
		var tasks []swarm.Task
		b.do("GET", `/tasks?filters={"_up-to-date":["true"],"service":["web"]}`, nil).want(t, 200, "").into(t, &tasks)
		return len(tasks)
	}
	if got := count(); got != 2 {
		t.Fatalf("%d up to date after scaling", got)
	}
	s.TaskTemplate.ContainerSpec.Image = "timecheck:2.0"
	b.post("web", "", s).want(t, 200, "")
	if got := count(); got != 0 {
		t.Fatalf("%d up to date after a new image", got)
	}
}
