package store

import (
	"context"
	"os"
	"time"

	"skep/cluster"
)

// prepareDir makes the folder, for its owner only, and tries a write.
func prepareDir(dir string, dog *watchdog) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return err
	}
	return dog.time("try a write to "+dir, 0, func() error { return try(dir) })
}

// try writes a file and syncs it.
func try(dir string) error {
	probe, err := os.CreateTemp(dir, "probe-*")
	if err != nil {
		return err
	}
	defer os.Remove(probe.Name())
	defer probe.Close()
	if _, err := probe.Write(make([]byte, 4096)); err != nil {
		return err
	}
	if err := probe.Sync(); err != nil {
		return err
	}
	return cluster.SyncDir(dir)
}

// Hung is for how long a write has been under way that takes too long; 0 when none is.
func (d *Disk) Hung() time.Duration { return d.dog.hung() }

// Answers tries a write, and tells whether it was done before ctx ended. One that
// wasn't goes on, and nothing else is tried until it is done.
func (d *Disk) Answers(ctx context.Context) bool {
	select {
	case d.trying <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	done := make(chan error, 1)
	go func() {
		defer func() { <-d.trying }()
		write := func() error { return try(d.dir) }
		if d.dog.run != nil {
			done <- d.dog.run("try a write", write)
			return
		}
		done <- write()
	}()
	select {
	case err := <-done:
		return err == nil
	case <-ctx.Done():
		return false
	}
}
