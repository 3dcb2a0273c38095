package api

import (
	"testing"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// mode makes a service of another mode.
func mode(m swarm.ServiceMode) func(*swarm.ServiceSpec) {
	return func(s *swarm.ServiceSpec) { s.Mode = m }
}

// listed is the one service of that mode, with its status.
func (b *bench) listed(mode string) swarm.Service {
	b.t.Helper()
	var services []swarm.Service
	b.do("GET", `/services?status=true&filters={"mode":["`+mode+`"]}`, nil).want(b.t, 200, "").into(b.t, &services)
	if len(services) != 1 || services[0].ServiceStatus == nil {
		b.t.Fatalf("%d services with the mode %s: %+v", len(services), mode, services)
	}
	return services[0]
}

func state(desired, observed cluster.State) func(*cluster.Task) {
	return func(t *cluster.Task) { t.Desired, t.Status.State = desired, observed }
}

func TestGlobalService(t *testing.T) {
	b := newBench(t)
	id := b.create(spec("agent", mode(swarm.ServiceMode{Global: &swarm.GlobalService{}})))
	b.addTask(1, id, 0, 1)
	b.addTask(2, id, 0, 2, state(cluster.StateRunning, cluster.StatePending))
	b.addTask(3, id, 0, 3, state(cluster.StateShutdown, cluster.StateRunning)) // its node was drained
	shown := b.listed("global")
	if shown.ID != id || shown.Spec.Mode.Global == nil || shown.JobStatus != nil || *shown.ServiceStatus != (swarm.ServiceStatus{RunningTasks: 2, DesiredTasks: 2}) {
		t.Errorf("%+v, status %+v", shown, shown.ServiceStatus)
	}
	b.do("GET", "/tasks/agent."+nodeID(2)+"."+taskID(2), nil).want(t, 200, taskID(2))
	// A command that waits for the service waits for what is to run.
	var tasks []swarm.Task
	b.do("GET", `/tasks?filters={"_up-to-date":["true"],"service":["agent"]}`, nil).want(t, 200, "").into(t, &tasks)
	if len(tasks) != 2 || tasks[0].JobIteration != nil || tasks[0].Slot != 0 {
		t.Errorf("up to date are %+v", tasks)
	}
	changed := shown.Spec
	changed.Mode = swarm.ServiceMode{Replicated: &swarm.ReplicatedService{}}
	b.post(id, "", changed).want(t, 501, "service mode change is not allowed")
}

func TestReplicatedJob(t *testing.T) {
	b := newBench(t)
	id := b.create(spec("sums", mode(swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{}})))
	first := b.inspect(id)
	if job := first.Spec.Mode.ReplicatedJob; *job.MaxConcurrent != 1 || *job.TotalCompletions != 1 {
		t.Errorf("defaults are %d, %d", *job.MaxConcurrent, *job.TotalCompletions)
	}
	if first.JobStatus == nil || first.JobStatus.JobIteration.Index != 1 || first.JobStatus.LastExecution.IsZero() {
		t.Fatalf("job status %+v", first.JobStatus)
	}
	b.addTask(1, id, 1, 1, state(cluster.StateComplete, cluster.StateComplete))
	// An update that changes nothing is a new iteration; what the old one did no longer counts.
	b.post(id, "", first.Spec).want(t, 200, "")
	more := b.inspect(id).Spec
	more.Mode.ReplicatedJob = &swarm.ReplicatedJob{MaxConcurrent: ptr(uint64(3))}
	b.post(id, "", more).want(t, 200, "")
	shown := b.listed("replicated-job")
	if *shown.Spec.Mode.ReplicatedJob.TotalCompletions != 3 || shown.JobStatus.JobIteration.Index != 3 || shown.JobStatus.LastExecution.Before(first.JobStatus.LastExecution) {
		t.Errorf("%+v, job status %+v", shown.Spec.Mode.ReplicatedJob, shown.JobStatus)
	}
	b.addTask(2, id, 1, 1, state(cluster.StateComplete, cluster.StateComplete))
	b.addTask(3, id, 2, 2, state(cluster.StateComplete, cluster.StateRunning))
	b.addTask(4, id, 3, 2, state(cluster.StateShutdown, cluster.StateComplete)) // its node was lost for a while
	b.addTask(5, id, 3, 3, state(cluster.StateComplete, cluster.StateComplete))
	shown = b.listed("replicated-job")
	if *shown.ServiceStatus != (swarm.ServiceStatus{RunningTasks: 1, DesiredTasks: 3, CompletedTasks: 2}) {
		t.Errorf("status %+v", shown.ServiceStatus)
	}
	var task swarm.Task
	b.do("GET", "/tasks/"+taskID(3), nil).want(t, 200, "").into(t, &task)
	if task.Slot != 1 || task.JobIteration == nil || task.JobIteration.Index != 3 || task.DesiredState != "complete" {
		t.Errorf("%+v", task)
	}
	b.do("GET", "/tasks/sums.1."+taskID(3), nil).want(t, 200, taskID(3))
	var current []swarm.Task
	b.do("GET", `/tasks?filters={"_up-to-date":["true"],"service":["sums"]}`, nil).want(t, 200, "").into(t, &current)
	if len(current) != 4 {
		t.Errorf("%d tasks are of this iteration", len(current))
	}
	// What is shown with defaults can be sent back.
	var full swarm.Service
	b.do("GET", "/services/sums?insertDefaults=true", nil).into(t, &full)
	b.post(id, "", full.Spec).want(t, 200, "")
	b.post(id, "rollback=previous", full.Spec).want(t, 200, "")
	if got := b.inspect(id); got.JobStatus.JobIteration.Index != 5 || got.UpdateStatus != nil {
		t.Errorf("rolled back: %+v, %+v", got.JobStatus, got.UpdateStatus)
	}
}

