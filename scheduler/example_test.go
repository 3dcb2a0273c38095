package scheduler_test

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/scheduler"
	"skep/store"
)

// Plan says what is missing; Write puts that into the database; planned again, nothing is.
func ExamplePlan() {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	db := store.NewMemory(func() time.Time { return now })
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}

	// Two nodes, and a service of three tasks.
	replicas := uint64(3)
	web := cluster.CreateService("web", swarm.ServiceSpec{
		Annotations:  swarm.Annotations{Name: "web"},
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}},
		TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "web:1"}},
	}, "")
	must(db.Update(context.Background(), func(tx *store.Tx) error {
		for _, id := range []string{"n1", "n2"} {
			node := &cluster.Node{ID: id, Role: swarm.NodeRoleWorker, Status: cluster.NodeStatus{State: cluster.NodeReady}}
			node.Spec.Availability = swarm.NodeAvailabilityActive
			if err := tx.Put(node); err != nil {
				return err
			}
		}
		if err := tx.Put(web.Revision); err != nil {
			return err
		}
		return tx.Put(web.Service)
	}))

	tasks := 0
	plan := func() scheduler.Result {
		view := db.View()
		return scheduler.Plan(scheduler.Input{
			View: view, Ledger: scheduler.List(view), Services: []string{"web"}, Now: now, Monotonic: now,
			NewID: func() string { tasks++; return fmt.Sprintf("t%d", tasks) },
		})
	}
	planned := plan()
	for _, intent := range planned.Intents {
		fmt.Println(intent)
	}
	_, err := scheduler.Write(context.Background(), db, planned.Intents)
	must(err)
	fmt.Println(len(plan().Intents), "more")
	// Output:
	// create t1 slot=1 rev=1 running on n1
	// create t2 slot=2 rev=1 running on n2
	// create t3 slot=3 rev=1 running on n1
	// 0 more
}
