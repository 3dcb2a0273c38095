package clustertest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	planner "skep/agent/network"
)

// BenchmarkServed is how long it takes from a task's container being healthy, as its agent sees it, until the planes and
// the names of three machines lead to it: three managers, whose containers and planes are in memory and
// whose logs are on disk.
func BenchmarkServed(b *testing.B) {
	c := Start(b, 3, 0, Options{Networks: true})
	m := c.Machines[0]
	spec := Spec("web", "app:1", 3) // one on each: others needn't know
	spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: m.NewNetwork("web")}}
	id := m.Create(spec)
	c.Runs(time.Minute, id, "app:1", 3)
	var all []time.Duration
	for i := range b.N {
		replicas := 4 + i
		count := uint64(replicas)
		m.Update(id, func(s *swarm.ServiceSpec) { s.Mode.Replicated.Replicas = &count })
		end := time.Now().Add(time.Minute)
		for slices.ContainsFunc(c.Machines, func(m *Machine) bool { return !m.leads(b, replicas) }) {
			if time.Now().After(end) {
				b.Fatalf("not all machines lead to %d tasks", replicas)
			}
			time.Sleep(time.Millisecond)
		}
		done := time.Now()
		var healthy time.Time
		for t := range c.Leader().manager().Store().View().TasksOfService(id) {
			if since := t.Status.Since.Std(); since.After(healthy) {
				healthy = since
			}
		}
		all = append(all, done.Sub(healthy))
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "ms/median")
	b.ReportMetric(float64(all[len(all)-1].Microseconds())/1000, "ms/worst")
	b.ReportMetric(0, "ns/op")
}

// leads tells whether the machine's plane and names lead to so many tasks of the only service.
func (m *Machine) leads(b *testing.B, tasks int) bool {
	existing, err := m.Plane.Dump(b.Context(), m.cluster.Leader().manager().Store().View().Cluster().ID)
	if err != nil {
		b.Fatal(err)
	}
	led := slices.ContainsFunc(existing.Objects, func(o planner.Object) bool {
		chain, is := o.(planner.Chain)
		return is && len(strings.Fields(chain.Backends)) == tasks
	})
	names := m.names.Load()
	if !led || names == nil {
		return false
	}
	for _, n := range names.Networks {
		if len(n.Names["tasks.web"].Addrs) == tasks {
			return true
		}
	}
	return false
}
