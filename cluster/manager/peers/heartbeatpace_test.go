package peers

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func TestPace_WellUntilAnAnswerIsLate(t *testing.T) {
	const beat = 300 * time.Millisecond
	for name, test := range map[string]struct {
		takes time.Duration
		err   error
		well  bool
	}{
		"soon":     {takes: beat/3 - 1, well: true},
		"late":     {takes: beat/3 + 1},
		"not sent": {err: errors.New("refused")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newHeartbeatPace(beat)
				for round := range 3 {
					err := p.exchange(func() error { time.Sleep(test.takes); return test.err })
					if !errors.Is(err, test.err) {
						t.Errorf("failed with %v, want %v", err, test.err)
					}
					if well, _ := p.steady(); well != test.well {
						t.Errorf("round %d: well %v, want %v", round, well, test.well)
					}
					time.Sleep(5 * beat)
				}
				if well, changed := p.steady(); !well {
					<-changed // Or the test hangs.
				}
				if well, _ := p.steady(); !well {
					t.Error("not well a while after the last late answer")
				}
			})
		})
	}
}

// TestCommits_TellWhatIsMissing goes through what a leader says to a follower of a commit.
func TestCommits_TellWhatIsMissing(t *testing.T) {
	c := newCommitTracker()
	entries := func(term, index uint64) *raft.AppendEntriesRequest {
		return &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{Addr: []byte("a")}, Term: term, PrevLogEntry: index - 1, PrevLogTerm: 2, LeaderCommitIndex: index - 1,
			Entries: []*raft.Log{{Index: index, Term: term}}}
	}
	c.note("b", "b:1", entries(3, 7))
	c.note("c", "c:1", entries(3, 9))
	c.note("c", "c:1", entries(3, 8)) // It comes late.
	select {
	case <-c.woken:
	default:
		t.Error("nobody was woken by entries that were accepted")
	}
	if told := c.uninformed(3, 6); len(told) != 0 {
		t.Errorf("told %v, though all know of 6", told)
	}
	told := c.uninformed(3, 9)
	if len(told) != 2 {
		t.Fatalf("told %d followers, want 2", len(told))
	}
	// A follower may have other entries after those that it confirmed: it must be told of no more.
	if b := told["b"].args; b.LeaderCommitIndex != 7 || b.PrevLogEntry != 7 || b.PrevLogTerm != 3 || b.Term != 3 || string(b.Addr) != "a" || len(b.Entries) != 0 {
		t.Errorf("b is told %+v", b)
	}
	if c := told["c"].args; c.LeaderCommitIndex != 9 || c.PrevLogEntry != 9 {
		t.Errorf("c is told %+v", c)
	}
	if again := c.uninformed(3, 9); len(again) != 0 {
		t.Errorf("told twice at once: %v", again)
	}
	c.note("b", "b:1", told["b"].args)
	c.sent("b")
	c.sent("c") // It didn't arrive.
	if again := c.uninformed(3, 9); len(again) != 1 || again["c"].args == nil {
		t.Errorf("told again %v, want only c", again)
	}
	if later := c.uninformed(4, 9); len(later) != 0 {
		t.Errorf("the leader of term 4 says what that of term 3 was answered: %v", later)
	}
}
