package peers

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

// wire notes what is sent, and answers as told.
type wire struct {
	sent   []string
	answer func(n int) (raft.AppendEntriesResponse, error)
}

func (w *wire) send(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (err error) {
	text := fmt.Sprintf("%d.%d:", args.PrevLogTerm, args.PrevLogEntry)
	for _, entry := range args.Entries {
		text += fmt.Sprint(" ", entry.Index)
	}
	w.sent = append(w.sent, text+fmt.Sprint(" commit ", args.LeaderCommitIndex))
	*resp, err = w.answer(len(w.sent))
	return err
}

func TestInPortions(t *testing.T) {
	entries := func(sizes ...int) (all []*raft.Log) {
		for i, size := range sizes {
			all = append(all, &raft.Log{Index: uint64(11 + i), Term: 4, Data: make([]byte, size<<10)})
		}
		return all
	}
	well := raft.AppendEntriesResponse{Term: 5, Success: true}
	fails := errors.New("the connection broke")
	tests := []struct {
		name   string
		sizes  []int
		commit uint64
		unless int // the message that isn't answered well
		answer raft.AppendEntriesResponse
		err    error
		leads  int // for how many messages it leads
		sent   string
		kept   int // entries that raft is told were stored
		want   error
	}{
		{"nothing to send but a commit", nil, 7, 0, well, nil, 9, "3.10: commit 7", 0, nil},
		{"a commit of what wasn't vouched for", nil, 12, 0, well, nil, 9, "3.10: commit 10", 0, nil},
		{"small ones go together", []int{1, 1, 1}, 12, 0, well, nil, 9, "3.10: 11 12 13 commit 12", 3, nil},
		{"large ones don't", []int{500, 500, 500, 10}, 20, 0, well, nil, 9,
			"3.10: 11 12 commit 12, 4.12: 13 14 commit 14", 4, nil},
		{"one that is larger goes alone", []int{1, 3000, 1}, 20, 0, well, nil, 9,
			"3.10: 11 commit 11, 4.11: 12 commit 12, 4.12: 13 commit 13", 3, nil},
		{"the first fails", []int{600, 600}, 20, 1, raft.AppendEntriesResponse{}, fails, 9, "3.10: 11 commit 11", 2, fails},
		{"a later one fails", []int{600, 600, 600}, 20, 3, raft.AppendEntriesResponse{}, fails, 9,
			"3.10: 11 commit 11, 4.11: 12 commit 12, 4.12: 13 commit 13", 2, nil},
		{"a later one is of an older term", []int{600, 600, 600}, 20, 2, raft.AppendEntriesResponse{Term: 6}, nil, 9,
			"3.10: 11 commit 11, 4.11: 12 commit 12", 2, nil},
		{"leadership ends", []int{600, 600, 600}, 20, 0, well, nil, 2, "3.10: 11 commit 11, 4.11: 12 commit 12", 2, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := &wire{answer: func(n int) (raft.AppendEntriesResponse, error) {
				if n == test.unless {
					return test.answer, test.err
				}
				return well, nil
			}}
			args := &raft.AppendEntriesRequest{Term: 5, PrevLogEntry: 10, PrevLogTerm: 3, LeaderCommitIndex: test.commit, Entries: entries(test.sizes...)}
			var resp raft.AppendEntriesResponse
			err := inPortions(args, &resp, w.send, func() bool { return len(w.sent) < test.leads })
			if !errors.Is(err, test.want) {
				t.Errorf("%v; want %v", err, test.want)
			}
			if got := strings.Join(w.sent, ", "); got != test.sent {
				t.Errorf("sent %q; want %q", got, test.sent)
			}
			if len(args.Entries) != test.kept {
				t.Errorf("raft is told of %d entries; want %d", len(args.Entries), test.kept)
			}
			if err == nil && test.unless > 0 && test.err == nil && resp.Term != test.answer.Term {
				t.Errorf("raft isn't told of the answer: %+v", resp)
			}
			if err == nil && (test.unless == 0 || test.err != nil) && !resp.Success {
				t.Errorf("raft isn't told that entries were stored: %+v", resp)
			}
		})
	}
}
