package peers

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/timeline"
)

// gatedTransport is raft's transport, but it sends entries and snapshots only to managers
// that answer heartbeats. Raft by itself waits twice as long after each attempt
// that failed, so that a manager that was away for long would be sent nothing for
// up to ten seconds after it is back: it answers, but the leader can't commit with
// it when another manager fails. Here an attempt waits, and so doesn't fail; it goes
// on with the first heartbeat that is answered.
//
// It also says to the connections whom each is to reach, not only where: a manager that
// was installed anew at its address answers for itself only. And it notes how far the
// others are, by their answers.
type gatedTransport struct {
	*raft.NetworkTransport
	streams *streams // of NetworkTransport
	matches *replication
	pace    *heartbeatPace
	commits *commitTracker
	now     func() time.Time
	// timeline takes votes.
	timeline *timeline.Ring
	// raft is whose transport this is; not set before it has started.
	raft atomic.Pointer[raft.Raft]

	// handing is set while leadership is handed over: raft lets nothing else be done until an
	// attempt to bring its successor up to date has ended.
	handing atomic.Int32

	mu   sync.Mutex // guards away
	away map[raft.ServerID]absence
}

// absence is that a manager doesn't answer a leader's heartbeats.
type absence struct {
	term uint64        // the leader's
	over chan struct{} // closed when it answers again
}

var _ raft.Transport = (*gatedTransport)(nil)

// lookAgain is how often an attempt that waits asks whether it is still wanted.
const lookAgain = 50 * time.Millisecond

func newGatedTransport(transport *raft.NetworkTransport, pace *heartbeatPace, now func() time.Time) *gatedTransport {
	return &gatedTransport{NetworkTransport: transport, matches: new(replication), pace: pace, commits: newCommitTracker(), now: now, away: map[raft.ServerID]absence{}}
}

// AppendEntries sends entries when the manager answers heartbeats, and a heartbeat at once.
func (p *gatedTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if heartbeat(args) {
		return p.pace.exchange(func() error { return p.send(id, target, args, resp, true) })
	}
	if err := p.await(id, args.Term); err != nil {
		return err
	}
	send := func(part *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
		return p.send(id, target, part, resp, false)
	}
	return inPortions(args, resp, send, func() bool { return p.wanted(id, args.Term) })
}

// send sends one message, and notes what comes of it.
func (p *gatedTransport) send(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, beat bool) error {
	err := p.NetworkTransport.AppendEntries(id, dialTarget(id, target), args, resp)
	if err == nil {
		err = checkLeap(id, args.Term, resp.Term)
	}
	if beat {
		p.note(id, args.Term, err == nil)
	}
	if err == nil && resp.Term == args.Term {
		if !beat && resp.Success {
			p.commits.note(id, target, args)
		}
		p.matches.note(id, args.Term, func(m *Progress) {
			m.Heard = p.now()
			switch {
			case beat:
			case resp.Success:
				m.Index = args.PrevLogEntry + uint64(len(args.Entries))
			default:
				m.Index = min(m.Index, resp.LastLog) // It may have lost what it had.
			}
		})
	}
	return err
}

// InstallSnapshot sends a snapshot when the manager answers heartbeats.
func (p *gatedTransport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	if err := p.await(id, args.Term); err != nil {
		return err
	}
	p.matches.note(id, args.Term, func(m *Progress) { m.Snapshot, m.Sent = args.Size, 0 })
	counted := readerFunc(func(b []byte) (int, error) {
		n, err := data.Read(b)
		p.matches.note(id, args.Term, func(m *Progress) { m.Sent += int64(n) })
		return n, err
	})
	err := p.NetworkTransport.InstallSnapshot(id, dialTarget(id, target), args, resp, counted)
	if err == nil {
		err = checkLeap(id, args.Term, resp.Term)
	}
	p.matches.note(id, args.Term, func(m *Progress) {
		m.Snapshot, m.Sent = 0, 0
		if err == nil && resp.Success {
			m.Index = max(m.Index, args.LastLogIndex)
		}
	})
	return err
}

// RequestVote asks a manager for its vote.
func (p *gatedTransport) RequestVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	began := p.now()
	p.timeline.Add(timeline.Record{Time: began, Kind: timeline.AsksVote, Term: args.Term, Node: string(id)})
	err := p.NetworkTransport.RequestVote(id, dialTarget(id, target), args, resp)
	now := p.now()
	p.timeline.Add(timeline.Record{Time: now, Kind: timeline.Vote, Term: args.Term, Node: string(id), Word: voteWord(resp, err), Took: now.Sub(began)})
	if err != nil {
		return err
	}
	return checkLeap(id, args.Term, resp.Term)
}

// voteWord is what came of a request for a vote.
func voteWord(resp *raft.RequestVoteResponse, err error) string {
	switch {
	case err != nil:
		return timeline.NoAnswer
	case resp.Granted:
		return timeline.Granted
	}
	return timeline.Denied
}

// RequestPreVote asks a manager whether it would vote.
func (p *gatedTransport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := p.NetworkTransport.RequestPreVote(id, dialTarget(id, target), args, resp); err != nil {
		return err
	}
	return checkLeap(id, args.Term, resp.Term)
}

// TimeoutNow tells a manager to stand for election.
func (p *gatedTransport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return p.NetworkTransport.TimeoutNow(id, dialTarget(id, target), args, resp)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// heartbeat tells a heartbeat from other empty requests as raft itself does.
func heartbeat(args *raft.AppendEntriesRequest) bool {
	return args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && len(args.Entries) == 0 && args.LeaderCommitIndex == 0
}

// note takes in whether a manager answered a heartbeat of the term.
func (p *gatedTransport) note(id raft.ServerID, term uint64, answered bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	absent, away := p.away[id]
	if away && (answered || absent.term != term) {
		close(absent.over)
		delete(p.away, id)
		away = false
	}
	if !answered && !away {
		p.away[id] = absence{term, make(chan struct{})}
	}
}

// await returns when the manager answers the term's heartbeats, or fails when there
// is no reason to wait for it any more.
func (p *gatedTransport) await(id raft.ServerID, term uint64) error {
	for {
		p.mu.Lock()
		absent, away := p.away[id]
		p.mu.Unlock()
		if !away || absent.term != term {
			return nil
		}
		if p.handing.Load() > 0 || !p.wanted(id, term) {
			return fmt.Errorf("send entries to manager %s: %w", id, cluster.ErrUnreachable)
		}
		timer := time.NewTimer(lookAgain)
		select {
		case <-absent.over:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// wanted tells whether this manager still leads in the term, and the other one still
// belongs to the group.
func (p *gatedTransport) wanted(id raft.ServerID, term uint64) bool {
	r := p.raft.Load()
	if r == nil {
		return true
	}
	if r.State() != raft.Leader || r.CurrentTerm() != term {
		return false
	}
	group := r.GetConfiguration()
	if group.Error() != nil {
		return false
	}
	return slices.ContainsFunc(group.Configuration().Servers, func(s raft.Server) bool { return s.ID == id })
}
