package guard

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"skep/cluster"
)

// KeySize is the length of a key, in bytes.
const KeySize = 32

// protocol is the form of what is sent: the first byte of all that is sealed. 1 is
// AES-GCM without padding, memberlist's encryption version 1: nonce, text and tag follow,
// and the text is memberlist's. Whoever meets another number drops it and says so. A
// version of skep that has another form sends it only in a cluster whose level has it, and
// understands this one as long as its MinLevel hasn't.
const protocol = 1

// SealOverhead is what sealing adds to a text, in bytes.
const SealOverhead = 1 + 12 + 16

// Ring seals what is sent with the first key, and opens what any of them sealed. It
// is replaced as a whole, so a key that is only added never sends.
type Ring struct {
	ciphers atomic.Pointer[[]cipher.AEAD]
}

func (r *Ring) Set(keys [][]byte) error {
	if err := checkKeys(keys); err != nil {
		return err
	}
	ciphers := make([]cipher.AEAD, len(keys))
	for i, key := range keys {
		block, err := aes.NewCipher(key)
		if err != nil {
			return err
		}
		if ciphers[i], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return err
		}
	}
	r.ciphers.Store(&ciphers)
	return nil
}

// Seal appends the sealed text to dst, bound to what it is about.
func (r *Ring) Seal(dst, text, about []byte) []byte {
	return (*r.ciphers.Load())[0].Seal(append(dst, protocol), nil, text, about)
}

// Open returns a text that was sealed with one of the keys, in memory of its own.
func (r *Ring) Open(sealed, about []byte) ([]byte, error) {
	if len(sealed) < SealOverhead {
		return nil, errors.New("it isn't encrypted")
	}
	if sealed[0] != protocol {
		return nil, fmt.Errorf("it is of gossip protocol %d, and this version of skep knows %d", sealed[0], protocol)
	}
	for _, c := range *r.ciphers.Load() {
		if text, err := c.Open(nil, nil, sealed[1:], about); err == nil {
			return text, nil
		}
	}
	return nil, errors.New("no key opens it")
}

func checkKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return fmt.Errorf("no gossip key: %w", cluster.ErrInvalid)
	}
	for i, key := range keys {
		if len(key) != KeySize {
			return fmt.Errorf("gossip key of %d bytes, want %d: %w", len(key), KeySize, cluster.ErrInvalid)
		}
		if slices.ContainsFunc(keys[:i], func(other []byte) bool { return bytes.Equal(key, other) }) {
			return fmt.Errorf("gossip key given twice: %w", cluster.ErrInvalid)
		}
	}
	return nil
}
