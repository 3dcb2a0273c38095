package store

import (
	"testing"
	"time"

	"skep/cluster"
)

func TestNow_NeverGoesBack(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	s := New(Config{Now: func() time.Time { return at }})
	begin := s.Now()
	for _, step := range []struct{ by, want time.Duration }{
		{time.Second, time.Second},
		{-time.Hour, time.Second},
		{time.Second, 2 * time.Second},
		{2 * time.Hour, 2*time.Hour + 2*time.Second},
	} {
		at = at.Add(step.by)
		if got := s.Now().Sub(begin); got != step.want {
			t.Errorf("the clock went by %v, and the time is %v after the beginning; want %v", step.by, got, step.want)
		}
	}
}

func TestLead_GoesOnFromTheTimeOfTheDatabase(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, put := range []any{&cluster.Task{ID: "t", ServiceID: "s"}, service("s", "web")} {
		now := at.Add(time.Hour)
		s := New(Config{Now: func() time.Time { return now }})
		first := &instant{fsm: s.FSM()}
		leadOn(t, s, first)
		update(t, s, func(tx *Tx) error { return tx.Put(put) })
		// The next leader's clock is an hour behind.
		s = New(Config{Now: func() time.Time { return at }})
		next := &instant{fsm: s.FSM(), index: first.index}
		for _, entry := range first.entries {
			next.fsm.Apply(entry)
		}
		leadOn(t, s, next)
		update(t, s, func(tx *Tx) error {
			if tx.Now().Before(now) {
				t.Errorf("after %T was written at %v, it is %v", put, now, tx.Now())
			}
			return nil
		})
	}
}
