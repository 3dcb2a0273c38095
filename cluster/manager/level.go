package manager

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
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
	defer m.setLevelWaits(nil)
	return m.keepUp(ctx, "", func() (time.Duration, error) {
		// What it waits for may take days, and shows in what changes or in the next minute.
		err := m.stepLevel(ctx)
		m.setLevelWaits(err)
		if err != nil && ctx.Err() == nil && err.Error() != said {
			said = err.Error()
			m.log.Info("the cluster's level isn't raised yet", "err", err)
		}
		switch {
		case errors.Is(err, errNotKept):
			cluster.Sleep(ctx, keepRetry)
		case err != nil:
			cluster.Sleep(ctx, levelRetry)
		}
		return 0, nil
	})
}

// levelRetry is the least pause between attempts: each asks all managers.
const levelRetry = 2 * time.Second

// keepRetry is the least pause after a manager couldn't keep a copy: to find that there is no room it reads
// all of its database.
const keepRetry = 30 * time.Second

var errNotKept = errors.New("no copy of the database is kept")

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
	// Nobody goes back by what a newer version writes from then on.
	if err := m.managersKeep(ctx, view, level); err != nil {
		return fmt.Errorf("%w: %w", errNotKept, err)
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

// levelWaits is why the cluster's level isn't raised though all nodes can; empty for nothing.
func (m *Manager) levelWaits() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leader.levelReason
}

func (m *Manager) setLevelWaits(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leader.levelReason = ""; err != nil {
		m.leader.levelReason = err.Error()
	}
}

// managersCan asks all managers which skep they run now.
func (m *Manager) managersCan(ctx context.Context, view store.View, level int) error {
	return m.allManagers(ctx, view, leadTimeout, level, func(ctx context.Context, node *cluster.Node) error {
		if node.ID == m.cfg.NodeID {
			return nil
		}
		health, err := m.askHealth(ctx, node.ManagerAddr)
		if err == nil && !health.Can(level) {
			err = fmt.Errorf("it runs %s", health.Name())
		}
		return err
	})
}

// keepLimit is how long all managers together may take to keep a copy of their database.
const keepLimit = 5 * time.Minute

// KeepRequest has a manager keep a copy of its database as it is, from before the cluster rises to a
// level: POST /v1/keep, of any manager.
type KeepRequest struct {
	Level int `cbor:"1,keyasint"`
	// Index is the least that the copy must have.
	Index uint64 `cbor:"2,keyasint"`
}

// managersKeep has each manager keep a copy of its database, for the way back: any of them may be the
// one that is left.
func (m *Manager) managersKeep(ctx context.Context, view store.View, level int) error {
	request := KeepRequest{Level: level, Index: view.Index()}
	return m.allManagers(ctx, view, keepLimit, level, func(ctx context.Context, node *cluster.Node) error {
		if node.ID == m.cfg.NodeID {
			return m.keepCopy(ctx, request)
		}
		return m.askKeep(ctx, node.ManagerAddr, request)
	})
}

// keep is keepCopy for the leader.
func (m *Manager) keep(r *http.Request, request KeepRequest) error {
	return m.keepCopy(r.Context(), request)
}

func (m *Manager) keepCopy(ctx context.Context, request KeepRequest) error {
	if m.cfg.Keep == nil {
		return nil
	}
	err := m.store.Wait(ctx, request.Index)
	if view := m.store.View(); err == nil && view.Cluster() != nil && view.Cluster().At() >= request.Level {
		err = cluster.Errorf(cluster.ErrPrecondition, "the cluster is at level %d already", view.Cluster().At())
	} else if err == nil {
		err = m.cfg.Keep(request.Level, Copy{view})
	}
	if err != nil {
		return fmt.Errorf("keep a copy of the database from before level %d: %w", request.Level, err)
	}
	return nil
}

func (m *Manager) askKeep(ctx context.Context, addr string, request KeepRequest) error {
	body, err := cluster.Encode(request)
	if err != nil {
		return err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+addr+"/v1/keep", bytes.NewReader(body))
	if err != nil {
		return err
	}
	response, err := m.transport.Client().Do(post)
	if err != nil {
		return err
	}
	_, err = readAnswer(addr, response)
	return err
}

// allManagers does something with each manager at the same time, and gives one of the errors.
func (m *Manager) allManagers(ctx context.Context, view store.View, limit time.Duration, level int, do func(context.Context, *cluster.Node) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var asked sync.WaitGroup
	refusals := make(chan error, view.NodeCount())
	for node := range view.Nodes() {
		if node.Role != swarm.NodeRoleManager && node.Spec.Role != swarm.NodeRoleManager {
			continue
		}
		asked.Go(func() {
			if err := do(ctx, node); err != nil {
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
