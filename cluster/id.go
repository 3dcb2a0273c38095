package cluster

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
)

// idLength is the length of an ID: 128 bits in base 36, as Swarm's.
const idLength = 25

// NewID returns a fresh ID, 25 characters of lower-case base 36, out of 128
// bits read from random. It panics when random fails, since nothing that
// follows could be trusted.
func NewID(random io.Reader) string {
	var drawn [16]byte
	if _, err := io.ReadFull(random, drawn[:]); err != nil {
		panic(fmt.Sprintf("read randomness for an ID: %v", err))
	}
	high, low := binary.BigEndian.Uint64(drawn[:8]), binary.BigEndian.Uint64(drawn[8:])
	var text [idLength]byte
	for i := len(text) - 1; i >= 0; i-- {
		var digit uint64
		low, digit = bits.Div64(high%36, low, 36)
		high /= 36
		text[i] = "0123456789abcdefghijklmnopqrstuvwxyz"[digit]
	}
	return string(text[:])
}
