package campaign

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sort"
	"syscall"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

// Raft finds out that a leader is gone by its silence, which takes a few hundred
// milliseconds, and mostly as long again until enough followers have found out.
// But a leader's process that ends breaks its connections, and nobody answers at
// its port any more: that is known at once. A follower that sees both doesn't wait
// for the silence: it asks the others whether the leader's port refuses them too, since a
// firewall's rule may do so to it alone. When most say so it stands for election as one
// does to whom leadership is handed over, and so gets the votes of those who haven't
// noticed yet.
//
// This is about time only. Who may be elected, and that there is one leader in a
// term, stays raft's: a needless election costs a moment without a leader.

// Raft is what is read of raft.
type Raft interface {
	State() raft.RaftState
	CurrentTerm() uint64
	LastIndex() uint64
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
	// Stand has raft begin an election, as one does to whom leadership is handed over.
	Stand func() error
	// Lost has the last manager whose connection to this one ended.
	Lost <-chan string
	// Doubt has gossip look after a node at once.
	Doubt func(nodeID string)
	Log   *slog.Logger
}

// Campaign stands for election when the leader is lost.
type Campaign struct {
	Config
	// quiet fires when the leader was silent for a HeartbeatTimeout.
	quiet *time.Timer
}

// New makes a Campaign. Nothing happens before Run.
func New(config Config) *Campaign {
	return &Campaign{Config: config, quiet: time.NewTimer(config.HeartbeatTimeout)}
}

// pause waits for d or ctx's end.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// electionStagger is how much later than the one before it each follower stands, so that they
// don't split the votes.
func (c *Campaign) electionStagger() time.Duration { return c.HeartbeatTimeout / 5 }

// OnClosedConns stands for election when the leader's process has ended.
func (c *Campaign) OnClosedConns(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case lost := <-c.Lost:
			c.Doubt(lost)
			c.considerClosedConn(ctx, lost)
		}
	}
}

// considerClosedConn looks at the loss of one connection.
func (c *Campaign) considerClosedConn(ctx context.Context, lost string) {
	addr, leader := c.Raft.LeaderWithID()
	term := c.Raft.CurrentTerm()
	if string(leader) != lost || lost == c.NodeID || !c.refuses(ctx, string(addr)) {
		return
	}
	servers := c.Servers()
	place := electionRank(servers, c.NodeID, lost)
	if place < 0 || !c.refusesMost(ctx, servers, lost) {
		return
	}
	pause(ctx, time.Duration(place)*c.electionStagger())
	// Somebody who stood earlier may have failed for want of the newest entries, and
	// only moved the term on: what counts is whether there is a leader.
	if _, now := c.Raft.LeaderWithID(); ctx.Err() != nil || (now != "" && now != leader) || c.Raft.State() != raft.Follower {
		return
	}
	c.campaign(lost, term, "the leader's process ended")
}

// campaign stands for election as one does to whom leadership is handed over: those who
// believe that there is a leader vote as well.
func (c *Campaign) campaign(leader string, term uint64, why string) {
	c.Doubt(leader)
	c.Log.Debug("stand for election: "+why, "node", c.NodeID, "leader", leader, "term", term)
	if err := c.Stand(); err != nil {
		c.Log.Debug("stand for election", "node", c.NodeID, "err", err)
	}
}

// refuses tells whether nobody listens at addr, on a machine that is there. A
// process that ends closes its connections and its port in any order, so it looks
// more than once.
func (c *Campaign) refuses(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, c.HeartbeatTimeout)
	defer cancel()
	for range 4 {
		conn, err := c.Dial(ctx, addr)
		if err != nil {
			return errors.Is(err, syscall.ECONNREFUSED)
		}
		conn.Close()
		pause(ctx, 10*time.Millisecond)
	}
	return false
}

// refusesMost tells whether most voters, the leader counted among them, find that nobody
// listens at the leader's port, as this one does. It waits for no more than are needed.
func (c *Campaign) refusesMost(ctx context.Context, servers []raft.Server, leader string) bool {
	ctx, cancel := context.WithTimeout(ctx, c.HeartbeatTimeout/3)
	defer cancel()
	voters, asked := 0, 0
	answers := make(chan bool, len(servers))
	for _, server := range servers {
		if server.Suffrage != raft.Voter {
			continue
		}
		voters++
		if string(server.ID) == c.NodeID || string(server.ID) == leader {
			continue
		}
		asked++
		go func() {
			health, err := c.Ask(ctx, string(server.Address), leader)
			answers <- err == nil && health.Refused
		}()
	}
	agree := 1
	for range asked {
		if agree > voters/2 {
			break
		}
		if <-answers {
			agree++
		}
	}
	return agree > voters/2
}

// Refused tells whether nobody listens at another manager's port, when a third asks. It
// looks once: whoever asks has found so a moment ago.
func (c *Campaign) Refused(ctx context.Context, nodeID string) bool {
	for _, server := range c.Servers() {
		if string(server.ID) != nodeID || nodeID == c.NodeID {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, c.HeartbeatTimeout/3)
		defer cancel()
		conn, err := c.Dial(ctx, string(server.Address))
		if err != nil {
			return errors.Is(err, syscall.ECONNREFUSED)
		}
		conn.Close()
	}
	return false
}

// electionRank is self's place among the voters that are left, or -1 when it has no vote.
func electionRank(servers []raft.Server, self, lost string) int {
	var left []string
	for _, server := range servers {
		if server.Suffrage == raft.Voter && string(server.ID) != lost {
			left = append(left, string(server.ID))
		}
	}
	sort.Strings(left)
	place := sort.SearchStrings(left, self)
	if place == len(left) || left[place] != self {
		return -1
	}
	return place
}
