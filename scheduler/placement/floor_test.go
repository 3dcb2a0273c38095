package placement

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skep/cluster"
)

// TestBest_FloorChangesNothing: in a plan that stops and places tasks one by one, the node chosen is that of a look at all.
func TestBest_FloorChangesNothing(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	used := 0
	rapid.Check(t, func(r *rapid.T) {
		var nodes []*cluster.Node
		for i := range rapid.IntRange(1, 6).Draw(r, "nodes") {
			nodes = append(nodes, testNode(fmt.Sprint("n", i), rapid.Int64Range(1, 12).Draw(r, "cpus")))
		}
		l := testLedger(nodes...)
		web, db := testRevision("web", rapid.Int64Range(0, 1).Draw(r, "web")), testRevision("db", 1)
		l.ChangeRevision(nil, web)
		l.ChangeRevision(nil, db)
		var tasks []*cluster.Task
		for i := range rapid.IntRange(0, 30).Draw(r, "tasks") {
			task := testTask(fmt.Sprint("t", i), rapid.SampledFrom([]string{"web", "web", "db"}).Draw(r, "service"), rapid.SampledFrom(nodes).Draw(r, "node").ID)
			l.ChangeTask(nil, task)
			tasks = append(tasks, task)
		}
		qs := []Requirement{l.Require(web, Surroundings{}), l.Require(db, Surroundings{})}
		for range rapid.IntRange(1, 40).Draw(r, "steps") {
			switch rapid.IntRange(0, 6).Draw(r, "step") {
			case 0, 1:
				if len(tasks) > 0 {
					l.Release(tasks[0])
					tasks = tasks[1:]
				}
			case 2:
				l.Settle()
			}
			q := &qs[rapid.IntRange(0, 1).Draw(r, "of")]
			floor, of := q.load.floor, q.load.floorOf
			q.load.floorOf = floorKey{}
			want := l.best(q, cluster.At(now))
			q.load.floor, q.load.floorOf = floor, of
			if l.floor(q) > 0 {
				used++
			}
			got := l.best(q, cluster.At(now))
			if got != want {
				r.Fatalf("with a floor of %d it chooses %v, without %v", floor, got, want)
			}
			if got != nil {
				l.assign(got, q)
			}
		}
	})
	if used == 0 {
		t.Error("there was never a floor")
	}
}
