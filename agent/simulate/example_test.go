package simulate_test

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/agent/simulate"
	"skep/cluster"
)

// An agent.Driver takes a task's container through its life by idempotent calls. The agent makes
// them, one step after the other, as the managers order.
func ExampleDriver() {
	var driver agent.Driver = simulate.New(simulate.Config{Hostname: "n1"})
	task := agent.Assignment{
		Task: &cluster.Task{ID: "t1", ServiceID: "web", NodeID: "n1", Slot: 1},
		Revision: &cluster.Revision{ServiceID: "web", ServiceName: "web", Spec: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{Image: "web:1"},
		}},
	}
	ctx := context.Background()
	phases := map[agent.Phase]string{agent.Created: "created", agent.Running: "running", agent.Exited: "exited"}
	show := func(step string, c agent.Container, err error) {
		fmt.Println(step, c.TaskID, phases[c.Phase], c.ExitCode, err)
	}

	c, err := driver.Prepare(ctx, task)
	show("prepare", c, err)
	c, err = driver.Start(ctx, "t1")
	show("start", c, err)
	c, err = driver.Start(ctx, "t1") // As after an answer that was lost.
	show("start", c, err)
	c, err = driver.Stop(ctx, "t1", time.Second)
	show("stop", c, err)
	fmt.Println("remove", driver.Remove(ctx, "t1"))
	_, err = driver.Inspect(ctx, "t1")
	fmt.Println("inspect:", err)
	// Output:
	// prepare t1 created 0 <nil>
	// start t1 running 0 <nil>
	// start t1 running 0 <nil>
	// stop t1 exited 0 <nil>
	// remove <nil>
	// inspect: No such container: t1
}
