package scheduler

import (
	"context"
	"crypto/rand"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// BenchmarkPlan places one-task services on empty nodes, from nothing planned to
// committed in memory, as SwarmKit's BenchmarkScheduler does.
func BenchmarkPlan(b *testing.B) {
	for _, size := range []struct{ nodes, tasks int }{{100, 1000}, {1000, 1000}, {1000, 10000}, {1000, 100000}} {
		b.Run(fmt.Sprintf("nodes=%d/tasks=%d", size.nodes, size.tasks), func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				db := bigHive(b, size.nodes, size.tasks)
				l := newLoop(Config{Store: db})
				_, view, _ := l.subscription.Take()
				l.relist(view)
				runtime.GC()
				b.StartTimer()
				for db.View().TaskCount() < size.tasks {
					if err := l.step(context.Background()); err != nil {
						b.Fatal(err)
					}
					l.refresh()
				}
				b.StopTimer()
				l.subscription.Close()
				if got := db.View().TaskCount(); got != size.tasks {
					b.Fatalf("%d tasks instead of %d", got, size.tasks)
				}
			}
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
		l := newLoop(Config{Store: db})
		_, view, _ := l.subscription.Take()
		l.relist(view)
		b.StartTimer()
		for db.View().TaskCount() < int(replicas) {
			if err := l.step(context.Background()); err != nil {
				b.Fatal(err)
			}
			l.refresh()
		}
		b.StopTimer()
		l.subscription.Close()
		if got := db.View().TaskCount(); got != int(replicas) {
			b.Fatalf("%d tasks instead of %d", got, replicas)
		}
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

// bigHive is a database with so many nodes and one-task services.
func bigHive(tb testing.TB, nodes, services int) *store.Memory {
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
	put(nodes, func(i int) []any { return []any{h.node(fmt.Sprintf("node%04d", i))} })
	put(services, func(i int) []any {
		id := cluster.NewID(rand.Reader)
		change := cluster.CreateService(id, serviceSpec(fmt.Sprintf("service%06d", i)), "")
		return []any{change.Service, change.Revision}
	})
	return db
}
