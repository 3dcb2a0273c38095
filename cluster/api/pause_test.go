package api

import (
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/store"
)

func TestPauseAndResume(t *testing.T) {
	b := newBench(t)
	pause, resume := "/skep/v1/services/web/pause", "/skep/v1/services/web/resume"
	b.do("POST", pause, nil).want(t, 404, "service web not found")
	id := b.create(spec("web"))
	b.do("POST", pause, nil).want(t, 400, "service web isn't being updated")
	b.do("POST", resume, nil).want(t, 400, "the update of service web isn't paused")
	for _, c := range []struct {
		state, paused, resumed swarm.UpdateState
		rebalance              bool
		says, then             string
	}{
		{swarm.UpdateStateUpdating, swarm.UpdateStatePaused, swarm.UpdateStateUpdating, false, "update paused by hand: `skep service resume web` goes on", "update in progress"},
		{swarm.UpdateStateRollbackStarted, swarm.UpdateStateRollbackPaused, swarm.UpdateStateRollbackStarted, false, "rollback paused by hand: `skep service resume web` goes on", "rollback in progress"},
		{swarm.UpdateStateUpdating, swarm.UpdateStatePaused, swarm.UpdateStateUpdating, true, "rebalance paused by hand: `skep service resume web` goes on", "rebalance in progress"},
	} {
		b.update(func(tx *store.Tx) error {
			if old := tx.Rollout(id); old != nil {
				tx.Delete(old)
			}
			return nil
		})
		b.do("POST", "/skep/v1/services/web/rebalance", nil).want(t, 200, "") // so that there is a rollout
		b.update(func(tx *store.Tx) error {
			rollout := *tx.Rollout(id)
			rollout.State, rollout.Rebalance = c.state, c.rebalance
			return tx.Put(&rollout)
		})
		before := b.view().Rollout(id)
		b.do("POST", resume, nil).want(t, 200, "") // It goes on.
		if b.view().Rollout(id) != before {
			t.Error("one that isn't paused was begun anew")
		}
		b.do("POST", pause, nil).want(t, 200, "")
		b.do("POST", pause, nil).want(t, 200, "")
		if status := b.inspect(id).UpdateStatus; status.State != c.paused || status.Message != c.says || !b.view().Rollout(id).Asked {
			t.Errorf("paused: %+v, %+v", status, b.view().Rollout(id))
		}
		b.do("POST", resume, nil).want(t, 200, "")
		after := b.view().Rollout(id)
		if status := b.inspect(id).UpdateStatus; status.State != c.resumed || status.Message != c.then || after.Rebalance != c.rebalance || after.Resumed == c.rebalance || after.Asked {
			t.Errorf("resumed: %+v, %+v", status, after)
		}
	}
	after := func(n string) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) { s.Labels["skep.update.pause-after"] = n }
	}
	b.do("POST", "/services/create", spec("other", after("0"))).want(t, 400, "it takes a number of tasks, at least 1")
	b.do("POST", "/services/create", spec("other", after("1"), func(s *swarm.ServiceSpec) {
		s.Mode, s.UpdateConfig, s.RollbackConfig = swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}}, nil, nil
	})).want(t, 400, "a job's update runs all of it anew")
}
