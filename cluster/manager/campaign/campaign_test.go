package campaign

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"skep/cluster"
)

const testBeat = 300 * time.Millisecond

// district is what a Campaign is tried on: manager c of the managers leader, a, c, d and e.
type district struct {
	mu      sync.Mutex
	state   raft.RaftState
	leader  raft.ServerID
	contact time.Time
	noVote  bool
	// account is what each other manager answers; who isn't in it doesn't.
	account map[string]cluster.ManagerHealth
	// dial is what comes of a connection to the leader.
	dial func(ctx context.Context) error

	campaign *Campaign
	lost     chan string
	stood    atomic.Int64
	asked    atomic.Int64
}

func (d *district) State() raft.RaftState  { d.mu.Lock(); defer d.mu.Unlock(); return d.state }
func (d *district) CurrentTerm() uint64    { return 7 }
func (d *district) LastIndex() uint64      { return 40 }
func (d *district) LastContact() time.Time { d.mu.Lock(); defer d.mu.Unlock(); return d.contact }
func (d *district) LeaderWithID() (raft.ServerAddress, raft.ServerID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return raft.ServerAddress(d.leader), d.leader
}

func (d *district) set(edit func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	edit()
}

// run runs a Campaign, and heartbeats of the leader until beats ends.
func (d *district) run(t *testing.T, beats time.Duration) {
	d.state, d.leader, d.contact, d.lost = raft.Follower, "leader", time.Now(), make(chan string, 1)
	d.campaign = New(Config{
		NodeID: "c", Raft: d, HeartbeatTimeout: testBeat, Lost: d.lost, Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Servers: func() []raft.Server {
			own := raft.Server{ID: "c", Address: "c"}
			if d.mu.Lock(); d.noVote {
				own.Suffrage = raft.Nonvoter
			}
			d.mu.Unlock()
			return []raft.Server{{ID: "leader", Address: "leader"}, {ID: "a", Address: "a"}, own, {ID: "d", Address: "d"}, {ID: "e", Address: "e"}}
		},
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			if err := d.dial(ctx); err != nil {
				return nil, err
			}
			near, far := net.Pipe()
			far.Close()
			return near, nil
		},
		Ask: func(ctx context.Context, addr, refusing string) (cluster.ManagerHealth, error) {
			d.asked.Add(1)
			d.mu.Lock()
			account, there := d.account[addr]
			d.mu.Unlock()
			if !there {
				<-ctx.Done()
				return account, ctx.Err()
			}
			account.Refused = account.Refused && refusing == "leader"
			return account, nil
		},
		Stand: func(bool) error { d.stood.Add(1); d.set(func() { d.state = raft.Candidate }); return nil },
		Doubt: func(string) {},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = d.campaign.Run(ctx) }()
	go func() {
		for end := time.Now().Add(beats); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
			d.set(func() { d.contact = time.Now() })
			d.campaign.Heard()
		}
	}()
	t.Cleanup(func() { cancel(); <-done; time.Sleep(time.Second) })
}

// stands tells after how long the Campaign stands, within limit; 0 when it doesn't.
func (d *district) stands(limit time.Duration) time.Duration {
	for began := time.Now(); time.Since(began) < limit; time.Sleep(time.Millisecond) {
		if synctest.Wait(); d.stood.Load() > 0 {
			return time.Since(began)
		}
	}
	return 0
}

func missed(id string) cluster.ManagerHealth {
	return cluster.ManagerHealth{NodeID: id, Term: 7, LastIndex: 40, LastContact: testBeat}
}

func heard(id string) cluster.ManagerHealth {
	return cluster.ManagerHealth{NodeID: id, Term: 7, LastIndex: 40}
}

// heardRefused is of one that heard the leader just before its process ended.
func heardRefused(id string) cluster.ManagerHealth {
	account := heard(id)
	account.Refused = true
	return account
}

func refuse(context.Context) error { return syscall.ECONNREFUSED }
func accept(context.Context) error { return nil }

