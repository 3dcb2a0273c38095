package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"skep/cluster"
)

const (
	// shareFile begins the name of the file in the runtime directory that the nodes of a cluster on one engine have
	// locked together; the cluster's ID follows.
	shareFile = "nodes-"
	// shareLimit bounds the wait for a node that is clearing away what was shared, and shareAgain is how
	// often it is tried.
	shareLimit, shareAgain = 40 * time.Second, 50 * time.Millisecond
)

// Share notes that this node uses what nodes of the cluster on one engine have in common, until Unshare or the
// process's end. It waits for one that is clearing it away.
func (d *Driver) Share(ctx context.Context, clusterID string) error {
	d.mu.Lock()
	shares := d.share != nil
	d.clusterID = clusterID
	d.mu.Unlock()
	if shares {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, shareLimit)
	defer cancel()
	for {
		file, err := d.lockShare(syscall.LOCK_SH)
		switch {
		case err == nil:
			d.mu.Lock()
			defer d.mu.Unlock()
			d.share = file
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK) || !cluster.Sleep(ctx, shareAgain):
			return err
		}
	}
}

// Unshare ends that. Unless another node uses it, clear is run, and no other begins before it ends.
func (d *Driver) Unshare(clusterID string, clear func() error) (err error) {
	d.mu.Lock()
	d.clusterID = clusterID
	if d.share != nil {
		_ = d.share.Close()
		d.share = nil
	}
	d.mu.Unlock()
	file, err := d.lockShare(syscall.LOCK_EX)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil
	}
	if err == nil {
		defer func() {
			// The directory stays while anything else is in it.
			_, _ = os.Remove(file.Name()), os.Remove(filepath.Dir(file.Name()))
			_ = file.Close()
		}()
	}
	return errors.Join(err, clear())
}

// cluster is whose networks the engine has; "" before anybody has said so.
func (d *Driver) cluster() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.clusterID
}

// lockShare locks the file, or doesn't wait.
func (d *Driver) lockShare(how int) (*os.File, error) {
	path := filepath.Join(d.filer.dir, shareFile+d.cluster())
	for {
		if err := os.MkdirAll(d.filer.dir, 0o700); err != nil {
			return nil, fmt.Errorf("share the engine with other nodes: %w", err)
		}
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if errors.Is(err, os.ErrNotExist) {
			continue // The directory has just been removed.
		}
		if err != nil {
			return nil, fmt.Errorf("share the engine with other nodes: %w", err)
		}
		if err := syscall.Flock(int(file.Fd()), how|syscall.LOCK_NB); err != nil {
			_ = file.Close()
			return nil, fmt.Errorf("share the engine with other nodes: lock %s: %w", path, err)
		}
		// The last one removes the file: it must be the same that the next one finds.
		locked, err := file.Stat()
		if now, nowErr := os.Stat(path); err == nil && nowErr == nil && os.SameFile(locked, now) {
			return file, nil
		}
		_ = file.Close()
	}
}
