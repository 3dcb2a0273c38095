package manager

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"skep/cluster"
	"skep/store"
)

// Nodes have small numbers in networks, since packets' marks have room for ten bits. A node
// gets one when it is admitted. When there are more nodes than numbers, the others wait for
// one to be removed: they work, but for networks.

// chooseIndex is an index that no node has; 0 when all are given out. The search begins where
// the digest of the node's ID says, so that one that was freed isn't given to the next node:
// packets that are on their way to the one before mustn't reach it.
func chooseIndex(view store.View, nodeID string) uint16 {
	h := fnv.New32a()
	h.Write([]byte(nodeID))
	begin := h.Sum32() % cluster.MaxIndex
	for i := range uint32(cluster.MaxIndex) {
		index := uint16(1 + (begin+i)%cluster.MaxIndex)
		if _, held := view.Holder(cluster.UniqueIndex(index)); !held {
			return index
		}
	}
	return 0
}

// numberNodes gives indexes to the nodes that have none: those that an older skep admitted,
// and those that came when there were none left. It runs while this manager leads.
func (m *Manager) numberNodes(ctx context.Context) error {
	changes := m.store.Subscribe()
	defer changes.Close()
	for {
		if err := m.numberSome(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("nodes can't be given an index for networks; trying again", "err", err)
			cluster.Sleep(ctx, numberRetry)
			continue
		}
		for look := false; !look; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changes.Ready():
				news, _, lost := changes.Take()
				look = lost || slices.ContainsFunc(news, comesOrGoes)
			}
		}
	}
}

// numberRetry is the pause after an index couldn't be written.
const numberRetry = time.Second

// comesOrGoes tells whether a change adds or removes a node.
func comesOrGoes(c store.Change) bool {
	before, after := store.Sides[cluster.Node](c)
	return (before == nil) != (after == nil)
}

// numberSome gives an index to each node without one, as long as there are any.
func (m *Manager) numberSome(ctx context.Context) error {
	if len(unnumbered(m.store.View())) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leadTimeout)
	defer cancel()
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		for _, node := range unnumbered(tx.View) {
			next := *node
			if next.Index = chooseIndex(tx.View, node.ID); next.Index == 0 {
				return nil
			}
			if err := tx.Put(&next); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("give nodes an index: %w", err)
	}
	return nil
}

// unnumbered are the nodes without an index, those first that joined first; none when all
// indexes are given out.
func unnumbered(view store.View) []*cluster.Node {
	var list []*cluster.Node
	numbered := 0
	for node := range view.Nodes() {
		if node.Index == 0 {
			list = append(list, node)
		} else {
			numbered++
		}
	}
	if numbered >= cluster.MaxIndex {
		return nil
	}
	slices.SortStableFunc(list, func(a, b *cluster.Node) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return list
}
