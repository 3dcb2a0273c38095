package store

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/telemetry/telemetrytest"
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

// BenchmarkSnapshot is a snapshot of running tasks with IDs, times and containers as random as real ones: how long the FSM
// is held up by it, the time of processors that writing and reading a million tasks takes, and the size of these.
func BenchmarkSnapshot(b *testing.B) {
	const n, million = 200_000, 1_000_000
	s := newStore(b)
	random := rand.New(rand.NewPCG(1, 2))
	var nodes []string
	for range 1000 {
		nodes = append(nodes, fmt.Sprintf("%x%x", random.Uint64(), random.Uint64())[:25])
	}
	for i := 0; i < n; i += 1000 {
		e := entry{Base: s.View().Index()}
		for j := range 1000 {
			task := running(i + j)
			at := cluster.Time(1_790_000_000_000_000_000 + int64(i+j)*20_000 + random.Int64N(20_000))
			task.ID, task.NodeID = cluster.NewID(seeded{random}), nodes[random.IntN(len(nodes))]
			task.CreatedAt, task.UpdatedAt, task.RunningAt = at, at+2e9, at+2e9
			task.Status.Since, task.Status.Applied = at+19e8+cluster.Time(random.Int64N(1e8)), at+2e9
			task.Status.ContainerID = fmt.Sprintf("%016x%016x%016x%016x", random.Uint64(), random.Uint64(), random.Uint64(), random.Uint64())
			e.Changes = append(e.Changes, record{Kind: tasks.number, Object: must(cluster.Encode(task))})
		}
		if response := s.FSM().Apply(&raft.Log{Index: e.Base + 1, Data: must(encodeEntry(e))}); response != nil {
			b.Fatal(response)
		}
	}
	var held, write, read time.Duration
	size := 0
	for b.Loop() {
		began := time.Now()
		taken, err := s.FSM().Snapshot()
		held = max(held, time.Since(began))
		out, on := &sink{data: make([]byte, 0, size)}, telemetrytest.ProcessorTime()
		if err == nil {
			err = taken.Persist(out)
		}
		if err != nil {
			b.Fatal(err)
		}
		size = len(out.data)
		write += telemetrytest.ProcessorTime() - on
		other := newStore(b)
		on = telemetrytest.ProcessorTime()
		if err := other.FSM().Restore(io.NopCloser(bytes.NewReader(out.data))); err != nil {
			b.Fatal(err)
		}
		read += telemetrytest.ProcessorTime() - on
	}
	per := float64(million) / n / float64(b.N)
	b.ReportMetric(float64(held.Microseconds())/1000, "ms-held-up")
	b.ReportMetric(write.Seconds()*per, "cpu-s-write/million")
	b.ReportMetric(read.Seconds()*per, "cpu-s-restore/million")
	b.ReportMetric(float64(size)/n, "MB/million")
	b.ReportMetric(0, "ns/op")
}

// seeded is randomness of a seed.
type seeded struct{ *rand.Rand }

func (r seeded) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return len(p), nil
}
