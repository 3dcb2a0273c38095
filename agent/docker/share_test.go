package docker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestShare has nodes of one engine leave one after the other, and at once: the last one clears away what they had in
// common, nobody else does, and whoever comes meanwhile waits.
func TestShare(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	node := func() *Driver {
		d, err := New(Config{RuntimeDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	cleared := 0
	clear := func() error { cleared++; return nil }
	share := func(d *Driver) {
		t.Helper()
		if err := d.Share(t.Context(), "c1"); err != nil {
			t.Fatal(err)
		}
	}
	leave := func(d *Driver, want int) {
		t.Helper()
		if err := d.Unshare("c1", clear); err != nil || cleared != want {
			t.Fatalf("cleared %d times, want %d (%v)", cleared, want, err)
		}
	}
	a, b, c := node(), node(), node()
	for _, d := range []*Driver{a, a, b, c} {
		share(d)
	}
	leave(a, 0)
	share(a) // It joined again.
	leave(b, 0)
	leave(b, 0)
	leave(a, 0)
	leave(c, 1)
	other := node()
	if err := other.Share(t.Context(), "c2"); err != nil {
		t.Fatal(err)
	}
	leave(node(), 2) // of one that was killed: nobody knows
	if err := other.Unshare("c2", clear); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}

	// At once.
	const many = 8
	did := make(chan int, many)
	var all []*Driver
	for range many {
		d := node()
		share(d)
		all = append(all, d)
	}
	for _, d := range all {
		go func() {
			n := 0
			if err := d.Unshare("c1", func() error { n = 1; return nil }); err != nil {
				t.Error(err)
			}
			did <- n
		}()
	}
	sum := 0
	for range many {
		sum += <-did
	}
	if sum == 0 {
		t.Error("of eight that left at once nobody cleared away anything")
	}

	// Who comes meanwhile.
	came := make(chan error, 1)
	if err := a.Unshare("c1", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 3*shareAgain)
		defer cancel()
		if err := b.Share(ctx, "c1"); err == nil {
			t.Error("another node came while one cleared away")
		}
		go func() { came <- c.Share(t.Context(), "c1") }()
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := <-came; err != nil {
		t.Error(err)
	}
	share(b)
	cleared = 0
	leave(b, 0)
}
