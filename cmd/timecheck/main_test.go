package main

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stoppingWriter asks for a stop once it has as many lines as it wants.
type stoppingWriter struct {
	strings.Builder
	lines int
	stop  chan os.Signal
}

func (w *stoppingWriter) Write(p []byte) (int, error) {
	if w.lines--; w.lines == 0 {
		w.stop <- syscall.SIGTERM
	}
	return w.Builder.Write(p)
}

func TestTell_LineAtOnceThenPerTick(t *testing.T) {
	start := time.Date(2026, 1, 2, 1, 10, 43, 0, time.UTC)
	tick := make(chan time.Time, 1)
	tick <- start.Add(5 * time.Second)
	w := &stoppingWriter{lines: 2, stop: make(chan os.Signal, 1)}
	if err := tell(w, "1.0", start, tick, w.stop); err != nil {
		t.Fatal(err)
	}
	want := "App version: 1.0; time check: 01:10.43\nApp version: 1.0; time check: 01:10.48\n"
	if w.String() != want {
		t.Errorf("tell wrote\n%swant\n%s", w.String(), want)
	}
}

func TestTell_StopsWithoutWaitingForTheNextTick(t *testing.T) {
	stop := make(chan os.Signal, 1)
	stop <- syscall.SIGTERM
	var w strings.Builder
	if err := tell(&w, "1.0", time.Now(), nil, stop); err != nil {
		t.Fatal(err)
	}
	if strings.Count(w.String(), "\n") != 1 {
		t.Errorf("tell wrote %q, want one line", w.String())
	}
}
