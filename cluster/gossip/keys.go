package gossip

import (
	"bytes"
	"fmt"
	"slices"

	"skep/cluster"
)

// SetKeys replaces the ring: the first key sends from now on, all of them are
// understood, all others are forgotten. To rotate without losing members, give
// every node the new key as a second one first, then as the first one, and only
// then drop the old one.
func (g *Gossip) SetKeys(keys [][]byte) error {
	keys, err := checkKeys(keys)
	if err != nil {
		return fmt.Errorf("set gossip keys: %w", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	// What nobody needs goes before what is new comes. So a key that is only added
	// lands behind the others and never sends, not even for a moment.
	if err := g.dropOthers(keys); err != nil {
		return err
	}
	for _, key := range keys {
		if err := g.ring.AddKey(key); err != nil {
			return fmt.Errorf("set gossip keys: add key: %w", err)
		}
	}
	if !slices.EqualFunc(g.ring.GetKeys(), keys, bytes.Equal) {
		// Used last to first, the keys end up in our order and the old ones after them.
		for _, key := range slices.Backward(keys) {
			if err := g.ring.UseKey(key); err != nil {
				return fmt.Errorf("set gossip keys: use key: %w", err)
			}
		}
	}
	return g.dropOthers(keys)
}

// dropOthers forgets keys that aren't wanted, from the ring's end up to one that
// is. RemoveKey moves what follows the removed key within a slice that receivers
// are reading, which is a race unless nothing follows.
func (g *Gossip) dropOthers(keys [][]byte) error {
	for {
		installed := g.ring.GetKeys()
		last := installed[len(installed)-1]
		if len(installed) == 1 || slices.ContainsFunc(keys, func(key []byte) bool { return bytes.Equal(key, last) }) {
			return nil
		}
		if err := g.ring.RemoveKey(last); err != nil {
			return fmt.Errorf("set gossip keys: remove key: %w", err)
		}
	}
}

// checkKeys returns a copy of usable keys.
func checkKeys(keys [][]byte) ([][]byte, error) {
	if len(keys) == 0 {
		return nil, fmt.Errorf("no gossip key: %w", cluster.ErrInvalid)
	}
	checked := make([][]byte, 0, len(keys))
	for _, key := range keys {
		if len(key) != KeySize {
			return nil, fmt.Errorf("gossip key of %d bytes, want %d: %w", len(key), KeySize, cluster.ErrInvalid)
		}
		if slices.ContainsFunc(checked, func(other []byte) bool { return bytes.Equal(key, other) }) {
			return nil, fmt.Errorf("gossip key given twice: %w", cluster.ErrInvalid)
		}
		checked = append(checked, bytes.Clone(key))
	}
	return checked, nil
}
