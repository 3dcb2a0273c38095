package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

func changeSpec(image string, replicas uint64) swarm.ServiceSpec {
	return swarm.ServiceSpec{
		Annotations:  swarm.Annotations{Name: "web"},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: image}},
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}},
	}
}

func TestUpdateService_NewTaskMakesNewRevision(t *testing.T) {
	created := CreateService("s", changeSpec("app:1", 1), "auth1")
	if created.Service.Revision != 1 || created.Revision.Number != 1 || created.Revision.Auth != "auth1" {
		t.Fatalf("created %+v", created)
	}
	updated := UpdateService(created.Service, created.Revision, nil, changeSpec("app:2", 2), "auth2")
	s := updated.Service
	if s.Revision != 2 || s.LastRevision != 2 || updated.Revision.Number != 2 || updated.Revision.Auth != "auth2" {
		t.Errorf("updated %+v", updated)
	}
	if s.Previous == nil || s.Previous.TaskTemplate.ContainerSpec.Image != "app:1" || s.PreviousRevision != 1 {
		t.Errorf("previous %+v, revision %d", s.Previous, s.PreviousRevision)
	}
	if created.Service.Revision != 1 || created.Service.Previous != nil {
		t.Error("the old service was changed")
	}
}

func TestUpdateService_ScalingMakesNoRollbackTarget(t *testing.T) {
	first := CreateService("s", changeSpec("app:1", 1), "")
	second := UpdateService(first.Service, first.Revision, nil, changeSpec("app:2", 1), "")
	scaled := UpdateService(second.Service, second.Revision, nil, changeSpec("app:2", 7), "")
	s := scaled.Service
	if s.Revision != 2 || s.PreviousRevision != 1 || scaled.Revision != nil {
		t.Errorf("scaled %+v, %+v", s, scaled.Revision)
	}
	if s.Previous.TaskTemplate.ContainerSpec.Image != "app:1" || *s.Previous.Mode.Replicated.Replicas != 7 {
		t.Errorf("previous %+v", s.Previous)
	}
	if *second.Service.Previous.Mode.Replicated.Replicas != 1 {
		t.Error("the old previous spec was changed")
	}
}

func TestUpdateService_AuthAndLabelsKeepTheRevision(t *testing.T) {
	first := CreateService("s", changeSpec("app:1", 1), "old")
	spec := changeSpec("app:1", 1)
	again := UpdateService(first.Service, first.Revision, nil, spec, "new")
	if again.Revision == nil || again.Revision.Number != 1 || again.Revision.Auth != "new" || again.Service.Previous != nil {
		t.Errorf("auth: %+v", again)
	}
	if first.Revision.Auth != "old" {
		t.Error("the old revision was changed")
	}
	spec.Labels = map[string]string{"a": "b"}
	labelled := UpdateService(first.Service, first.Revision, nil, spec, "old")
	if labelled.Revision == nil || labelled.Revision.Number != 1 || labelled.Revision.ServiceLabels["a"] != "b" || labelled.Service.PreviousRevision != 1 {
		t.Errorf("labels: %+v", labelled)
	}
}

// Ports that all nodes publish are the revision's as it is kept, and go back with the spec.
func TestUpdateService_PublishedPortsKeepTheRevision(t *testing.T) {
	first := CreateService("s", changeSpec("app:1", 1), "auth")
	spec := changeSpec("app:1", 1)
	spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80, PublishMode: swarm.PortConfigPublishModeIngress}}}
	next := UpdateService(first.Service, first.Revision, &Rollout{ServiceID: "s", Revision: 1, State: swarm.UpdateStateUpdating}, spec, "auth")
	if next.Service.Revision != 1 || next.Revision == nil || next.Revision.Number != 1 || len(next.Revision.Endpoint.Ports) != 1 || next.Rollout == nil {
		t.Fatalf("published: %+v", next)
	}
	back, err := RollbackService(next.Service, next.Revision, "", time.Unix(1, 0))
	if err != nil || back.Service.Revision != 1 || back.Revision == nil || back.Revision.Endpoint != nil || back.Service.Spec.EndpointSpec != nil || back.Revision.Auth != "auth" {
		t.Fatalf("rolled back: %+v, %v", back, err)
	}
	spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80, PublishMode: swarm.PortConfigPublishModeHost}}}
	if next = UpdateService(first.Service, first.Revision, nil, spec, "auth"); next.Service.Revision != 2 {
		t.Fatalf("published on the node: %+v", next)
	}
}

