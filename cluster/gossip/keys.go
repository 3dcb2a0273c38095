package gossip

import (
	"fmt"

	"skep/cluster/gossip/guard"
)

// KeySize is the length of a key, in bytes.
const KeySize = guard.KeySize

// SetKeys replaces the ring: the first key sends from now on, all of them are
// understood, all others are forgotten. To rotate without losing members, give
// every node the new key as a second one first, then as the first one, and only
// then drop the old one.
func (g *Gossip) SetKeys(keys [][]byte) error {
	if err := g.ring.Set(keys); err != nil {
		return fmt.Errorf("set gossip keys: %w", err)
	}
	return nil
}
