package seal

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/hashicorp/raft"
)

// Stable is raft's terms and votes, sealed in another stable store. They aren't
// secret, but a bit of them that flips unseen would let a manager vote twice.
type Stable struct {
	inner     raft.StableStore
	ring      *Ring
	clusterID string
	writing   sync.Mutex // held while a value is sealed and written
}

var _ raft.StableStore = (*Stable)(nil)

// NewStable wraps inner.
func NewStable(inner raft.StableStore, ring *Ring, clusterID string) *Stable {
	return &Stable{inner: inner, ring: ring, clusterID: clusterID}
}

// Set stores a value.
func (s *Stable) Set(key, value []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.inner.Set(key, s.ring.Seal(value, s.place(key)))
}

// Get reads a value. The error for what isn't there is the inner store's, which
// raft knows by its text.
func (s *Stable) Get(key []byte) ([]byte, error) {
	sealed, err := s.inner.Get(key)
	if err != nil || len(sealed) == 0 {
		return nil, err
	}
	return s.Open(key, sealed)
}

// Open opens a value as the inner store has it.
func (s *Stable) Open(key, sealed []byte) ([]byte, error) { return s.ring.Open(sealed, s.place(key)) }

// SetUint64 stores a number.
func (s *Stable) SetUint64(key []byte, value uint64) error {
	return s.Set(key, binary.BigEndian.AppendUint64(nil, value))
}

// GetUint64 reads a number; 0 when raft never stored it in a store that calls
// that no error.
func (s *Stable) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil || len(value) == 0 {
		return 0, err
	}
	if len(value) != 8 {
		return 0, fmt.Errorf("read %s: %w: it isn't a number", key, ErrBad)
	}
	return binary.BigEndian.Uint64(value), nil
}

func (s *Stable) place(key []byte) Place {
	return Place{ClusterID: s.clusterID, Kind: "stable " + string(key)}
}
