package node

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
	// roomNeeded is what a manager's disk must take for it to start, in bytes.
	roomNeeded = 1 << 20
	// roomEvery is how often a full disk is tried again.
	roomEvery = 5 * time.Second
)

// awaitRoom waits while the disk of a manager is full. Such a manager has ended at a write,
// and would again: whoever starts it each time would do nothing else. A worker goes on
// without a disk.
func (n *Node) awaitRoom(ctx context.Context) error {
	there, err := exists(n.files.raft())
	if err != nil || !there {
		return err
	}
	for waited := false; ; waited = true {
		err := n.tryRoom()
		if err == nil || !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
			// What else is wrong with the disk says whoever needs it.
			n.setEntry(nil)
			if waited {
				n.log.Info("the disk has room again", "dir", n.cfg.DataDir)
			}
			return nil
		}
		if !waited {
			err = fmt.Errorf("start as a manager: %w; it starts by itself when there is room on the disk with %s", err, n.cfg.DataDir)
			n.setEntry(err)
			n.log.Error("wait for room on the disk", "err", err)
		}
		if !cluster.Sleep(ctx, roomEvery) {
			return ctx.Err()
		}
	}
}

// tryRoom writes a file as large as roomNeeded, and removes it.
func (n *Node) tryRoom() error {
	path := filepath.Join(n.cfg.DataDir, "room")
	write := func() (err error) {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, file.Close(), os.Remove(path)) }()
		if _, err := file.Write(make([]byte, roomNeeded)); err != nil {
			return err
		}
		return file.Sync()
	}
	if n.cfg.Write != nil {
		return n.cfg.Write("look for room", write)
	}
	return write()
}

func (n *Node) setEntry(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.entry = err
}