// TestUpdateService_TheFenceIsPartOfWhatRuns holds that agents learn of a fence with
// the task, and not in the middle of it.
func TestUpdateService_TheFenceIsPartOfWhatRuns(t *testing.T) {
	old := CreateService("s", changeSpec("app:1", 1), "")
	for i, value := range []string{"true", "false", "true"} {
		spec := changeSpec("app:1", 1)
		spec.Labels = map[string]string{LabelFence.Name: value}
		next := UpdateService(old.Service, old.Revision, nil, spec, "")
		if next.Revision == nil || next.Revision.Number != uint64(i+2) || next.Revision.Fenced() != (value == "true") {
			t.Errorf("%s: revision %+v", value, next.Revision)
		}
		if same, but := CompareRevisions(old.Revision, next.Revision); same || but {
			t.Errorf("%s: the revisions run the same", value)
		}
		old = next
	}
}

func TestUpdateService_RolloutGoesOnOnlyWhileItRuns(t *testing.T) {
	first := CreateService("s", changeSpec("app:1", 1), "")
	for state, kept := range map[swarm.UpdateState]bool{
		swarm.UpdateStateUpdating: true, swarm.UpdateStateRollbackStarted: true, swarm.UpdateStatePaused: true,
		swarm.UpdateStateRollbackPaused: true, swarm.UpdateStateCompleted: false, swarm.UpdateStateRollbackCompleted: false,
	} {
		change := UpdateService(first.Service, first.Revision, &Rollout{ServiceID: "s", Revision: 1, State: state}, changeSpec("app:1", 3), "")
		if (change.Rollout != nil) != kept {
			t.Errorf("%s is kept: %v", state, !kept)
		}
	}
	change := UpdateService(first.Service, first.Revision, &Rollout{ServiceID: "s", Revision: 1, State: swarm.UpdateStateUpdating}, changeSpec("app:2", 1), "")
	if change.Rollout != nil {
		t.Error("a rollout to the revision before is kept")
	}
}

// TestUpdateService_WhatResumes holds that a paused update goes on only where the user
// asks for that: else any label would put one more slot on the spec that failed.
func TestUpdateService_WhatResumes(t *testing.T) {
	config := &swarm.UpdateConfig{Parallelism: 1, FailureAction: swarm.UpdateFailureActionContinue}
	for name, c := range map[string]struct {
		change  func(*swarm.ServiceSpec)
		resumes bool
	}{
		"nothing":              {func(*swarm.ServiceSpec) {}, true},
		"how to update":        {func(s *swarm.ServiceSpec) { s.UpdateConfig = config }, true},
		"how to roll back":     {func(s *swarm.ServiceSpec) { s.RollbackConfig = config }, true},
		"a label":              {func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"team": "a"} }, false},
		"a label and config":   {func(s *swarm.ServiceSpec) { s.Labels, s.UpdateConfig = map[string]string{"team": "a"}, config }, true},
		"a number of replicas": {func(s *swarm.ServiceSpec) { n := uint64(5); s.Mode.Replicated = &swarm.ReplicatedService{Replicas: &n} }, false},
	} {
		for _, state := range []swarm.UpdateState{swarm.UpdateStatePaused, swarm.UpdateStateRollbackPaused} {
			first := CreateService("s", changeSpec("app:1", 1), "")
			spec := changeSpec("app:1", 1)
			c.change(&spec)
			change := UpdateService(first.Service, first.Revision, &Rollout{ServiceID: "s", Revision: 1, State: state}, spec, "")
			if resumes := change.Rollout == nil; resumes != c.resumes {
				t.Errorf("%s changed, %s: resumed: %v", name, state, resumes)
			}
		}
	}
	first := CreateService("s", changeSpec("app:1", 1), "")
	change := UpdateService(first.Service, first.Revision, &Rollout{ServiceID: "s", Revision: 1, State: swarm.UpdateStatePaused, Rebalance: true}, changeSpec("app:1", 2), "")
	if change.Rollout != nil {
		t.Error("a paused rebalance is kept")
	}
}

