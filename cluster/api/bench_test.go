package api

import (
	"fmt"
	"sync/atomic"
	"testing"
)

// BenchmarkCreateService is what the API itself costs of a service create.
func BenchmarkCreateService(b *testing.B) {
	bench := newBench(b)
	var next atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			ask(b, bench.handler, "POST", "/v1.51/services/create", spec(fmt.Sprintf("s%d", next.Add(1)))).want(b, 201, "")
		}
	})
}

// BenchmarkListTasks is one poll of a waiting CLI, of a service of 1,000 tasks
// that isn't at its newest revision.
func BenchmarkListTasks(b *testing.B) {
	bench := newBench(b)
	id := bench.create(spec("web"))
	for i := range 1000 {
		bench.addTask(i, id, uint32(i+1), 1)
	}
	s := bench.inspect("web").Spec
	s.TaskTemplate.ContainerSpec.Image = "timecheck:2.0"
	bench.post("web", "", s).want(b, 200, "")
	path := `/tasks?filters={"_up-to-date":["true"],"service":["` + id + `"]}`
	for b.Loop() {
		ask(b, bench.handler, "GET", path, nil).want(b, 200, "[")
	}
}
