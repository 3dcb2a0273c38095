package campaign

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/timeline"
)

// Raft is what is read of raft.
type Raft interface {
	State() raft.RaftState
	CurrentTerm() uint64
	LastIndex() uint64
	// LastContact is when the leader was last heard, or a vote was given.
	LastContact() time.Time
	LeaderWithID() (raft.ServerAddress, raft.ServerID)
}

// Config is what a Campaign works with; all of it is required.
type Config struct {
	// NodeID is this manager.
	NodeID string
	Raft   Raft
	// HeartbeatTimeout is raft's.
	HeartbeatTimeout time.Duration
	// Servers are the members of raft's configuration, each with the address where it is now.
	Servers func() []raft.Server
	// Dial opens a connection to a control port.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Ask has another manager's account of itself, and of whether the manager refusing, if
	// that isn't empty, refuses connections to it.
	Ask func(ctx context.Context, addr, refusing string) (cluster.ManagerHealth, error)
	// Stand has raft begin an election, as one does to whom leadership is handed over: those
	// who believe that there is a leader vote as well. Refused tells whether nobody listens at
	// the leader's port; otherwise it is silent.
	Stand func(refused bool) error
	// Lost has the last manager whose connection to this one ended. Run is its only reader.
	Lost <-chan string
	// Doubt has gossip look after a node at once.
	Doubt func(nodeID string)
	// Timeline takes what is found out and decided; nil for nobody.
	Timeline *timeline.Ring
	Now      func() time.Time
	Log      *slog.Logger
}

// Campaign stands for election when the leader is lost. Run owns its state.
type Campaign struct {
	config Config
	// quiet fires when the leader was silent for a HeartbeatTimeout.
	quiet *time.Timer
	// refusal is the last one that was found and still counts; its leader is "" for none.
	refusal refusal
	// missing tells whether the leader was missed at the last look.
	missing bool
	// told is what the timeline has since the leader is missed.
	told told
}

// refusal is that nobody listens at a leader's port.
type refusal struct {
	leader string
	found  time.Time
}

// New makes a Campaign. Nothing happens before Run.
func New(config Config) *Campaign {
	return &Campaign{config: config, quiet: time.NewTimer(config.HeartbeatTimeout)}
}

// Run stands for election whenever decide says so, until ctx ends.
func (c *Campaign) Run(ctx context.Context) error {
	again := time.NewTimer(0) // while the leader is missed
	again.Stop()
	probed := make(chan refusal)
	lost := c.config.Lost // nil while a port is looked at
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case id := <-lost:
			c.config.Doubt(id)
			if addr, leader := c.config.Raft.LeaderWithID(); string(leader) == id && id != c.config.NodeID {
				lost = nil
				go c.probe(ctx, id, string(addr), probed)
			}
			continue
		case found := <-probed:
			if lost = c.config.Lost; found.leader == "" {
				continue
			}
			c.refusal = found
		case <-c.quiet.C:
		case <-again.C:
		}
		if wait := c.step(ctx); c.missing {
			again.Reset(wait)
		} else {
			c.quiet.Reset(wait)
		}
	}
}

// Heard is called when the leader was heard: it puts the next look off, which costs less
// than to wake up with each heartbeat.
func (c *Campaign) Heard() {
	_, silence := c.silence()
	c.quiet.Reset(max(0, c.config.HeartbeatTimeout-silence))
}

// silence is for how long this follower has heard nothing of its leader; leader is "" when
// it has none, or doesn't follow.
func (c *Campaign) silence() (leader string, silence time.Duration) {
	_, id := c.config.Raft.LeaderWithID()
	if c.config.Raft.State() != raft.Follower || id == "" {
		return "", 0
	}
	return string(id), time.Since(c.config.Raft.LastContact())
}