func TestRollbackService_Toggles(t *testing.T) {
	now := time.Unix(1, 0)
	first := CreateService("s", changeSpec("app:1", 1), "a1")
	if _, err := RollbackService(first.Service, nil, "", now); !errors.Is(err, ErrPrecondition) {
		t.Errorf("without a previous spec: %v", err)
	}
	second := UpdateService(first.Service, first.Revision, nil, changeSpec("app:2", 5), "a2")
	back, err := RollbackService(second.Service, first.Revision, "", now)
	if err != nil {
		t.Fatal(err)
	}
	if s := back.Service; s.Revision != 1 || s.PreviousRevision != 2 || s.Replicas() != 1 || back.Revision != nil {
		t.Errorf("rolled back: %+v", s)
	}
	if r := back.Rollout; r.State != swarm.UpdateStateRollbackStarted || r.Message != "manually requested rollback" || r.Revision != 1 {
		t.Errorf("rollout %+v", r)
	}
	forth, err := RollbackService(back.Service, second.Revision, "a3", now)
	if err != nil || forth.Service.Revision != 2 || forth.Service.Spec.TaskTemplate.ContainerSpec.Image != "app:2" || forth.Revision.Auth != "a3" {
		t.Errorf("rolled back again: %+v, %v", forth, err)
	}
}

func TestAbandonUpdate_LeavesNothingToRollBackTo(t *testing.T) {
	first := CreateService("s", changeSpec("app:1", 1), "")
	second := UpdateService(first.Service, first.Revision, nil, changeSpec("app:2", 1), "")
	change, err := AbandonUpdate(second.Service, "because", time.Unix(1, 0))
	if err != nil || change.Service.Revision != 1 || change.Service.Previous != nil || change.Service.LastRevision != 2 || change.Rollout.Message != "because" {
		t.Fatalf("%+v, %v", change, err)
	}
	if _, err := AbandonUpdate(change.Service, "", time.Unix(1, 0)); !errors.Is(err, ErrPrecondition) {
		t.Errorf("again: %v", err)
	}
}

func TestUpdateService_JobRunsAnew(t *testing.T) {
	spec := changeSpec("app:1", 1)
	spec.Mode = swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}}
	first := CreateService("s", spec, "auth")
	if !first.Revision.Job {
		t.Error("the revision of a job doesn't say so")
	}
	again := UpdateService(first.Service, first.Revision, nil, spec, "auth")
	if again.Service.Revision != 2 || again.Revision == nil || again.Revision.Number != 2 || again.Service.Previous != nil {
		t.Fatalf("an update without a change: %+v, %+v", again.Service, again.Revision)
	}
	other := spec
	other.TaskTemplate.ForceUpdate++
	updated := UpdateService(again.Service, again.Revision, nil, other, "new")
	back, err := RollbackService(updated.Service, again.Revision, "", time.Now())
	if err != nil || back.Service.Revision != 4 || back.Service.PreviousRevision != 3 || back.Revision.Number != 4 || back.Revision.Auth != "auth" || back.Rollout != nil {
		t.Fatalf("a rollback: %+v, %+v, %v", back.Service, back, err)
	}
}
