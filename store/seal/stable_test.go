package seal

import (
	"crypto/rand"
	"errors"
	"testing"

	"github.com/hashicorp/raft"
)

func TestStable(t *testing.T) {
	inner := raft.NewInmemStore()
	stable := NewStable(inner, NewRing(NewKey(rand.Reader)), "c1")
	term, vote := []byte("CurrentTerm"), []byte("LastVoteCand")
	if _, err := stable.GetUint64(term); err == nil || err.Error() != "not found" {
		t.Errorf("a number that isn't there: %v, but raft looks for the words not found", err)
	}
	if err := stable.SetUint64(term, 1<<40); err != nil {
		t.Fatal(err)
	}
	if n, err := stable.GetUint64(term); n != 1<<40 || err != nil {
		t.Errorf("GetUint64 = %d, %v", n, err)
	}
	if err := stable.Set(vote, []byte("m1")); err != nil {
		t.Fatal(err)
	}
	if v, err := stable.Get(vote); string(v) != "m1" || err != nil {
		t.Errorf("Get = %q, %v", v, err)
	}
	sealed, err := inner.Get(vote)
	if err != nil {
		t.Fatal(err)
	}
	if err := inner.Set(term, sealed); err != nil {
		t.Fatal(err)
	}
	if _, err := stable.Get(term); !errors.Is(err, ErrBad) {
		t.Errorf("a value moved to another key: %v", err)
	}
	sealed[len(sealed)-1] ^= 1
	if err := inner.Set(vote, sealed); err != nil {
		t.Fatal(err)
	}
	if _, err := stable.Get(vote); !errors.Is(err, ErrBad) {
		t.Errorf("a flipped bit: %v", err)
	}
}
