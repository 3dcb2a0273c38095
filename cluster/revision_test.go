package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

func TestRollbackServiceTo_RestoresWhatTasksRunAndTheLabels(t *testing.T) {
	now := time.Unix(1, 0)
	spec := changeSpec("app:1", 1)
	spec.Labels = map[string]string{"tier": "one"}
	spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80, PublishedPort: 8080}}}
	first := CreateService("s", spec, "a1")
	second := UpdateService(first.Service, first.Revision, nil, changeSpec("app:2", 1), "a2")
	spec = changeSpec("app:3", 7)
	spec.UpdateConfig = &swarm.UpdateConfig{Parallelism: 3}
	third := UpdateService(second.Service, second.Revision, nil, spec, "a3")

	back, err := RollbackServiceTo(third.Service, first.Revision, "", now)
	if err != nil {
		t.Fatal(err)
	}
	s := back.Service
	if s.Revision != 1 || s.LastRevision != 3 || s.Spec.TaskTemplate.ContainerSpec.Image != "app:1" || s.Spec.Labels["tier"] != "one" || len(s.Spec.EndpointSpec.Ports) != 1 {
		t.Errorf("what is of the revision: %+v", s)
	}
	if s.Replicas() != 7 || s.Spec.UpdateConfig.Parallelism != 3 || s.Spec.Name != "web" {
		t.Errorf("what isn't: %+v", s.Spec)
	}
	if r := back.Rollout; r.State != swarm.UpdateStateRollbackStarted || r.Revision != 1 || r.Message != "manually requested rollback to revision 1" || back.Revision != nil {
		t.Errorf("rollout %+v, revision %+v", r, back.Revision)
	}
	if third.Service.Revision != 3 || third.Service.Spec.Labels != nil {
		t.Error("the old service was changed")
	}
	// A plain rollback returns.
	forth, err := RollbackService(s, third.Revision, "", now)
	if err != nil || forth.Service.Revision != 3 || forth.Service.Spec.TaskTemplate.ContainerSpec.Image != "app:3" || forth.Service.Spec.Labels != nil {
		t.Errorf("back again: %+v, %v", forth.Service, err)
	}
	if again, err := RollbackServiceTo(third.Service, first.Revision, "new", now); err != nil || again.Revision.Auth != "new" || first.Revision.Auth != "a1" {
		t.Errorf("credentials: %+v, %v", again, err)
	}
}

func TestRollbackServiceTo_Refuses(t *testing.T) {
	first := CreateService("s", changeSpec("app:1", 1), "")
	if _, err := RollbackServiceTo(first.Service, first.Revision, "", time.Unix(1, 0)); !errors.Is(err, ErrPrecondition) {
		t.Errorf("to where it is: %v", err)
	}
	job := *first.Service
	job.Spec.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{}}
	if _, err := RollbackServiceTo(&job, &Revision{Number: 7}, "", time.Unix(1, 0)); !errors.Is(err, ErrUnsupported) {
		t.Errorf("a job: %v", err)
	}
}

func TestRevisionHistory(t *testing.T) {
	for value, want := range map[string]int{"": 10, "0": 0, "3": 3, "1000": 1000, "1001": 10, "-1": 10, "many": 10} {
		spec := swarm.Spec{Annotations: swarm.Annotations{Labels: map[string]string{LabelRevisionHistory.Name: value}}}
		if got := RevisionHistory(spec); got != want {
			t.Errorf("%q: %d, want %d", value, got, want)
		}
	}
	if got := RevisionHistory(swarm.Spec{}); got != 10 {
		t.Errorf("without the label: %d", got)
	}
}
