package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/ca"
)

// Clear is Leave for a node whose daemon doesn't run, and never will again: it removes what the node has on
// this machine, as Leave does, and its files at last, so that it can be repeated until all is done. Managers
// aren't told. It fails while a daemon has the directory. Force is for one that was a manager, whose
// database goes, too.
func Clear(ctx context.Context, cfg Config, force bool) error {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{cfg: cfg, log: cfg.Log, files: files{cfg.DataDir}}
	there, err := exists(n.files.keys())
	if err != nil {
		return fmt.Errorf("look for the key file: %w", err)
	}
	if !there {
		return cluster.Errorf(cluster.ErrNotFound, "clear what a node left: there is no %s, so nobody knows which node it was", n.files.keys())
	}
	release, err := n.files.claim()
	if err != nil {
		return err
	}
	defer func() { _ = release() }()
	keys, err := ca.KeyFile{Path: n.files.keys()}.Load()
	if err != nil && !errors.Is(err, cluster.ErrLocked) {
		return fmt.Errorf("clear what a node left: %w", err)
	}
	id, err := keys.Identity()
	if err != nil {
		return fmt.Errorf("clear what a node left: %w", err)
	}
	if id.Role == swarm.NodeRoleManager && !force {
		return cluster.Errorf(cluster.ErrPrecondition, "clear what node %s left: it was a manager, whose copy of the cluster's data goes with it; the last manager's is the only one: use --force if that may be", id.NodeID)
	}
	ctx, cancel := context.WithTimeout(ctx, clearLimit)
	defer cancel()
	if err := n.clear(ctx, id); err != nil {
		return fmt.Errorf("clear what node %s left: %w", id.NodeID, err)
	}
	return n.files.wipe()
}
