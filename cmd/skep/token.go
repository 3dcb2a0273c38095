package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/docker/client"

	"skep/cluster"
)

// A token that was rotated is in the files this long after, at most; a node that tries
// to join with an old one tries again.
const (
	tokenPoll   = time.Second // until there are tokens
	tokenReread = 15 * time.Second
)

// keepTokens keeps the files "manager" and "worker" in dir holding the cluster's join
// tokens, for nodes that read them with --token-file, until ctx ends. It asks the
// node's own API at host. On a node that isn't a manager there is nothing to write.
func keepTokens(ctx context.Context, host, dir string, log *slog.Logger) {
	c, err := client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
	if err != nil {
		log.Error("keep join tokens", "err", err)
		return
	}
	defer c.Close()
	for {
		wait := tokenPoll
		if cluster, err := c.SwarmInspect(ctx); err == nil {
			wait = tokenReread
			t := cluster.JoinTokens
			if err := errors.Join(
				keepFile(filepath.Join(dir, "manager"), t.Manager),
				keepFile(filepath.Join(dir, "worker"), t.Worker),
			); err != nil {
				log.Error("keep join tokens", "err", err)
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// keepFile makes the file hold the text, readable by its owner only, and replaces it
// in one step: a reader sees the old or the new, never half of it.
func keepFile(path, text string) error {
	old, err := os.ReadFile(path)
	if err == nil && string(old) == text+"\n" {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return cluster.ReplaceFile(path, []byte(text+"\n"))
}