// unreachable is a machine that is cut off.
func unreachable(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func TestRun(t *testing.T) {
	type accounts = map[string]cluster.ManagerHealth
	const never = -1 // of lost: only the heartbeats end
	for _, test := range []struct {
		name    string
		dial    func(context.Context) error
		account accounts
		// lost is when a connection of the leader ends, after its heartbeats did.
		lost time.Duration
		// min and max are when this one stands; 0 is not at all.
		min, max time.Duration
	}{
		{"the process ended: this one is second by its ID", refuse, accounts{"a": heardRefused("a"), "d": heardRefused("d"), "e": heardRefused("e")}, 0, 60, 63},
		{"the process ended, and the first is away", refuse, accounts{"d": heardRefused("d"), "e": heardRefused("e")}, 0, 100, 103},
		{"the process ended, and the last is away", refuse, accounts{"a": heardRefused("a"), "d": heardRefused("d")}, 0, 60, 63},
		{"the process ended, as one other finds", refuse, accounts{"a": heard("a"), "d": heardRefused("d"), "e": heard("e")}, 0, 0, 0},
		{"this one alone is refused", refuse, accounts{"a": heard("a"), "d": heard("d"), "e": heard("e")}, 0, 0, 0},
		{"a connection broke, and the port is open", accept, accounts{"a": heard("a"), "d": heard("d"), "e": heard("e")}, 0, 0, 0},
		{"a connection broke, and the machine is cut off", unreachable, accounts{"a": missed("a"), "d": missed("d")}, 250, 400, 520},
		{"the leader is silent", unreachable, accounts{"a": missed("a"), "d": missed("d")}, never, 400, 520},
		{"this one comes first", unreachable, accounts{"d": missed("d"), "e": missed("e")}, never, 200, 420},
		{"the leader is silent for this one only", unreachable, accounts{"a": heard("a"), "d": heard("d"), "e": heard("e")}, never, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &district{dial: test.dial, account: test.account}
				d.run(t, time.Second)
				time.Sleep(time.Second)
				if d.stood.Load() > 0 || d.asked.Load() > 0 {
					t.Fatalf("while the leader is heard it asked %d times, and stood %d times", d.asked.Load(), d.stood.Load())
				}
				if test.lost != never {
					time.AfterFunc(test.lost*time.Millisecond, func() { d.lost <- "leader" })
				}
				took := d.stands(3 * time.Second)
				if (took == 0) != (test.max == 0) || took < test.min*time.Millisecond || took > test.max*time.Millisecond {
					t.Errorf("it stands after %v; want %d to %d ms", took, test.min, test.max)
				}
			})
		})
	}
}

// A refusal counts until there is another leader. That this one was heard says nothing:
// what it sent last may be read late.
func TestRun_WhatARefusalOutlives(t *testing.T) {
	for _, test := range []struct {
		name  string
		next  func(*district)
		stand bool
	}{
		{"nothing happens", func(d *district) {}, true},
		{"what the leader sent is read late", func(d *district) { d.contact = time.Now() }, true},
		{"somebody stood in vain", func(d *district) { d.leader = "" }, true},
		{"the others reach the leader", func(d *district) { d.account = map[string]cluster.ManagerHealth{"a": heard("a"), "d": heard("d")} }, false},
		{"another one leads", func(d *district) { d.leader, d.contact = "a", time.Now() }, false},
		{"this one leads", func(d *district) { d.state, d.leader = raft.Leader, "c" }, false},
		{"this one has no vote", func(d *district) { d.noVote = true }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &district{dial: refuse, account: map[string]cluster.ManagerHealth{"a": heardRefused("a"), "d": heardRefused("d"), "e": heardRefused("e")}}
				d.run(t, time.Second)
				time.Sleep(time.Second)
				d.lost <- "leader"
				time.Sleep(50 * time.Millisecond) // It would stand 10 ms later.
				d.set(func() { test.next(d) })
				d.campaign.Heard()
				if took := d.stands(200 * time.Millisecond); (took > 0) != test.stand || took > 13*time.Millisecond {
					t.Errorf("it stands: %v, after %v", took > 0, took)
				}
			})
		})
	}
}

// Whoever has just got this one's vote is given the time that an election takes.
func TestRun_AVoteThatWasGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &district{dial: refuse, account: map[string]cluster.ManagerHealth{"a": heardRefused("a"), "d": heardRefused("d"), "e": heardRefused("e")}}
		d.run(t, time.Second)
		time.Sleep(time.Second)
		d.lost <- "leader"
		time.Sleep(50 * time.Millisecond) // It would stand 10 ms later.
		d.set(func() { d.leader, d.contact = "", time.Now() })
		if took := d.stands(200 * time.Millisecond); took < stagger(testBeat) || took > stagger(testBeat)+5*time.Millisecond {
			t.Errorf("it stands %v after it gave its vote", took)
		}
	})
}

// Who alone is refused asks for a while only.
func TestRun_ARefusalCountsForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &district{dial: refuse, account: map[string]cluster.ManagerHealth{"a": heard("a"), "d": heard("d"), "e": heard("e")}}
		d.run(t, time.Minute)
		time.Sleep(time.Second)
		d.lost <- "leader"
		time.Sleep(testBeat + 10*time.Millisecond)
		asked := d.asked.Load()
		if time.Sleep(time.Second); asked == 0 || d.asked.Load() != asked || d.stood.Load() > 0 {
			t.Errorf("it asked %d times, and %d times after that, and stood %d times", asked, d.asked.Load()-asked, d.stood.Load())
		}
	})
}
