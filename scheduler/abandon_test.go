package scheduler

import (
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

func publish(published uint32) *swarm.EndpointSpec {
	return &swarm.EndpointSpec{Ports: []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: published, PublishMode: swarm.PortConfigPublishModeIngress}}}
}

// failingUpdate has a service that published 8080, and whose update to 8081 fails.
func failingUpdate(t *testing.T) *hive {
	h := newHive(t)
	h.put(h.node("n1"))
	h.network("ingress", "10.0.0.0/24", true)
	h.service("web", func(s *swarm.ServiceSpec) { s.EndpointSpec = publish(8080) })
	for h.settle(); h.obey(); {
		h.settle()
	}
	h.service("web", func(s *swarm.ServiceSpec) {
		s.TaskTemplate.ContainerSpec.Image, s.EndpointSpec = "bad", publish(8081)
		s.UpdateConfig = &swarm.UpdateConfig{Parallelism: 1, FailureAction: swarm.UpdateFailureActionRollback, Monitor: time.Second}
	})
	return h
}

func (h *hive) played() {
	for range 20 {
		h.settle()
		h.obey()
	}
}

// A rollback takes the ports back that the service had.
func TestAbandon_TakesItsPortsBack(t *testing.T) {
	h := failingUpdate(t)
	h.played()
	v := h.db.View()
	if r := v.Rollout("web"); r == nil || !r.RollingBack() {
		t.Fatalf("rollout %+v", r)
	}
	if ports := v.Service("web").Ports; len(ports) != 1 || ports[0].PublishedPort != 8080 {
		t.Errorf("ports %+v", ports)
	}
	if _, held := v.Holder(cluster.UniquePort("tcp", 8081)); held {
		t.Error("it has the new port still")
	}
}

// A port that another service has by now isn't taken back: the update is paused, and says why.
func TestAbandon_NotToAPortThatIsTaken(t *testing.T) {
	h := failingUpdate(t)
	h.service("other", func(s *swarm.ServiceSpec) { s.EndpointSpec = publish(8080) })
	h.played()
	v := h.db.View()
	r := v.Rollout("web")
	if r == nil || r.State != swarm.UpdateStatePaused || !strings.HasPrefix(r.Message, "update paused due to failure or early termination of task") ||
		!strings.HasSuffix(r.Message, "; it isn't rolled back: port '8080' is already in use by service 'other' (other) as an ingress port") {
		t.Fatalf("rollout %+v", r)
	}
	if s := v.Service("web"); s.Ports[0].PublishedPort != 8081 || s.Previous == nil {
		t.Errorf("the service went back: %+v", s)
	}
}
