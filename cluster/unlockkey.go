package cluster

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"strings"
)

const (
	unlockKeyPrefix = "SWMKEY-1-"
	unlockKeySum    = 4
)

// UnlockKey encrypts the key files of managers while autolock is on; the zero
// value stands for none. It must never be logged or written in the clear.
type UnlockKey [32]byte

// NewUnlockKey makes a key out of 256 random bits. It panics when random fails.
func NewUnlockKey(random io.Reader) UnlockKey {
	var key UnlockKey
	if _, err := io.ReadFull(random, key[:]); err != nil {
		panic(fmt.Sprintf("read randomness for an unlock key: %v", err))
	}
	return key
}

// ParseUnlockKey reads a key in the form that Text gives. The four bytes of
// SHA-256 at its end tell a slip of the pen (ErrInvalid) from another key, which
// only a key file can tell. Errors never contain the key.
func ParseUnlockKey(text string) (UnlockKey, error) {
	var key UnlockKey
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), unlockKeyPrefix)
	data, err := base64.RawStdEncoding.Strict().DecodeString(rest)
	if !ok || err != nil || len(data) != len(key)+unlockKeySum {
		return UnlockKey{}, Errorf(ErrInvalid, "invalid unlock key: want %s and %d characters, as \"docker swarm unlock-key\" shows it",
			unlockKeyPrefix, base64.RawStdEncoding.EncodedLen(len(key)+unlockKeySum))
	}
	copy(key[:], data)
	if key.None() || key.Text() != unlockKeyPrefix+rest {
		return UnlockKey{}, Errorf(ErrInvalid, "invalid unlock key: its checksum doesn't match, so a character is wrong or missing")
	}
	return key, nil
}

// None tells whether there is no key.
func (k UnlockKey) None() bool { return k == UnlockKey{} }

// Text gives the key as users keep it, SWMKEY-1-<base64 of key and checksum>;
// nothing when there is none. It is a password.
func (k UnlockKey) Text() string {
	if k.None() {
		return ""
	}
	sum := sha256.Sum256(append([]byte("skep unlock key\x00"), k[:]...))
	return unlockKeyPrefix + base64.RawStdEncoding.EncodeToString(append(k[:], sum[:unlockKeySum]...))
}

// String keeps keys out of logs.
func (UnlockKey) String() string { return "(unlock key)" }

// GoString keeps keys out of logs.
func (UnlockKey) GoString() string { return "(unlock key)" }
