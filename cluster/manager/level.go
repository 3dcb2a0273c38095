package manager

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// raiseLevel raises the cluster's level whenever all nodes can: what was written at the
// lower one is read by all, and what the higher one adds will be. It never goes down.
func (m *Manager) raiseLevel(ctx context.Context) error {
	said := ""
	return m.keepUp(ctx, "", func() (time.Duration, error) {
		// What it waits for may take days, and shows in what changes or in the next minute.
		err := m.stepLevel(ctx)
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			m.log.Info("the cluster's level isn't raised yet", "err", err)
		}
		if err != nil {
			cluster.Sleep(ctx, levelRetry)
		}
		return 0, nil
	})
}

// levelRetry is the least pause between attempts: each asks all managers.
const levelRetry = 2 * time.Second

// nextLevel is the highest level that the leader's build and all nodes can write, as far
// as they said last.
func nextLevel(view store.View, self cluster.Build) int {
	level := max(self.Level, 1)
	for node := range view.Nodes() {
		level = min(level, max(node.Build.Level, 1))
	}
	return level
}

func (m *Manager) stepLevel(ctx context.Context) error {
	view := m.store.View()
	c := view.Cluster()
	if c == nil {
		return nil
	}
	level := nextLevel(view, m.cfg.Build)
	if level <= c.Level {
		return nil
	}
	// A manager may run an older skep than it said last. The level would end it.
	if err := m.managersCan(ctx, view, level); err != nil {
		return err
	}
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		if c = tx.Cluster(); c == nil || c.Level >= level || nextLevel(tx.View, m.cfg.Build) < level {
			return nil
		}
		next := *c
		next.ClusterLevel = cluster.ClusterLevel{Level: level, LevelVersion: m.cfg.Build.Version}
		return tx.Put(&next)
	})
	if err != nil {
		return fmt.Errorf("write level %d: %w", level, err)
	}
	m.log.Info("the cluster's level is raised: older versions of skep don't fit any more", "level", level, "version", m.cfg.Build.Version)
	return nil
}

// managersCan asks all managers which skep they run now.
func (m *Manager) managersCan(ctx context.Context, view store.View, level int) error {
	ctx, cancel := context.WithTimeout(ctx, leadTimeout)
	defer cancel()
	var asked sync.WaitGroup
	refusals := make(chan error, view.NodeCount())
	for node := range view.Nodes() {
		if node.ID == m.cfg.NodeID || node.Role != swarm.NodeRoleManager && node.Spec.Role != swarm.NodeRoleManager {
			continue
		}
		asked.Go(func() {
			health, err := m.askHealth(ctx, node.ManagerAddr)
			if err == nil && !health.Can(level) {
				err = fmt.Errorf("it runs %s", health.Name())
			}
			if err != nil {
				refusals <- fmt.Errorf("manager %s (%s) can't be raised to level %d: %w", node.Description.Hostname, node.ID, level, err)
			}
		})
	}
	asked.Wait()
	select {
	case err := <-refusals:
		return err
	default:
		return nil
	}
}
