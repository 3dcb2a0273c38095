package store

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"skep/store/seal"
)

// Whatever is written and removed, recentLog says what the log beneath it says, and keeps
// no more than it may.
func TestRecentLog_SaysWhatTheLogSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inner := raft.NewInmemStore()
		dog := &watchdog{dir: "dir", limit: time.Minute, log: quiet, fatal: func(err error) { t.Fatal(err) }}
		log := &recentLog{watchedLog: &watchedLog{Log: seal.NewLog(inner, seal.NewRing(seal.Key{}), "c1"), dog: dog}}
		var first, last uint64 = 1, 0
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0: // shorten at the beginning
				if last >= first {
					to := rapid.Uint64Range(first, last).Draw(t, "to")
					if err := log.DeleteRange(first, to); err != nil {
						t.Fatal(err)
					}
					first = to + 1
				}
			case 1: // and at the end
				if last >= first {
					from := rapid.Uint64Range(first, last).Draw(t, "from")
					if err := log.DeleteRange(from, last); err != nil {
						t.Fatal(err)
					}
					last = from - 1
				}
			case 2: // as after a snapshot
				if last >= first {
					if err := log.DeleteRange(first, last); err != nil {
						t.Fatal(err)
					}
				}
				last += 10
				first = last + 1
			default:
				var entries []*raft.Log
				for range rapid.IntRange(1, 200).Draw(t, "entries") {
					last++
					entries = append(entries, &raft.Log{Index: last, Term: rapid.Uint64Range(1, 9).Draw(t, "term"), Data: make([]byte, rapid.SampledFrom([]int{1, 100, 1 << 18}).Draw(t, "size"))})
				}
				if err := log.StoreLogs(entries); err != nil {
					t.Fatal(err)
				}
			}
			if len(log.last) > recentEntries || log.bytes > recentBytes {
				t.Fatalf("%d entries of %d bytes are in memory", len(log.last), log.bytes)
			}
			sum := 0
			for _, entry := range log.last {
				sum += len(entry.Data)
			}
			if sum != log.bytes {
				t.Fatalf("it counts %d bytes of %d", log.bytes, sum)
			}
			for index := max(first, 3) - 2; index <= last+1; index += 1 + last/20 {
				var got, want raft.Log
				gotErr, wantErr := log.GetLog(index, &got), log.watchedLog.GetLog(index, &want)
				if !errors.Is(gotErr, wantErr) || got.Index != want.Index || got.Term != want.Term || len(got.Data) != len(want.Data) {
					t.Fatalf("entry %d: %v %v; the log says %v %v", index, got, gotErr, want, wantErr)
				}
			}
		}
	})
}
