package api

import (
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/store"
)

func TestRebalance(t *testing.T) {
	b := newBench(t)
	const path = "/skep/v1/services/web/rebalance"
	b.do("POST", path, nil).want(t, 404, "service web not found")
	id := b.create(spec("web"))
	b.do("POST", path, nil).want(t, 200, "")
	status := b.inspect(id).UpdateStatus
	if status == nil || status.State != swarm.UpdateStateUpdating || status.Message != "rebalance in progress" || status.StartedAt == nil {
		t.Fatalf("status %+v", status)
	}
	before := b.view().Rollout(id)
	b.do("POST", strings.Replace(path, "web", id, 1), nil).want(t, 200, "")
	if b.view().Rollout(id) != before {
		t.Error("a rebalance that is under way was begun anew")
	}

	// An update ends it, also one that only scales.
	two := uint64(2)
	b.post(id, "", spec("web", func(s *swarm.ServiceSpec) { s.Mode.Replicated.Replicas = &two })).want(t, 200, "")
	if status := b.inspect(id).UpdateStatus; status != nil {
		t.Errorf("status %+v", status)
	}

	for _, c := range []struct {
		state  swarm.UpdateState
		status int
		says   string
	}{
		{swarm.UpdateStateUpdating, 400, "while it is being updated"},
		{swarm.UpdateStatePaused, 400, "while its update is paused"},
		{swarm.UpdateStateRollbackStarted, 400, "while it is being updated"},
		{swarm.UpdateStateCompleted, 200, ""},
	} {
		b.do("POST", path, nil).want(t, 200, "") // so that there is a rollout
		b.update(func(tx *store.Tx) error {
			rollout := *tx.Rollout(id)
			rollout.State, rollout.Rebalance = c.state, false
			return tx.Put(&rollout)
		})
		b.do("POST", path, nil).want(t, c.status, c.says)
		b.update(func(tx *store.Tx) error { tx.Delete(tx.Rollout(id)); return nil })
	}
	b.create(spec("agent", func(s *swarm.ServiceSpec) { s.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}} }))
	b.do("POST", strings.Replace(path, "web", "agent", 1), nil).want(t, 400, "only replicated services can")
}

func TestRebalance_ByItself(t *testing.T) {
	b := newBench(t)
	labelled := func(label, value string) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) { s.Labels[label] = value }
	}
	b.do("POST", "/services/create", spec("web", labelled("skep.rebalance", "yes"))).want(t, 400, "it takes auto or off")
	b.do("POST", "/services/create", spec("web", labelled("skep.rebalance.quiet", "1m"))).want(t, 400, "it has no meaning without skep.rebalance")
	b.do("POST", "/services/create", spec("web", labelled("skep.rebalance", "auto"), func(s *swarm.ServiceSpec) {
		s.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}}
	})).want(t, 400, "only replicated services can be rebalanced")
	b.create(spec("web", labelled("skep.rebalance", "auto"), labelled("skep.rebalance.quiet", "1m")))
	b.create(spec("other", labelled("skep.rebalance", "off")))
}
