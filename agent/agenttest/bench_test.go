package agenttest_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"skep/agent/docker"
	"skep/cluster"
)

// BenchmarkDocker_Start30 times 30 containers from the assignment to the last
// report of running, beside the engine's own time for 30 create and start calls
// with 8 in flight.
func BenchmarkDocker_Start30(b *testing.B) {
	const count, parallel = 30, 8
	t := &testing.T{}
	e := realEngine()
	if e.err != nil {
		b.Skipf("no container engine: %v", e.err)
	}
	engineUsed.Store(true)
	clean := func(nodeID string) {
		for _, c := range e.containers(t, nodeID) {
			e.client.ContainerRemove(context.Background(), c.ID, container.RemoveOptions{Force: true})
		}
	}
	for b.Loop() {
		b.StopTimer()
		nodeID := newTask("").ID
		began := time.Now()
		slots := make(chan struct{}, parallel)
		var all sync.WaitGroup
		for range count {
			all.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				made, err := e.client.ContainerCreate(b.Context(), &container.Config{Image: e.image, Labels: map[string]string{docker.LabelNode: nodeID}}, nil, nil, nil, "")
				if err == nil {
					err = e.client.ContainerStart(b.Context(), made.ID, container.StartOptions{})
				}
				if err != nil {
					b.Error(err)
				}
			})
		}
		all.Wait()
		raw := time.Since(began)
		clean(nodeID)

		driver, err := docker.New(docker.Config{})
		if err != nil {
			b.Fatal(err)
		}
		bench := newRealBench(t, nodeID, driver)
		bench.start()
		m := bench.accept()
		var tasks []*cluster.Task
		for range count {
			tasks = append(tasks, newTask(nodeID))
		}
		b.StartTimer()
		began = time.Now()
		m.assign(true, 0, 10, e.revision(behaviour{}), tasks...)
		for _, task := range tasks {
			m.reaches(task.ID, cluster.StateRunning)
		}
		took := time.Since(began)
		b.StopTimer()

		began = time.Now()
		e.client.ContainerRemove(b.Context(), m.reported(tasks[0].ID).ContainerID, container.RemoveOptions{Force: true})
		removed := time.Since(began)
		m.reaches(tasks[0].ID, cluster.StateFailed)
		noticed := time.Since(began) - removed
		bench.stop()
		clean(nodeID)
		b.ReportMetric(raw.Seconds()*1000, "raw-ms")
		b.ReportMetric(took.Seconds()*1000, "agent-ms")
		b.ReportMetric(took.Seconds()/raw.Seconds(), "agent/raw")
		b.ReportMetric(noticed.Seconds()*1000, "exit-noticed-after-rm-ms")
		b.StartTimer()
	}
}
