package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync/atomic"

	"golang.org/x/crypto/chacha20poly1305"
)

// ErrBad means that a record doesn't open: it was damaged, moved from another
// place, or sealed under a key that isn't in the ring.
var ErrBad = errors.New("sealed record is damaged, out of place or under an unknown key")

// A record is a format byte, the ID of its key, the nonce, and the ciphertext
// with its tag.
const (
	// recordFormat will be 2 next, which no bit that flips makes of 1.
	recordFormat = 1
	keyIDSize    = 8
	headSize     = 1 + keyIDSize + chacha20poly1305.NonceSizeX
	// Overhead is how much longer a sealed record is than what is in it.
	Overhead = headSize + chacha20poly1305.Overhead
)

// Key is a data key. It must never be logged or written in the clear.
type Key [32]byte

// NewKey makes a key out of 256 bits read from random. It panics when random
// fails, since nothing that follows could be trusted.
func NewKey(random io.Reader) Key {
	var key Key
	if _, err := io.ReadFull(random, key[:]); err != nil {
		panic(fmt.Sprintf("read randomness for a data key: %v", err))
	}
	return key
}

// String keeps keys out of logs.
func (Key) String() string { return "(data key)" }

// GoString keeps keys out of logs.
func (Key) GoString() string { return "(data key)" }

// id names the key in records without giving it away.
func (k Key) id() [keyIDSize]byte {
	sum := sha256.Sum256(append([]byte("skep data key\x00"), k[:]...))
	return [keyIDSize]byte(sum[:])
}

// Location is where a record belongs. It opens in no other.
type Location struct {
	ClusterID string
	// Kind tells records apart that may have the same index: "log 0", "snapshot"...
	Kind        string
	Index, Term uint64
}

// String names the place for errors.
func (p Location) String() string {
	if p.Index == 0 {
		return p.Kind
	}
	return fmt.Sprintf("%s at index %d, term %d", p.Kind, p.Index, p.Term)
}

// data is the place as associated data; no two places give the same bytes.
func (p Location) data(id [keyIDSize]byte) []byte {
	out := append([]byte("skep record\x00"), recordFormat)
	out = append(out, id[:]...)
	for _, text := range []string{p.ClusterID, p.Kind} {
		out = binary.AppendUvarint(out, uint64(len(text)))
		out = append(out, text...)
	}
	out = binary.BigEndian.AppendUint64(out, p.Index)
	return binary.BigEndian.AppendUint64(out, p.Term)
}

// Ring is a set of data keys: the current one seals, all of them open. It may be
// used by many goroutines.
type Ring struct{ keys atomic.Pointer[ringKeys] }

// ringKeys is what a ring is made of at one moment; it never changes.
type ringKeys struct {
	current [keyIDSize]byte
	ciphers map[[keyIDSize]byte]cipher.AEAD
}

// NewRing makes a ring that seals with current and opens what any of the keys
// has sealed.
func NewRing(current Key, older ...Key) *Ring {
	keys := &ringKeys{current: current.id(), ciphers: make(map[[keyIDSize]byte]cipher.AEAD, 1+len(older))}
	for _, key := range append([]Key{current}, older...) {
		keys.add(key)
	}
	r := &Ring{}
	r.keys.Store(keys)
	return r
}

// Rotate makes key the one that seals from now on; the others go on opening what
// they have sealed. The caller has put it where a restart finds it. One goroutine
// rotates at a time.
func (r *Ring) Rotate(key Key) {
	next := &ringKeys{current: key.id(), ciphers: maps.Clone(r.keys.Load().ciphers)}
	next.add(key)
	r.keys.Store(next)
}

func (k *ringKeys) add(key Key) {
	aead, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(fmt.Sprintf("make cipher: %v", err)) // Only a wrong key length fails.
	}
	k.ciphers[key.id()] = aead
}

// sealing is the key that seals now.
func (r *Ring) sealing() ([keyIDSize]byte, cipher.AEAD) {
	keys := r.keys.Load()
	return keys.current, keys.ciphers[keys.current]
}

// Seal encrypts plain for its place. The nonce is random (192 bits, so that
// chance repeats don't matter) and comes from the system, never from a source
// that a test or a simulation could repeat.
func (r *Ring) Seal(plain []byte, place Location) []byte {
	out := make([]byte, headSize, headSize+len(plain)+chacha20poly1305.Overhead)
	id, aead := r.sealing()
	out[0] = recordFormat
	copy(out[1:], id[:])
	nonce := out[1+keyIDSize : headSize]
	rand.Read(nonce) // It never fails: crypto/rand ends the process instead.
	return aead.Seal(out, nonce, plain, place.data(id))
}

// Open decrypts a record that Seal made for the same place, or fails with ErrBad.
func (r *Ring) Open(sealed []byte, place Location) ([]byte, error) {
	if len(sealed) < Overhead {
		return nil, fmt.Errorf("open %s: %w: %d bytes are too few", place, ErrBad, len(sealed))
	}
	aead, id, err := r.find(sealed)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", place, err)
	}
	plain, err := aead.Open(nil, sealed[1+keyIDSize:headSize], sealed[headSize:], place.data(id))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", place, ErrBad)
	}
	return plain, nil
}

// find picks the cipher that a record's head names.
func (r *Ring) find(head []byte) (cipher.AEAD, [keyIDSize]byte, error) {
	id := [keyIDSize]byte(head[1 : 1+keyIDSize])
	if head[0] == recordFormat+1 {
		return nil, id, fmt.Errorf("its format %d is newer than this version of skep: run the newer one", head[0])
	}
	if head[0] != recordFormat {
		return nil, id, fmt.Errorf("%w: its format %d isn't known", ErrBad, head[0])
	}
	aead, ok := r.keys.Load().ciphers[id]
	if !ok {
		return nil, id, fmt.Errorf("%w: no key with the ID %x in the ring", ErrBad, id)
	}
	return aead, id, nil
}
