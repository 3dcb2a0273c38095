package api

import (
	"fmt"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/store"
)

func TestRestart(t *testing.T) {
	b := newBench(t)
	const path = "/skep/v1/services/web/restart"
	b.do("POST", path, nil).want(t, 404, "service web not found")
	id := b.create(spec("web"), "X-Registry-Auth", "e30=")
	b.do("POST", path, nil).want(t, 200, "")
	service := b.view().Service(id)
	if service.Revision != 2 || service.PreviousRevision != 1 || service.Spec.TaskTemplate.ForceUpdate != 1 || b.view().Rollout(id) != nil {
		t.Fatalf("revision %d after %d, forced %d, %+v", service.Revision, service.PreviousRevision, service.Spec.TaskTemplate.ForceUpdate, b.view().Rollout(id))
	}
	if auth := b.view().Revision(id, 2).Auth; auth != "e30=" {
		t.Errorf("the credentials are %q now", auth)
	}
	b.do("POST", path+"?now=1", nil).want(t, 200, "")
	if r := b.view().Rollout(id); r == nil || !r.AtOnce || r.Revision != 3 || r.State != swarm.UpdateStateUpdating {
		t.Fatalf("%+v", r)
	}
	b.do("POST", path+"?now=perhaps", nil).want(t, 400, "invalid value for now")

	// One that began before doesn't make the next one so.
	b.do("POST", path, nil).want(t, 200, "")
	if r := b.view().Rollout(id); r != nil {
		t.Fatalf("%+v", r)
	}

	job := b.create(spec("job", func(s *swarm.ServiceSpec) {
		one := uint64(1)
		s.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{TotalCompletions: &one, MaxConcurrent: &one}}
		s.EndpointSpec = nil
	}))
	b.do("POST", "/skep/v1/services/job/restart?now=1", nil).want(t, 501, "leave out --now")
	b.do("POST", "/skep/v1/services/job/restart", nil).want(t, 200, "")
	if n := b.view().Service(job).Revision; n != 2 {
		t.Errorf("the job's iteration is %d", n)
	}
}

func TestRestart_IsCheckedAsAnUpdateIs(t *testing.T) {
	b := newBench(t)
	b.allow("true").want(t, 200, "")
	id := b.create(spec("web", func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"skep.host.privileged": "true"} }))
	b.allow("false").want(t, 200, "")
	b.do("POST", "/skep/v1/services/web/restart", nil).want(t, 403, "this cluster doesn't allow them")
	if n := b.view().Service(id).Revision; n != 1 {
		t.Errorf("revision %d", n)
	}
	b.update(func(tx *store.Tx) error { tx.Delete(tx.Service(id)); return nil })
	b.do("POST", fmt.Sprintf("/skep/v1/services/%s/restart", id), nil).want(t, 404, "not found")
}
