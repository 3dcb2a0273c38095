package scheduler

import (
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/telemetry"
	"skep/cluster/telemetry/telemetrytest"
)

// What waits to be planned is counted, and so is what was planned and no longer fits.
func TestMeasure_DirtyAndDropped(t *testing.T) {
	h, metrics := newHive(t), telemetry.New()
	h.loop.measure = newMeasure(metrics.Scheduler)
	h.put(h.node("n1"))
	h.service("web", func(*swarm.ServiceSpec) {})
	h.loop.refresh()
	h.loop.measure.Dirty.Is(h.loop.dirty.count())
	dirty := telemetrytest.Read(t, metrics)["skep_scheduler_dirty"].GetGauge().GetValue()
	if dirty == 0 || dirty != float64(h.loop.dirty.count()) {
		t.Errorf("%v are dirty, want %d", dirty, h.loop.dirty.count())
	}
	result, _ := h.loop.plan()
	if dropped, err := Write(t.Context(), h.db, result.Intents); err != nil || dropped != 0 {
		t.Errorf("%d dropped, %v", dropped, err)
	}
	dropped, err := Write(t.Context(), h.db, result.Intents) // It is there already.
	if err != nil || dropped != len(result.Intents) || dropped == 0 {
		t.Errorf("%d of %d dropped, %v", dropped, len(result.Intents), err)
	}
}

// A service's task fails and is replaced: what was wanted, how long it took, and how it ended.
func TestMeasure(t *testing.T) {
	h, metrics := newHive(t), telemetry.New()
	h.loop.measure = newMeasure(metrics.Scheduler)
	h.service("web", func(s *swarm.ServiceSpec) {
		two := uint64(2)
		s.Mode.Replicated.Replicas = &two
	})
	h.settle()
	h.now = h.now.Add(3 * time.Second) // They wait for a node for so long.
	h.put(h.node("n1"))
	h.settle()
	h.obey()
	h.loop.refresh()
	h.now = h.now.Add(time.Minute)
	h.report("t01", cluster.StateFailed, "task: non-zero exit (1)")
	h.settle()

	got := map[string]string{}
	for name, m := range telemetrytest.Read(t, metrics) {
		if m.Histogram != nil {
			got[name] = fmt.Sprint(m.Histogram.GetSampleCount(), " ", m.Histogram.GetSampleSum())
		} else if m.Counter != nil {
			got[name] = fmt.Sprint(m.Counter.GetValue())
		}
	}
	for name, want := range map[string]string{
		"skep_task_placement_seconds":            "3 6", // the replacement is placed as it is made
		"skep_task_start_seconds":                "2 6",
		"skep_task_ends_total failed web":        "1",
		"skep_scheduler_intents_total assign":    "2",
		"skep_scheduler_intents_total create":    "3",
		"skep_scheduler_intents_total configure": "",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if h.loop.measure.service(h.db.View(), "gone") != telemetry.OtherServices {
		t.Error("a service that is gone has a name")
	}
	for i := range telemetry.NamedServices {
		h.loop.measure.names[fmt.Sprint(i)] = true
	}
	h.service("late", func(*swarm.ServiceSpec) {})
	if got := h.loop.measure.service(h.db.View(), "late"); got != telemetry.OtherServices {
		t.Errorf("one service too many is counted as %s", got)
	}
}
