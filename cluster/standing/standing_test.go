package standing

import (
	"context"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// A scheduled job wants nothing until it runs.
func TestOf_ScheduledJob(t *testing.T) {
	db := store.NewMemory(func() time.Time { return time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC) })
	put := func(change cluster.Change) {
		if err := db.Update(context.Background(), func(tx *store.Tx) error {
			if err := tx.Put(change.Revision); err != nil {
				return err
			}
			return tx.Put(change.Service)
		}); err != nil {
			t.Fatal(err)
		}
	}
	one, three := uint64(1), uint64(3)
	spec := swarm.ServiceSpec{
		Annotations:  swarm.Annotations{Name: "dump", Labels: map[string]string{cluster.LabelSchedule.Name: "@daily"}},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "app:1"}},
		Mode:         swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &one, TotalCompletions: &three}},
	}
	put(cluster.CreateService("dump", spec, ""))
	if stands := Of(db.View(), db.View().Service("dump")); stands.Wanted != 0 {
		t.Errorf("before a run: %+v", stands)
	}
	put(cluster.RunJob(db.View().Service("dump"), db.View().Revision("dump", 1), time.Time{}))
	if stands := Of(db.View(), db.View().Service("dump")); stands.Wanted != 3 {
		t.Errorf("while it runs: %+v", stands)
	}
}
