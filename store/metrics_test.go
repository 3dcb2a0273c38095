package store

import (
	"errors"
	"testing"
	"time"

	"skep/cluster"
	"skep/cluster/telemetry"
	"skep/cluster/telemetry/telemetrytest"
)

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
