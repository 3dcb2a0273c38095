package scheduler

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/telemetry"
	"skep/cluster/telemetry/telemetrytest"
	"skep/store"
)

// BenchmarkPlan places one-task services on empty nodes, from nothing planned to
// committed in memory, as SwarmKit's BenchmarkScheduler does.
func BenchmarkPlan(b *testing.B) {
	for _, size := range []struct{ nodes, tasks int }{{100, 1000}, {1000, 1000}, {1000, 10000}, {1000, 100000}, {100000, 1000}} {
		b.Run(fmt.Sprintf("nodes=%d/tasks=%d", size.nodes, size.tasks), func(b *testing.B) {
			var took time.Duration
			for range b.N {
				b.StopTimer()
				db := bigHive(b, size.nodes, size.tasks)
				b.StartTimer()
				took += planAll(b, db, size.tasks)
			}
			b.ReportMetric(took.Seconds()/float64(b.N), "cpu-s/op")
		})
	}
}

// planAll plans until there are so many tasks, and returns how much time of processors that took: others use the
// machine, too.
func planAll(b *testing.B, db *store.Memory, tasks int) time.Duration {
	b.Helper()
	b.StopTimer()
	var took time.Duration
	planAllOf(b, Config{Store: db}, db, tasks, func() func() {
		runtime.GC()
		b.StartTimer()
		began := telemetrytest.ProcessorTime()
		return func() {
			took = telemetrytest.ProcessorTime() - began
			b.StopTimer()
		}
	})
	return took
}

// planAllOf plans until there are so many tasks, from when begin is called until what that returns is.
func planAllOf(b *testing.B, config Config, db *store.Memory, tasks int, begin func() (end func())) {
	b.Helper()
	l := newLoop(config)
	defer l.subscription.Close()
	_, view, _ := l.subscription.Take()
	l.relist(view)
	end := begin()
	for db.View().TaskCount() < tasks {
		if err := l.step(context.Background()); err != nil {
			b.Fatal(err)
		}
		l.refresh()
	}
	end()
	if got := db.View().TaskCount(); got != tasks {
		b.Fatalf("%d tasks instead of %d", got, tasks)
	}
	for t := range db.View().Tasks() {
		if !t.Assigned() {
			b.Fatalf("task %s has no node: %s", t.ID, t.Status.Err)
		}
	}
}

// BenchmarkPlan_Measured is what all that is measured costs of planning, of at most 1.02 times.
func BenchmarkPlan_Measured(b *testing.B) {
	const nodes, tasks = 1000, 10000
	b.StopTimer()
	telemetrytest.Cost(b, func(measured bool, begin func() func()) {
		db, metrics := bigHive(b, nodes, tasks), telemetry.New()
		config := Config{Store: db}
		if measured {
			config.Metrics = metrics.Scheduler
		}
		planAllOf(b, config, db, tasks, begin)
		placed := uint64(0)
		if measured {
			placed = tasks
		}
		if n := telemetrytest.Read(b, metrics)["skep_task_placement_seconds"].GetHistogram().GetSampleCount(); n != placed {
			b.Errorf("%d placements were measured, want %d", n, placed)
		}
	})
}

