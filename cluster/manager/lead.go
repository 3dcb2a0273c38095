package manager

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"skep/cluster"
	"skep/cluster/timeline"
	"skep/scheduler"
	"skep/store"
)

// lead is what a leader does. It returns when leadership ends, or when one of
// its parts fails.
func (m *Manager) lead(ctx context.Context, term uint64) error {
	m.reachable.reset()
	began := m.cfg.Now()
	// What the leader before had no time to tell, this one tells. Of all that its own log has,
	// if it was just started, it can't know what was told.
	var untold *store.Subscription
	if m.followed() {
		untold = m.store.Subscribe()
		defer untold.Close()
	}
	return m.store.Lead(ctx, m.entries, func(ctx context.Context) error {
		if untold == nil {
			untold = m.store.Subscribe() // from before the first write
			defer untold.Close()
		}
		now := m.cfg.Now()
		m.timeline.Add(timeline.Record{Time: now, Kind: timeline.Ready, Term: term, Took: now.Sub(began)})
		return m.leaderWork(ctx, term, untold)
	})
}

// leaderWork is what a leader does once it can write, until ctx ends or a part of it fails.
func (m *Manager) leaderWork(ctx context.Context, term uint64, untold *store.Subscription) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.logChanges(ctx, untold) })
	g.Go(func() error {
		if err := m.bootstrap(ctx); err != nil {
			return err
		}
		if err := m.noteColdStart(ctx); err != nil {
			return err
		}
		m.setEstablished(term)
		g.Go(func() error { // At once, not when the last part has ended.
			<-ctx.Done()
			m.setEstablished(0)
			return ctx.Err()
		})
		m.log.Info("lead the cluster", "name", m.nameOf(m.cfg.NodeID), "node", m.cfg.NodeID, "term", term)
		g.Go(func() error {
			return scheduler.Run(ctx, scheduler.Config{
				Store: m.store, Now: m.store.Now, Monotonic: m.cfg.Now, Log: m.log,
				NewID: func() string { return cluster.NewID(m.cfg.Random) }, Metrics: m.cfg.Metrics.Scheduler, Trace: m.cfg.Trace,
			})
		})
		g.Go(func() error { return m.dispatch.Lead(ctx) })
		g.Go(func() error { return m.sendHeartbeats(ctx) })
		g.Go(func() error { return m.rotate(ctx) })
		g.Go(func() error { return m.forget(ctx) })
		g.Go(func() error { return m.finishRoot(ctx) })
		g.Go(func() error { return m.raiseLevel(ctx) })
		g.Go(func() error { return m.numberNodes(ctx) })
		g.Go(func() error { return m.endDrains(ctx) })
		g.Go(func() error { return m.freeAttachments(ctx) })
		g.Go(func() error { return m.cfg.WatchImages(ctx, m.store) })
		return m.followRoles(ctx)
	})
	return g.Wait()
}

// leadTimeout bounds each step of raft's that a leader waits for.
const leadTimeout = 10 * time.Second

// bootstrap writes the objects that a new cluster begins with.
func (m *Manager) bootstrap(ctx context.Context) error {
	if m.cfg.Bootstrap == nil || m.store.View().Cluster() != nil {
		return nil
	}
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		if tx.Cluster() != nil {
			return nil
		}
		first, node := *m.cfg.Bootstrap.Cluster, *m.cfg.Bootstrap.Node
		if err := tx.Put(&first); err != nil {
			return err
		}
		node.Index = chooseIndex(tx.View, node.ID)
		if err := tx.Put(&node); err != nil || m.cfg.Bootstrap.Ingress == nil {
			return err
		}
		ingress := *m.cfg.Bootstrap.Ingress
		return tx.Put(&ingress)
	})
	if err != nil {
		return fmt.Errorf("write the new cluster's first objects: %w", err)
	}
	return nil
}

// noteColdStart writes down that all managers had been off, if this one leads and has
// followed nobody since its start. With no other node that means nothing.
func (m *Manager) noteColdStart(ctx context.Context) error {
	if m.followed() {
		return nil
	}
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		if tx.Cluster() == nil || tx.NodeCount() < 2 {
			return nil
		}
		next := *tx.Cluster()
		next.ColdStart = tx.Now()
		return tx.Put(&next)
	})
	if err != nil {
		return fmt.Errorf("write that all managers had been off: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.warm = true
	return nil
}

// followed tells whether this manager has followed a leader since its start, or has led.
func (m *Manager) followed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.warm
}

// keepUp takes a step at once, after each change of the store, when the last one said so
// but within a minute, and a second after one that failed, until ctx ends; complaint is
// what is logged then.
func (m *Manager) keepUp(ctx context.Context, complaint string, step func() (again time.Duration, err error)) error {
	changes := m.store.Subscribe()
	defer changes.Close()
	for {
		wait, err := step()
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			m.log.Warn(complaint, "err", err)
			wait = time.Second
		}
		wait = defaulted(wait, time.Minute)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-changes.Ready():
			changes.Take()
		case <-timer.C:
		}
		timer.Stop()
	}
}
