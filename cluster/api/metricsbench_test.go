package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/telemetry"
	"skep/cluster/telemetry/telemetrytest"
	"skep/store"
)

// large is a leader's bench with 1,000 services of ten tasks, on so many nodes. What moves its clock has the database read anew.
func large(b *testing.B, nodes int) (bench *bench, clock *time.Time) {
	now := time.Unix(1_800_000_000, 0)
	bench = newBench(b, func(c *Config) {
		c.Metrics = telemetry.New()
		c.Now = func() time.Time { return now }
	})
	bench.update(func(tx *store.Tx) error {
		for i := 1; i <= nodes; i++ {
			n := &cluster.Node{ID: nodeID(i), Role: swarm.NodeRoleWorker, Status: cluster.NodeStatus{State: cluster.NodeReady}}
			n.Description.Hostname = fmt.Sprintf("n%d", i)
			n.Description.Resources = swarm.Resources{NanoCPUs: 8e9, MemoryBytes: 32 << 30}
			if err := tx.Put(n); err != nil {
				return err
			}
		}
		return nil
	})
	for i := range 1000 {
		name := fmt.Sprintf("stack%d_service%d", i/20, i)
		bench.update(func(tx *store.Tx) error {
			ten := uint64(10)
			s := &cluster.Service{ID: fmt.Sprintf("service%018d", i), Revision: 1}
			s.Spec.Name, s.Spec.Labels = name, map[string]string{"com.docker.stack.namespace": fmt.Sprintf("stack%d", i/20)}
			s.Spec.Mode.Replicated = &swarm.ReplicatedService{Replicas: &ten}
			s.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Image: "app"}
			s.Spec.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{NanoCPUs: 1e8, MemoryBytes: 64 << 20}}
			err := errors.Join(tx.Put(s), tx.Put(&cluster.Revision{ServiceID: s.ID, Number: 1, ServiceName: name, Spec: s.Spec.TaskTemplate}),
				tx.Put(&cluster.Rollout{ServiceID: s.ID, State: swarm.UpdateStateCompleted, Revision: 1, Total: 10, StartedAt: now}))
			for j := range 10 {
				err = errors.Join(err, tx.Put(&cluster.Task{
					ID: taskID(10*i + j), ServiceID: s.ID, Revision: 1, Slot: uint32(j + 1), NodeID: nodeID(1 + (10*i+j)%nodes), Desired: cluster.StateRunning,
					Status: cluster.TaskStatus{State: cluster.StateRunning, Since: cluster.At(now), Message: "started"},
				}))
			}
			return err
		})
		bench.server.Metrics.Scheduler.Ends.Add(1, name, "failed")
	}
	return bench, &now
}

// BenchmarkMetrics is a whole scrape of a leader with 1,000 services and 10,000 tasks: at most 50 ms. "again" is the next
// one within the five seconds for which a reading of the database is served.
func BenchmarkMetrics(b *testing.B) {
	for _, of := range []struct {
		name, encoding string
		nodes          int
		moves          time.Duration
	}{
		{"plain/nodes=10", "identity", 10, stateLasts}, {"gzip/nodes=10", "gzip", 10, stateLasts},
		{"plain/nodes=1000", "identity", 1000, stateLasts}, {"again/nodes=10", "identity", 10, 0},
	} {
		b.Run(of.name, func(b *testing.B) {
			bench, clock := large(b, of.nodes)
			r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
			r.Header.Set("Accept-Encoding", of.encoding)
			var w *httptest.ResponseRecorder
			b.ReportAllocs()
			began := telemetrytest.ProcessorTime()
			for b.Loop() {
				*clock = clock.Add(of.moves)
				w = httptest.NewRecorder()
				bench.handler.ServeHTTP(w, r)
			}
			if w.Code != http.StatusOK {
				b.Fatal(w.Code)
			}
			if of.encoding != "gzip" {
				b.ReportMetric(float64(strings.Count("\n"+w.Body.String(), "\nskep_service_tasks{")), "tasks-series")
			}
			b.ReportMetric(float64(w.Body.Len()), "bytes")
			b.ReportMetric((telemetrytest.ProcessorTime()-began).Seconds()*1000/float64(b.N), "ms/processor") // Others use the machine, too.
			b.ReportMetric(b.Elapsed().Seconds()*1000/float64(b.N), "ms/scrape")
			b.ReportMetric(0, "ns/op")
		})
	}
}