// BenchmarkPlan_Constrained places tasks that only a third of the nodes may have,
// spread at two levels, with reservations; beside it the same number of tasks that
// ask for nothing. Services have one task each, or there is one service.
func BenchmarkPlan_Constrained(b *testing.B) {
	const nodes, tasks = 5000, 100000
	picky := func(spec *swarm.ServiceSpec) {
		spec.TaskTemplate.Placement = &swarm.Placement{
			Constraints: []string{"node.labels.disk==ssd", "node.role!=manager"},
			Preferences: []swarm.PlacementPreference{
				{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.zone"}},
				{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.rack"}},
			},
		}
		spec.TaskTemplate.Resources = &swarm.ResourceRequirements{Reservations: &swarm.Resources{NanoCPUs: 1e7, MemoryBytes: 16 << 20}}
	}
	for _, services := range []int{tasks, tasks / 2, tasks / 100, 1} {
		b.Run(fmt.Sprintf("nodes=%d/tasks=%d/services=%d", nodes, tasks, services), func(b *testing.B) {
			run := func(change func(*swarm.ServiceSpec)) time.Duration {
				b.StopTimer()
				db := bigHive(b, nodes, services, func(spec *swarm.ServiceSpec) {
					replicas := uint64(tasks / services)
					spec.Mode.Replicated.Replicas = &replicas
					change(spec)
				})
				return planAll(b, db, tasks)
			}
			// The fastest of each counts.
			plain, constrained := time.Hour, time.Hour
			for range b.N {
				plain = min(plain, run(func(*swarm.ServiceSpec) {}))
				constrained = min(constrained, run(picky))
			}
			b.ReportMetric(plain.Seconds(), "s/unconstrained")
			b.ReportMetric(constrained.Seconds(), "s/constrained")
			b.ReportMetric(constrained.Seconds()/plain.Seconds(), "times")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkPlan_Networks places tasks on an overlay network that has an address for each, and
// publishes a port of each service; beside it the same tasks without.
func BenchmarkPlan_Networks(b *testing.B) {
	const nodes, tasks = 1000, 20000
	for _, services := range []int{tasks, tasks / 100} {
		b.Run(fmt.Sprintf("nodes=%d/tasks=%d/services=%d", nodes, tasks, services), func(b *testing.B) {
			run := func(networked bool) time.Duration {
				b.StopTimer()
				port := uint32(0)
				db := bigHive(b, nodes, services, func(spec *swarm.ServiceSpec) {
					replicas := uint64(tasks / services)
					spec.Mode.Replicated.Replicas = &replicas
					if networked {
						port++
						spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "web"}}
						spec.EndpointSpec = publish(port)
					}
				})
				h := &hive{t: b, db: db, now: epoch}
				h.network("web", "10.0.0.0/16", false)
				h.network("ingress", "10.1.0.0/16", true)
				return planAll(b, db, tasks)
			}
			// In turns, and the median of each counts.
			var plain, networked []time.Duration
			for range b.N {
				plain, networked = append(plain, run(false)), append(networked, run(true))
			}
			median := func(all []time.Duration) float64 {
				slices.Sort(all)
				return (all[(len(all)-1)/2] + all[len(all)/2]).Seconds() / 2
			}
			b.ReportMetric(median(plain), "s/plain")
			b.ReportMetric(median(networked), "s/networked")
			b.ReportMetric(median(networked)/median(plain), "times")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkPlan_Replicas places one service with many replicas.
func BenchmarkPlan_Replicas(b *testing.B) {
	for range b.N {
		b.StopTimer()
		db := bigHive(b, 1000, 1)
		replicas := uint64(100000)
		err := db.Update(context.Background(), func(tx *store.Tx) error {
			for s := range tx.Services() {
				next := *s
				next.Spec.Mode.Replicated.Replicas = &replicas
				return tx.Put(&next)
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
		planAll(b, db, int(replicas))
	}
}

// BenchmarkPlan_Global takes in one node's label, with a global service on 10,000.
func BenchmarkPlan_Global(b *testing.B) {
	const nodes = 10000
	db := bigHive(b, nodes, 0)
	h := &hive{t: b, db: db, now: epoch}
	h.service("agent", func(s *swarm.ServiceSpec) { s.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}} })
	l := newLoop(Config{Store: db})
	defer l.subscription.Close()
	_, view, _ := l.subscription.Take()
	l.relist(view)
	step := func() {
		if err := l.step(context.Background()); err != nil {
			b.Fatal(err)
		}
		l.refresh()
	}
	for db.View().TaskCount() < nodes {
		step()
	}
	b.ResetTimer()
	for i := range b.N {
		n := *db.View().Node("node0007")
		n.Spec.Labels = map[string]string{"i": fmt.Sprint(i)}
		h.put(&n)
		l.refresh()
		step()
	}
	b.StopTimer()
	if got := db.View().TaskCount(); got != nodes {
		b.Fatalf("%d tasks instead of %d", got, nodes)
	}
}

// BenchmarkRoll updates a service of 10,000 replicas on 1,000 nodes, 100 at once, whose agents do what they are told between two
// plans, in steps as real ones. The time is of processors for each task, from the update until all run: plans, entries and what
// the leader's store makes of them; the agents' part is little of it.
func BenchmarkRoll(b *testing.B) {
	const nodes, replicas = 1000, 10000
	var took time.Duration
	for range b.N {
		s := store.New(store.Config{Fatal: func(err error) { b.Error(err) }})
		ctx, end := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		began := make(chan struct{})
		go func() {
			ended <- s.Lead(ctx, &bareRaft{fsm: s.FSM()}, func(ctx context.Context) error {
				close(began)
				<-ctx.Done()
				return nil
			})
		}()
		<-began
		update := func(fn func(*store.Tx) error) {
			if err := s.Update(ctx, fn); err != nil {
				b.Fatal(err)
			}
		}
		h := &hive{t: b, db: store.NewMemory(time.Now), now: epoch} // makes nodes
		spec := serviceSpec("web")
		many := uint64(replicas)
		spec.Mode.Replicated.Replicas = &many
		spec.UpdateConfig = &swarm.UpdateConfig{Parallelism: 100, Monitor: time.Nanosecond}
		update(func(tx *store.Tx) error {
			for i := range nodes {
				if err := tx.Put(h.node(fmt.Sprintf("node%04d", i))); err != nil {
					return err
				}
			}
			change := cluster.CreateService("web", spec, "")
			return errors.Join(tx.Put(change.Service), tx.Put(change.Revision))
		})
		l := newLoop(Config{Store: s})
		_, view, _ := l.subscription.Take()
		l.relist(view)
		told := s.Subscribe()
		// settle plans and obeys until a revision runs everywhere.
		settle := func(revision uint64) {
			running := 0
			for running < replicas {
				if err := l.step(ctx); err != nil {
					b.Fatal(err)
				}
				changes, _, _ := told.Take()
				var tasks []string
				for _, c := range changes {
					before, after := store.Sides[cluster.Task](c)
					if after == nil || !after.Assigned() || after.Status.State.Terminal() {
						continue
					}
					if after.Revision == revision && after.Status.State == cluster.StateRunning && before != nil && before.Status.State != cluster.StateRunning {
						running++
					}
					tasks = append(tasks, after.ID)
				}
				if len(tasks) > 0 {
					update(func(tx *store.Tx) error {
						for _, id := range tasks {
							t := tx.Task(id)
							if t == nil {
								continue
							}
							state := cluster.StateRunning
							switch {
							case !t.Live():
								state = cluster.StateShutdown
							case t.Desired == cluster.StateReady:
								state = cluster.StateReady
							}
							if state == t.Status.State {
								continue
							}
							now := cluster.At(tx.Now())
							if next := t.Advance(cluster.TaskStatus{State: state, Message: state.String(), Since: now, ContainerID: t.ID + t.ID, PID: 7}, now); next != nil {
								if err := tx.Put(next); err != nil {
									return err
								}
							}
						}
						return nil
					})
				}
				l.refresh()
			}
		}
		settle(s.View().Service("web").Revision)
		next := copySpec(b, spec)
		next.TaskTemplate.ContainerSpec.Image = "web:2"
		runtime.GC()
		on := telemetrytest.ProcessorTime()
		update(func(tx *store.Tx) error {
			old := tx.Service("web")
			change := cluster.UpdateService(old, tx.Revision("web", old.Revision), tx.Rollout("web"), next, "")
			return errors.Join(tx.Put(change.Revision), tx.Put(change.Service))
		})
		l.refresh()
		settle(s.View().Service("web").Revision)
		took += telemetrytest.ProcessorTime() - on
		l.subscription.Close()
		told.Close()
		end()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(took.Microseconds())/replicas/float64(b.N), "cpu-us/task")
	b.ReportMetric(0, "ns/op")
}

// bareRaft commits at once.
type bareRaft struct {
	fsm   raft.FSM
	index uint64
}

// committed is an entry that is.
type committed struct {
	index    uint64
	response any
}

func (c committed) Error() error  { return nil }
func (c committed) Response() any { return c.response }
func (c committed) Index() uint64 { return c.index }

func (r *bareRaft) Barrier(time.Duration) raft.Future { return committed{} }

func (r *bareRaft) Apply(data []byte, _ time.Duration) raft.ApplyFuture {
	r.index++
	return committed{r.index, r.fsm.Apply(&raft.Log{Index: r.index, Data: data})}
}

// bigHive is a database with so many nodes and one-task services.
func bigHive(tb testing.TB, nodes, services int, change ...func(*swarm.ServiceSpec)) *store.Memory {
	tb.Helper()
	db := store.NewMemory(time.Now)
	h := &hive{t: tb, db: db, now: epoch}
	put := func(count int, make func(i int) []any) {
		for at := 0; at < count; at += 1000 {
			h.update(func(tx *store.Tx) error {
				for i := at; i < min(at+1000, count); i++ {
					for _, object := range make(i) {
						if err := tx.Put(object); err != nil {
							return err
						}
					}
				}
				return nil
			})
		}
	}
	put(nodes, func(i int) []any {
		n := h.node(fmt.Sprintf("node%04d", i))
		if i >= cluster.MaxIndex {
			n.Index = 0 // Only so many nodes get one.
		}
		n.Spec.Labels = map[string]string{"zone": fmt.Sprint("zone", i%5), "rack": fmt.Sprint("rack", i%60), "disk": []string{"ssd", "hdd", "hdd"}[i%3]}
		return []any{n}
	})
	put(services, func(i int) []any {
		id := cluster.NewID(rand.Reader)
		spec := serviceSpec(fmt.Sprintf("service%06d", i))
		for _, set := range change {
			set(&spec)
		}
		change := cluster.CreateService(id, spec, "")
		return []any{change.Service, change.Revision}
	})
	return db
}
