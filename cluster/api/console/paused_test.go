package console

import (
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// An update that pauses because somebody wanted that isn't shown as one that failed.
func TestRollout_PausedAsAsked(t *testing.T) {
	b := newBench(t)
	web := b.service("asked", 1)
	for _, c := range []struct {
		asked bool
		want  mark
	}{{true, mark{"wait", "update paused"}}, {false, mark{"bad", "update paused"}}} {
		b.put(&cluster.Rollout{ServiceID: web.ID, State: swarm.UpdateStatePaused, Revision: 1, StartedAt: noon, Asked: c.asked})
		if got := (&look{view: b.manager.Store().View(), now: noon}).rollout(web); got == nil || got.Mark != c.want {
			t.Errorf("%+v, want %+v", got, c.want)
		}
	}
}
