package store

import (
	"errors"
	"testing"
	"time"

	"skep/cluster"
	"skep/cluster/telemetry"
	"skep/cluster/telemetry/telemetrytest"
)

// A write that is under way is pending, and a reader that has to list anew is counted once.
func TestPendingAndResets_AreMeasured(t *testing.T) {
	metrics := telemetry.New()
	s := New(Config{Log: quiet, Metrics: metrics.Store})
	leadOn(t, s, &instant{fsm: s.FSM()})
	pending := func() float64 {
		return telemetrytest.Read(t, metrics)["skep_store_proposals_pending"].GetGauge().GetValue()
	}
	var during float64
	if err := s.Update(t.Context(), func(*Tx) error { during = pending(); return nil }); err != nil {
		t.Fatal(err)
	}
	if after := pending(); during != 1 || after != 0 {
		t.Errorf("%v pending during a write, %v after it", during, after)
	}
	slow := s.Subscribe()
	defer slow.Close()
	s.mu.Lock()
	s.publishLocked(make([]Change, maxPending+1), false)
	s.publishLocked(make([]Change, 1), false)
	s.mu.Unlock()
	slow.Take()
	s.mu.Lock()
	s.publishLocked(nil, true)
	s.mu.Unlock()
	if got := telemetrytest.Read(t, metrics)["skep_store_subscribers_reset_total"].GetCounter().GetValue(); got != 2 {
		t.Errorf("%v resets, want 2", got)
	}
}

func TestUpdate_IsMeasuredByResult(t *testing.T) {
	metrics := telemetry.New()
	s := New(Config{Log: quiet, Metrics: metrics.Store})
	nothing := func(*Tx) error { return nil }
	if err := s.Update(t.Context(), nothing); !errors.Is(err, cluster.ErrNotLeader) {
		t.Fatal(err)
	}
	leadOn(t, s, &instant{fsm: s.FSM()})
	put(t, s, service("s1", "web"))
	if err := s.Update(t.Context(), func(*Tx) error { return cluster.ErrConflict }); !errors.Is(err, cluster.ErrConflict) {
		t.Fatal(err)
	}
	read := telemetrytest.Read(t, metrics)
	for name, want := range map[string]uint64{
		"skep_store_update_seconds ok": 1, "skep_store_update_seconds refused": 1, "skep_store_update_seconds not_leader": 1,
		"skep_raft_commit_seconds": 1, "skep_raft_apply_seconds": 1, "skep_store_batch_size": 1,
	} {
		if got := read[name].GetHistogram().GetSampleCount(); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
}

// What is told to have been written is what was accepted, before anybody hears that.
func TestUpdate_TellsWhatWasAccepted(t *testing.T) {
	told := 0
	s := New(Config{Log: quiet, Wrote: func(updates int, took time.Duration) {
		if told += updates; took < 0 {
			t.Errorf("it took %v", took)
		}
	}})
	leadOn(t, s, &instant{fsm: s.FSM()})
	put(t, s, service("s1", "web"))
	if err := s.Update(t.Context(), func(*Tx) error { return cluster.ErrConflict }); !errors.Is(err, cluster.ErrConflict) {
		t.Fatal(err)
	}
	put(t, s, service("s2", "db"))
	if told != 2 {
		t.Errorf("%d writes are told, and 2 were accepted", told)
	}
}