func TestGlobalJob(t *testing.T) {
	b := newBench(t)
	id := b.create(spec("sweep", mode(swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}})))
	b.addTask(1, id, 0, 1, state(cluster.StateComplete, cluster.StateComplete))
	b.addTask(2, id, 0, 2, state(cluster.StateComplete, cluster.StateRunning))
	b.addTask(3, id, 0, 3, state(cluster.StateShutdown, cluster.StateFailed))
	b.addTask(4, id, 0, 3, state(cluster.StateReady, cluster.StateReady)) // in its restart delay
	shown := b.listed("global-job")
	if shown.JobStatus == nil || *shown.ServiceStatus != (swarm.ServiceStatus{RunningTasks: 1, DesiredTasks: 1, CompletedTasks: 1}) {
		t.Errorf("%+v, status %+v", shown.JobStatus, shown.ServiceStatus)
	}
	b.addTask(5, id, 0, 3, state(cluster.StateComplete, cluster.StateAssigned))
	if got := *b.listed("global-job").ServiceStatus; got != (swarm.ServiceStatus{RunningTasks: 1, DesiredTasks: 2, CompletedTasks: 1}) {
		t.Errorf("status %+v", got)
	}
}

func TestEvents_ReplicasOfReplicatedServicesOnly(t *testing.T) {
	b := newBench(t)
	b.record()
	id := b.create(spec("sums", mode(swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{}})))
	more := b.inspect(id).Spec
	more.Mode.ReplicatedJob = &swarm.ReplicatedJob{MaxConcurrent: ptr(uint64(3))}
	b.post(id, "", more).want(t, 200, "")
	web := b.create(spec("web"))
	scaled := b.inspect(web).Spec
	scaled.Mode.Replicated.Replicas = ptr(uint64(7))
	b.post(web, "", scaled).want(t, 200, "")
	var scalings []events.Message
	until(t, "the events", func() bool {
		scalings = nil
		for _, m := range b.server.events.kept_() {
			if m.Type == events.ServiceEventType && m.Action == events.ActionUpdate {
				scalings = append(scalings, m)
			}
		}
		return len(scalings) == 2
	})
	if got := scalings[0].Actor.Attributes["replicas.new"]; got != "" {
		t.Errorf("a job has %s replicas", got)
	}
	if got := scalings[1].Actor.Attributes["replicas.new"]; got != "7" {
		t.Errorf("%q replicas", got)
	}
}
