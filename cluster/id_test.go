package cluster

import (
	"bytes"
	"crypto/rand"
	"math/big"
	"strings"
	"testing"
)

func TestNewID(t *testing.T) {
	for _, test := range []struct {
		bits []byte
		want string
	}{
		{bytes.Repeat([]byte{0}, 16), strings.Repeat("0", 25)},
		{append(bytes.Repeat([]byte{0}, 15), 35), strings.Repeat("0", 24) + "z"},
		{append(bytes.Repeat([]byte{0}, 15), 36), strings.Repeat("0", 23) + "10"},
		{bytes.Repeat([]byte{0xff}, 16), "f5lxx1zz5pnorynqglhzmsp33"},
	} {
		if got := NewID(bytes.NewReader(test.bits)); got != test.want {
			t.Errorf("%x gives %q; want %q", test.bits, got, test.want)
		}
	}
	seen := map[string]bool{}
	for range 1000 {
		id := NewID(rand.Reader)
		if !validID(id) || seen[id] {
			t.Fatalf("%q is no new ID", id)
		}
		seen[id] = true
		if _, ok := new(big.Int).SetString(id, 36); !ok {
			t.Fatalf("%q is no number", id)
		}
	}
	for _, bad := range []string{"", "x", strings.Repeat("A", 25), strings.Repeat("0", 26)} {
		if validID(bad) {
			t.Errorf("%q passes for an ID", bad)
		}
	}
}

// validID tells whether id has the form that NewID gives.
func validID(id string) bool { return len(id) == idLength && base36(id) }
