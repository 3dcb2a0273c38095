package peers

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Followers learn how far the log is committed with the next entries. Raft also tells them
// from time to time while there are none, which has to be often, since agents on followers
// wait for it, and so was half of what an idle cluster did. Here the leader tells them soon
// after each commit, and raft's own message is for what was lost on the way.

const (
	// tellAfter is how long after the last entries a leader waits for the next ones before it
	// tells of the commit by itself.
	tellAfter = 5 * time.Millisecond
	// commitTimeout is raft's commitTimeout: a follower is told again after one to two of it.
	commitTimeout = 300 * time.Millisecond
)

// commitTracker is what each follower has and knows, as far as its answers say.
type commitTracker struct {
	// woken has one signal after an answer to entries.
	woken chan struct{}
	// hurry has one signal when somebody waits for what a follower wasn't told.
	hurry chan struct{}

	mu        sync.Mutex // guards followers
	followers map[raft.ServerID]followed
}

// followed is what a follower is known to have: the log up to matched, in the leader's term.
type followed struct {
	addr    raft.ServerAddress
	leader  raft.AppendEntriesRequest // its header and term, without entries
	matched raft.Log                  // index and term only
	told    uint64                    // up to where the follower knows of the commit
	busy    bool                      // something is being sent that says more
}

func newCommitTracker() *commitTracker {
	return &commitTracker{woken: make(chan struct{}, 1), hurry: make(chan struct{}, 1), followers: map[raft.ServerID]followed{}}
}

// note takes in that a follower accepted what args says.
func (c *commitTracker) note(id raft.ServerID, addr raft.ServerAddress, args *raft.AppendEntriesRequest) {
	matched := raft.Log{Index: args.PrevLogEntry, Term: args.PrevLogTerm}
	if n := len(args.Entries); n > 0 {
		matched = raft.Log{Index: args.Entries[n-1].Index, Term: args.Entries[n-1].Term}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	before, known := c.followers[id]
	switch {
	case known && before.leader.Term > args.Term:
		return
	case known && before.leader.Term == args.Term && before.matched.Index > matched.Index:
		matched = before.matched
	}
	told := min(args.LeaderCommitIndex, matched.Index)
	if known && before.leader.Term == args.Term {
		told = max(told, before.told)
	}
	c.followers[id] = followed{
		addr: addr, matched: matched, told: told, busy: before.busy,
		leader: raft.AppendEntriesRequest{RPCHeader: args.RPCHeader, Term: args.Term},
	}
	if len(args.Entries) > 0 {
		c.wake()
	}
}

func (c *commitTracker) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// sent takes in that what was sent to a follower has arrived, or not.
func (c *commitTracker) sent(id raft.ServerID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if follower, known := c.followers[id]; known {
		follower.busy = false
		c.followers[id] = follower
	}
}

// uninformed lists what the leader of the term has to say to those who don't know yet that the
// log is committed up to commit.
func (c *commitTracker) uninformed(term, commit uint64) map[raft.ServerID]message {
	c.mu.Lock()
	defer c.mu.Unlock()
	messages := map[raft.ServerID]message{}
	for id, follower := range c.followers {
		if follower.leader.Term != term {
			delete(c.followers, id)
			continue
		}
		if known := min(commit, follower.matched.Index); known > follower.told && !follower.busy {
			follower.busy = true
			c.followers[id] = follower
			args := follower.leader
			args.PrevLogEntry, args.PrevLogTerm = follower.matched.Index, follower.matched.Term
			args.LeaderCommitIndex = known
			messages[id] = message{follower.addr, &args}
		}
	}
	return messages
}

// behind tells whether a follower wasn't told yet that the log is committed up to commit.
func (c *commitTracker) behind(id raft.ServerID, commit uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	follower, known := c.followers[id]
	return known && follower.told < commit
}

// TellCommit has a follower be told at once that the log is committed up to commit, if it may not know.
func (t *Transport) TellCommit(id string, commit uint64) {
	if !t.commits.behind(raft.ServerID(id), commit) {
		return
	}
	select {
	case t.commits.hurry <- struct{}{}:
	default:
	}
}

// message is what is sent to a follower.
type message struct {
	addr raft.ServerAddress
	args *raft.AppendEntriesRequest
}

// sendCommits tells followers of what is committed, while this manager leads, until ctx ends.
func (t *Transport) sendCommits(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.commits.hurry:
		case <-t.commits.woken:
			soon := time.NewTimer(tellAfter)
			select {
			case <-ctx.Done():
			case <-t.commits.hurry:
			case <-soon.C:
			}
			soon.Stop()
		}
		// What a leader of a term says stays true when it leads no more: it is as if it came late.
		r := t.raft.Load()
		if r == nil {
			continue
		}
		term := r.CurrentTerm()
		if r.State() != raft.Leader || r.CurrentTerm() != term {
			continue
		}
		for id, told := range t.commits.uninformed(term, r.CommitIndex()) {
			go func() {
				var answer raft.AppendEntriesResponse
				_ = t.gatedTransport.AppendEntries(id, told.addr, told.args, &answer) // Raft tells those again whom this doesn't reach.
				t.commits.sent(id)
				if answer.Success {
					t.commits.wake() // There may be more by now.
				}
			}()
		}
	}
}
