package store

import (
	"context"
	"sync"
	"testing"
	"time"

	metrics "github.com/hashicorp/go-metrics/compat"

	"skep/cluster/telemetry"
	"skep/cluster/telemetry/telemetrytest"
	"skep/cluster/timeline"
)

// BenchmarkUpdate_Measured is what all that is measured costs of a write, of at most 1.02 times: a hundred callers change tasks
// at a manager of its own with its real, sealed disk. Measured are the store's writes, what raft says of itself, and the timeline's.
func BenchmarkUpdate_Measured(b *testing.B) {
	const tasks, callers, each = 10_000, 100, 10
	config := diskConfig(b)
	d := openDisk(b, config)
	s := New(Config{Log: quiet, Fatal: config.Fatal})
	leadOn(b, s, startRaft(b, s, d.Log, d.Stable, d.Snapshots))
	var all []any
	for i := range tasks {
		all = append(all, running(i))
	}
	put(b, s, all...)
	instruments, ring := telemetry.New(), timeline.NewRing("m1", time.Now())
	wrote := func(updates int, took time.Duration) { ring.Wrote(time.Now(), 1, updates, took) }
	// The same manager is given instruments, or none, while nothing is written: two managers would differ in more.
	measure := func(of telemetry.Store, wrote func(int, time.Duration)) {
		s.metrics, s.written, s.wrote, d.Log.(*recentLog).fsync = of, of.Update.Of("ok"), wrote, of.Fsync
	}
	// Raft measures for the whole process: into what is there, or nowhere.
	libraries := func(on bool) {
		err := error(nil)
		if on {
			err = telemetry.New().OfProcess()
		} else {
			_, err = metrics.NewGlobal(&metrics.Config{FilterDefault: true}, &metrics.BlackholeSink{})
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	defer libraries(false)
	telemetrytest.Cost(b, func(measures bool, begin func() func()) {
		measure(telemetry.Store{}, nil)
		if measures {
			measure(instruments.Store, wrote)
		}
		libraries(measures)
		end := begin()
		var all sync.WaitGroup
		for caller := range callers {
			all.Go(func() {
				for i := range each {
					id := running((caller*each + i) % tasks).ID
					if err := s.Update(context.Background(), func(tx *Tx) error {
						task := *tx.Task(id)
						task.Slot++
						return tx.Put(&task)
					}); err != nil {
						b.Error(err)
					}
				}
			})
		}
		all.Wait()
		end()
	})
	if n := telemetrytest.Read(b, instruments)["skep_store_update_seconds ok"].GetHistogram().GetSampleCount(); n < uint64(b.N*callers*each) {
		b.Errorf("%d writes were measured, of %d", n, b.N*callers*each)
	}
}
