package manager

import (
	"context"
	"fmt"
	"time"

	"skep/cluster"
	"skep/store"
)

// drainsOver are the nodes that were drained for a time that is over, and how long it is until the next one's is;
// 0 when there is none.
func drainsOver(view store.View, now time.Time) (over []*cluster.Node, wait time.Duration) {
	for node := range view.Nodes() {
		until := cluster.DrainsUntil(node.Spec)
		left := until.Sub(now)
		switch {
		case until.IsZero():
		case left <= 0:
			over = append(over, node)
		case wait == 0 || left < wait:
			wait = left
		}
	}
	return over, wait
}

// endDrains makes nodes active again that were drained for a while. It runs while this manager leads: the time is
// in the nodes' specs, so it doesn't matter who led when it was set.
func (m *Manager) endDrains(ctx context.Context) error {
	return m.keepUp(ctx, "make a node active again whose drain is over; trying again", func() (time.Duration, error) {
		over, wait := drainsOver(m.store.View(), m.store.Now())
		if len(over) == 0 {
			return min(wait, time.Minute), nil // Clocks can be set.
		}
		return 0, m.activate(ctx)
	})
}

// activate ends the drains whose time is over. The write wakes endDrains for those that are left.
func (m *Manager) activate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leadTimeout)
	defer cancel()
	var over []*cluster.Node
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		over, _ = drainsOver(tx.View, tx.Now())
		for _, node := range over {
			next := *node
			next.Spec = cluster.Activated(node.Spec)
			if err := tx.Put(&next); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("make nodes active: %w", err)
	}
	for _, node := range over {
		m.log.Info("the time is over for which a node was drained: it takes tasks again", "name", node.Description.Hostname, "node", node.ID)
	}
	return nil
}
