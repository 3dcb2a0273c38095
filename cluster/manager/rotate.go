package manager

import (
	"context"
	"fmt"
	"slices"
	"time"

	"skep/cluster"
	"skep/store"
	"skep/store/seal"
)

const (
	// maxGossipKeys is the size of the ring: the key that sends, the one that sent
	// before, and the one that is to send next.
	maxGossipKeys = 3
	// maxSpread is how long a new key is only understood, before it sends. Sessions
	// get it at once, a node whose session broke gets it with the next one, and one
	// without a session for so long is down: it is given the keys when it comes back.
	maxSpread = 10 * time.Minute
	// rotateLook is how long rotate sleeps at most: clocks can be set.
	rotateLook = time.Minute
)

// spread is how long a new key is only understood.
func spread(period time.Duration) time.Duration { return min(maxSpread, period/3) }

// nextRing decides about the gossip keys: the cluster's record with the step that
// is due, or nil and the time until one is. A new key comes last and drops the
// oldest of a full ring; when all have had time to get it, it becomes the first.
// Each key sends for one period.
func nextRing(c *cluster.Cluster, now time.Time, period time.Duration, newKey func() []byte) (*cluster.Cluster, time.Duration) {
	next := *c
	next.GossipKeysAt = now
	age := now.Sub(c.GossipKeysAt)
	switch keys := c.GossipKeys; {
	case c.GossipKeysAt.IsZero() || age < 0:
		// The age isn't known: the time was never noted, or by a clock ahead of this
		// one. Counted anew, it waits too long rather than not long enough.
	case c.NextGossipKey && age < spread(period):
		return nil, spread(period) - age
	case c.NextGossipKey:
		last := len(keys) - 1
		next.GossipKeys = slices.Concat(keys[last:], keys[:last])
		next.NextGossipKey = false
		next.Networks.Generation = max(c.NetworkSettings().Generation+1, 1) // Nodes make their own keys.
	case age < period-spread(period):
		return nil, period - spread(period) - age
	default:
		next.GossipKeys = append(slices.Clone(keys[:min(len(keys), maxGossipKeys-1)]), newKey())
		next.NextGossipKey = true
	}
	return &next, 0
}

// rotate gives the cluster new gossip keys from time to time. All it knows is in
// the store, so a new leader goes on with a rotation that an old one began.
func (m *Manager) rotate(ctx context.Context) error {
	for {
		wait, err := m.stepRotation(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			m.log.Warn("rotate gossip keys; trying again", "err", err)
			wait = time.Second
		}
		cluster.Sleep(ctx, min(wait, rotateLook))
	}
}

// stepRotation takes the step that is due, if any, and tells when to look again.
func (m *Manager) stepRotation(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, leadTimeout)
	defer cancel()
	newKey := func() []byte {
		key := seal.NewKey(m.cfg.Random)
		return key[:]
	}
	var next *cluster.Cluster
	wait := rotateLook
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		c := tx.Cluster()
		if c == nil {
			return nil
		}
		if next, wait = nextRing(c, tx.Now(), m.cfg.GossipKeyPeriod, newKey); next == nil {
			return nil
		}
		return tx.Put(next)
	})
	if err != nil {
		return 0, fmt.Errorf("write gossip keys: %w", err)
	}
	if next != nil {
		m.log.Info("rotate gossip keys", "node", m.cfg.NodeID, "keys", len(next.GossipKeys), "next", next.NextGossipKey)
	}
	return wait, nil
}
