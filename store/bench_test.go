package store

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

// running is a task as it is while its container runs.
func running(i int) *cluster.Task {
	id := fmt.Sprintf("%025d", (i*7919)%1_000_000_007) // Not in the order of the log, as random IDs aren't.
	now := cluster.Time(1_700_000_000_000_000_000 + i)
	return &cluster.Task{
		ID: id, Version: uint64(i), ServiceID: fmt.Sprintf("%025d", i/1000), Revision: 3, Slot: uint32(i%1000 + 1),
		NodeID: fmt.Sprintf("%025d", i%1000), Desired: cluster.StateRunning,
		CreatedAt: now, UpdatedAt: now, RunningAt: now,
		Status: cluster.TaskStatus{
			State: cluster.StateRunning, Since: now, Applied: now, Message: "started",
			ContainerID: strings.Repeat("0", 64-len(id)) + id, PID: int32(i),
		},
	}
}

// taskEntries are entries that put n running tasks, many to an entry.
func taskEntries(t testing.TB, n int) []*raft.Log {
	const each = 500
	var log []*raft.Log
	for from := 0; from < n; from += each {
		e := entry{Base: uint64(len(log))}
		for i := from; i < min(n, from+each); i++ {
			e.Changes = append(e.Changes, record{Kind: tasks.number, Object: must(cluster.Encode(running(i)))})
		}
		data, err := encodeEntry(e)
		if err != nil {
			t.Fatal(err)
		}
		log = append(log, &raft.Log{Index: uint64(len(log)) + 1, Data: data})
	}
	return log
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// bytesPerTask applies n running tasks and says how much heap each takes, with
// its indexes.
func bytesPerTask(t testing.TB, s *Store, n int) float64 {
	log := taskEntries(t, n)
	before := heap()
	for _, e := range log {
		if err := s.FSM().Apply(e); err != nil {
			t.Fatal(err)
		}
	}
	used := heap() - before
	runtime.KeepAlive(log)
	if s.View().TaskCount() != n {
		t.Fatalf("%d tasks, want %d", s.View().TaskCount(), n)
	}
	return float64(used) / float64(n)
}

// A hundred thousand tasks must fit into 60 MB.
func TestApply_MemoryPerTask(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes a hundred thousand tasks")
	}
	if got := bytesPerTask(t, newStore(t), 100_000); got > 600 {
		t.Errorf("%.0f bytes of heap per running task, want at most 600", got)
	} else {
		t.Logf("%.0f bytes of heap per running task", got)
	}
}

func BenchmarkApplyTask(b *testing.B) {
	const n = 100_000
	log := taskEntries(b, n)
	var per float64
	for b.Loop() {
		b.StopTimer()
		s := newStore(b)
		before := heap()
		b.StartTimer()
		for _, e := range log {
			s.FSM().Apply(e)
		}
		b.StopTimer()
		per = float64(heap()-before) / n
		runtime.KeepAlive(s)
		b.StartTimer()
	}
	b.ReportMetric(per, "B/task")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/task")
}

// BenchmarkUpdate is the proposer's own pace: a hundred thousand tasks are there,
// a hundred callers change one task each, raft takes no time.
func BenchmarkUpdate(b *testing.B) {
	s := newStore(b)
	bytesPerTask(b, s, 100_000)
	r := &instant{fsm: s.FSM(), index: s.View().Index()}
	leadOn(b, s, r)
	var next atomic.Int64
	b.SetParallelism(50)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			id := running(int(next.Add(1)) % 100_000).ID
			err := s.Update(context.Background(), func(tx *Tx) error {
				task := *tx.Task(id)
				task.Slot++
				return tx.Put(&task)
			})
			if err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
	b.ReportMetric(float64(b.N)/float64(r.count()), "updates/entry")
}

// BenchmarkDisk is the pace of a manager of its own with its real, sealed disk.
func BenchmarkDisk(b *testing.B) {
	config := diskConfig(b)
	d := openDisk(b, config)
	s := newStore(b)
	m := startRaft(b, s, d.Log, d.Stable, d.Snapshots)
	leadOn(b, s, m)
	var next atomic.Int64
	b.SetParallelism(50)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			task := running(int(next.Add(1)))
			if err := s.Update(context.Background(), func(tx *Tx) error { return tx.Put(task) }); err != nil {
				b.Error(err)
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "updates/s")
}

func BenchmarkDigest(b *testing.B) {
	s := newStore(b)
	bytesPerTask(b, s, 100_000)
	start := time.Now()
	for b.Loop() {
		s.View().Digest()
	}
	b.ReportMetric(float64(time.Since(start).Milliseconds())/float64(b.N), "ms/digest")
}