// look gives this manager's account of the leader that it misses, for how long it has known,
// and how long it has to wait until it may ask the others; leader is "" when none is missed.
func (c *Campaign) look() (leader string, own cluster.ManagerHealth, known, wait time.Duration) {
	beat := c.config.HeartbeatTimeout
	leader, silence := c.silence()
	own = cluster.ManagerHealth{
		NodeID: c.config.NodeID, Term: c.config.Raft.CurrentTerm(), LastIndex: c.config.Raft.LastIndex(), LastContact: silence,
	}
	// The refusal counts while there is no other leader: who stood earlier may have failed for
	// want of the newest entries, and only moved the term on. That the leader was heard since
	// says nothing, as what it sent last may be read late.
	since := c.config.Now().Sub(c.refusal.found)
	refused := c.refusal.leader != "" && since >= 0 && since < beat && (leader == "" || leader == c.refusal.leader)
	if refused && c.config.Raft.State() == raft.Follower {
		own.Refused = true
		if leader == "" { // It may have given its vote to one that stands now.
			wait = max(0, stagger(beat)-time.Since(c.config.Raft.LastContact()))
		}
		return c.refusal.leader, own, since, wait
	}
	c.refusal = refusal{}
	if leader != "" && silence >= beat {
		return leader, own, silence - beat, 0
	}
	return "", own, 0, beat - min(beat, silence)
}

// step looks once, and stands if it is to. It returns when to look again.
func (c *Campaign) step(ctx context.Context) time.Duration {
	beat := c.config.HeartbeatTimeout
	leader, own, known, wait := c.look()
	before := c.missing
	c.missing = leader != ""
	c.tell(leader, own)
	others, votes := voters(c.config.Servers(), c.config.NodeID, leader)
	switch {
	case leader == "" || wait > 0:
		return wait
	case !votes:
		c.refusal = refusal{}
		return beat
	case !before && !own.Refused && known > beat/4:
		// This process stood still: what the leader sent meanwhile is yet to be read.
		return beat / 4
	}
	accounts := c.ask(ctx, leader, own, others)
	c.tellAnswers(own, others, accounts)
	stand, again := decide(own, accounts, known, beat)
	if !stand {
		c.tellTurn(own, accounts)
		return again
	}
	// Asking took a while.
	if now, _, _, wait := c.look(); now != leader || wait > 0 || ctx.Err() != nil {
		return max(wait, beat/8)
	}
	c.stand(leader, own)
	return beat
}

func (c *Campaign) stand(leader string, own cluster.ManagerHealth) {
	c.config.Doubt(leader)
	c.config.Log.Debug("stand for election", "node", own.NodeID, "leader", leader, "term", own.Term, "refused", own.Refused, "silence", own.LastContact)
	if err := c.config.Stand(own.Refused); err != nil {
		c.config.Log.Debug("stand for election", "node", own.NodeID, "err", err)
	}
}

// ask has the accounts of the others; of one that doesn't answer in time it is empty. It
// waits for no more of them than it takes to decide.
func (c *Campaign) ask(ctx context.Context, leader string, own cluster.ManagerHealth, others []raft.Server) []cluster.ManagerHealth {
	ctx, cancel := context.WithTimeout(ctx, c.config.HeartbeatTimeout/3)
	defer cancel()
	refusing := ""
	if own.Refused {
		refusing = leader
	}
	type answer struct {
		from    int
		account cluster.ManagerHealth
	}
	answers := make(chan answer, len(others))
	for i, server := range others {
		go func() {
			account, err := c.config.Ask(ctx, string(server.Address), refusing)
			if err != nil {
				account = cluster.ManagerHealth{}
			}
			answers <- answer{i, account}
		}()
	}
	accounts := make([]cluster.ManagerHealth, len(others))
	open := map[int]bool{}
	for i := range others {
		open[i] = true
	}
	for len(open) > 0 {
		got := <-answers
		accounts[got.from] = got.account
		delete(open, got.from)
		ahead := false // whether one that may go before this one has yet to answer
		for i := range open {
			ahead = ahead || string(others[i].ID) < own.NodeID
		}
		if _, agreed := tally(own, accounts, c.config.HeartbeatTimeout); agreed && !ahead {
			break
		}
	}
	return accounts
}
