package seal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/raft"
)

func TestLog_SealsEveryTypeOfEntry(t *testing.T) {
	inner := raft.NewInmemStore()
	log := NewLog(inner, NewRing(NewKey(rand.Reader)), "c1")
	if !log.IsMonotonic() {
		t.Error("the log isn't monotonic")
	}
	var entries []*raft.Log
	for kind := raft.LogCommand; kind <= raft.LogConfiguration; kind++ {
		entries = append(entries, &raft.Log{
			Index: uint64(kind) + 1, Term: 2, Type: kind, AppendedAt: time.Unix(5, 6), Data: []byte("canary data"), Extensions: []byte("canary extension"),
		})
	}
	entries = append(entries, &raft.Log{Index: uint64(len(entries)) + 1, Term: 2, Type: raft.LogNoop})
	before := make([]raft.Log, len(entries))
	for i, entry := range entries {
		before[i] = *entry
	}
	if err := log.StoreLogs(entries); err != nil {
		t.Fatal(err)
	}
	for i, entry := range entries {
		if diff := cmp.Diff(before[i], *entry); diff != "" {
			t.Errorf("StoreLogs changed the entry it was given:\n%s", diff)
		}
		var stored, opened raft.Log
		if err := inner.GetLog(entry.Index, &stored); err != nil {
			t.Fatal(err)
		}
		if text := string(stored.Data) + string(stored.Extensions); strings.Contains(text, "canary") || len(stored.Data) == 0 {
			t.Errorf("entry %d isn't sealed", entry.Index)
		}
		if err := log.GetLog(entry.Index, &opened); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*entry, opened); diff != "" {
			t.Errorf("entry %d came back changed:\n%s", entry.Index, diff)
		}
	}
	if err := log.GetLog(99, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("an entry that isn't there: %v", err)
	}
}

func TestLog_DetectsMovedAndChangedEntries(t *testing.T) {
	inner := raft.NewInmemStore()
	log := NewLog(inner, NewRing(NewKey(rand.Reader)), "c1")
	if err := log.StoreLog(&raft.Log{Index: 5, Term: 2, Type: raft.LogCommand, Data: []byte("data"), Extensions: []byte("ext")}); err != nil {
		t.Fatal(err)
	}
	var good raft.Log
	if err := inner.GetLog(5, &good); err != nil {
		t.Fatal(err)
	}
	fails := func(what string, index uint64, bad raft.Log) {
		t.Helper()
		if bad.Index == index {
			if err := inner.StoreLog(&bad); err != nil {
				t.Fatal(err)
			}
		}
		if err := log.GetLog(index, new(raft.Log)); !errors.Is(err, ErrBad) || !strings.Contains(err.Error(), fmt.Sprint(index)) {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for i := range good.Data {
		bad := good
		bad.Data = slices.Clone(good.Data)
		bad.Data[i] ^= 0x10
		fails(fmt.Sprintf("byte %d flipped", i), 5, bad)
		bad.Data = good.Data[:i]
		fails(fmt.Sprintf("cut to %d bytes", i), 5, bad)
	}
	bad := good
	bad.Index = 6
	fails("moved to another index", 6, bad)
	bad = good
	bad.Term = 3
	fails("moved to another term", 5, bad)
	bad = good
	bad.Type = raft.LogNoop
	fails("given another type", 5, bad)
}

// swapped is a log that gives entry 5 whatever it is asked for.
type swapped struct{ raft.LogStore }

func (s swapped) GetLog(_ uint64, out *raft.Log) error { return s.LogStore.GetLog(5, out) }

func TestLog_DetectsAnEntryUnderAnothersKey(t *testing.T) {
	inner := raft.NewInmemStore()
	log := NewLog(swapped{inner}, NewRing(NewKey(rand.Reader)), "c1")
	if err := log.StoreLog(&raft.Log{Index: 5, Term: 2, Data: []byte("data")}); err != nil {
		t.Fatal(err)
	}
	if err := log.GetLog(5, new(raft.Log)); err != nil {
		t.Error(err)
	}
	if err := log.GetLog(6, new(raft.Log)); !errors.Is(err, ErrBad) || !strings.Contains(err.Error(), "entry 6") {
		t.Errorf("entry 5 under the key of 6: %v", err)
	}
}
