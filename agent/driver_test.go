package agent

import (
	"testing"

	"skep/cluster"
)

func TestAssignment_SlotIsWhatUsersSee(t *testing.T) {
	for _, c := range []struct {
		job  bool
		slot uint32
		want string
		name string
	}{
		{false, 3, "3", "web.3.t"}, {false, 0, "n1", "web.n1.t"}, {true, 3, "2", "web.2.t"}, {true, 1, "0", "web.n1.t"}, {true, 0, "n1", "web.n1.t"},
	} {
		a := Assignment{Task: &cluster.Task{ID: "t", NodeID: "n1", Slot: c.slot}, Revision: &cluster.Revision{ServiceName: "web", Job: c.job}}
		if a.Slot() != c.want || a.ContainerName() != c.name {
			t.Errorf("slot %d, job %v: %s in templates, container %s; want %s, %s", c.slot, c.job, a.Slot(), a.ContainerName(), c.want, c.name)
		}
	}
}
