package seal

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"testing"
)

var here = Location{ClusterID: "c1", Kind: "log", Index: 7, Term: 3}

func TestRing_OpensOnlyWhatItSealedInItsPlace(t *testing.T) {
	ring := NewRing(NewKey(rand.Reader))
	sealed := ring.Seal([]byte("canary"), here)
	plain, err := ring.Open(sealed, here)
	if err != nil || string(plain) != "canary" {
		t.Fatalf("Open = %q, %v", plain, err)
	}
	if bytes.Contains(sealed, []byte("canary")) {
		t.Error("the record has its content in the clear")
	}
	if len(sealed) != len("canary")+Overhead {
		t.Errorf("the record is %d bytes longer than its content, want %d", len(sealed)-len("canary"), Overhead)
	}
	if again := ring.Seal([]byte("canary"), here); bytes.Equal(again, sealed) {
		t.Error("two records of the same content are equal")
	}
	for _, elsewhere := range []Location{
		{ClusterID: "c2", Kind: "log", Index: 7, Term: 3},
		{ClusterID: "c1", Kind: "snapshot", Index: 7, Term: 3},
		{ClusterID: "c1", Kind: "log", Index: 8, Term: 3},
		{ClusterID: "c1", Kind: "log", Index: 7, Term: 4},
		{ClusterID: "c1l", Kind: "og", Index: 7, Term: 3},
		{ClusterID: "c1", Kind: "log", Index: 3, Term: 7},
	} {
		if _, err := ring.Open(sealed, elsewhere); !errors.Is(err, ErrBad) {
			t.Errorf("opened in %+v: %v", elsewhere, err)
		}
	}
}

func TestRing_DetectsEveryFlippedBitAndEveryCut(t *testing.T) {
	ring := NewRing(NewKey(rand.Reader))
	sealed := ring.Seal([]byte("some content"), here)
	for i := range sealed {
		for bit := range 8 {
			bad := slices.Clone(sealed)
			bad[i] ^= 1 << bit
			if _, err := ring.Open(bad, here); !errors.Is(err, ErrBad) {
				t.Fatalf("byte %d, bit %d flipped: %v", i, bit, err)
			}
		}
		if _, err := ring.Open(sealed[:i], here); !errors.Is(err, ErrBad) {
			t.Fatalf("cut to %d bytes: %v", i, err)
		}
	}
	if _, err := ring.Open(append(slices.Clone(sealed), 0), here); !errors.Is(err, ErrBad) {
		t.Fatalf("one byte too many: %v", err)
	}
}

func TestRing_OlderKeysStillOpen(t *testing.T) {
	old, current := NewKey(rand.Reader), NewKey(rand.Reader)
	sealed := NewRing(old).Seal([]byte("x"), here)
	if _, err := NewRing(current, old).Open(sealed, here); err != nil {
		t.Errorf("with the older key in the ring: %v", err)
	}
	if _, err := NewRing(current).Open(sealed, here); !errors.Is(err, ErrBad) {
		t.Errorf("without it: %v", err)
	}
	if sealed := NewRing(current, old).Seal([]byte("x"), here); sealed != nil {
		if _, err := NewRing(current).Open(sealed, here); err != nil {
			t.Errorf("a ring doesn't seal with its current key: %v", err)
		}
	}
}

func TestRing_Rotate(t *testing.T) {
	old, next := NewKey(rand.Reader), NewKey(rand.Reader)
	here := Location{ClusterID: "c", Kind: "k"}
	ring := NewRing(old)
	before := ring.Seal([]byte("before"), here)
	ring.Rotate(next)
	after := ring.Seal([]byte("after"), here)
	for _, sealed := range [][]byte{before, after} {
		if _, err := ring.Open(sealed, here); err != nil {
			t.Errorf("after the rotation: %v", err)
		}
	}
	if _, err := NewRing(old).Open(after, here); !errors.Is(err, ErrBad) {
		t.Errorf("the old key opens what was sealed after it: %v", err)
	}
	if _, err := NewRing(next).Open(after, here); err != nil {
		t.Errorf("the new key doesn't open what it sealed: %v", err)
	}
}

func TestKey_IsNotPrinted(t *testing.T) {
	key := Key{1, 2, 3, 4}
	for _, format := range []string{"%v", "%s", "%+v", "%#v"} {
		if text := fmt.Sprintf(format, key); text != "(data key)" {
			t.Errorf("%s prints %s", format, text)
		}
	}
}
