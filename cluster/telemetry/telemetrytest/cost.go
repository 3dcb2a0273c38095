package telemetrytest

import (
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

// ProcessorTime is how much time of processors the process has had: others use the machine, too.
func ProcessorTime() time.Duration {
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// Cost reports as "times" how much longer processors work where all is measured than where nothing is. Run does the
// same in both cases and calls begin when it is set up, and what that returns when it is done. The two take turns, b.N times,
// the one first and then the other; the median of the turns' ratios counts.
func Cost(b *testing.B, run func(measured bool, begin func() (end func()))) {
	took := func(measured bool) (took time.Duration) {
		run(measured, func() func() {
			runtime.GC() // What was set up isn't collected at the cost of what is timed.
			began := ProcessorTime()
			return func() { took = ProcessorTime() - began }
		})
		return took
	}
	var plain, measured, times []float64
	for i := range b.N {
		var without, with time.Duration
		if i%2 == 0 {
			without, with = took(false), took(true)
		} else {
			with, without = took(true), took(false)
		}
		plain, measured, times = append(plain, without.Seconds()), append(measured, with.Seconds()), append(times, with.Seconds()/without.Seconds())
	}
	b.ReportMetric(median(plain), "s/plain")
	b.ReportMetric(median(measured), "s/measured")
	b.ReportMetric(median(times), "times")
	b.ReportMetric(0, "ns/op")
}

func median(all []float64) float64 {
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}
