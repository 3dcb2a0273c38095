package peers

import (
	"context"
	"net"
	"net/http/httptrace"
	"slices"
	"sync"
	"time"

	"skep/cluster"
)

const (
	// warmForRaft is how many connections to each manager lie ready for raft: one for
	// heartbeats, and one for votes and entries. warmForRequests is how many do for what is
	// forwarded, such as requests of users and the news of agents.
	warmForRaft     = 2
	warmForRequests = 4
	// warmEvery is how often missing ones are made. A manager also asks the others on each
	// connection for what is forwarded, when warm ones were missing and each prewarmEvery-th time: those that
	// nobody uses for IdleTimeout are closed. prewarmPause follows each that had to be made.
	warmEvery    = time.Second
	prewarmEvery = 50
	prewarmPause = 20 * time.Millisecond
	// prewarmLimit is how long prewarming one manager may take: its connections are used only
	// when all are there, each after its handshake, and one that is given up is closed.
	prewarmLimit = 8 * time.Second
)

// warmConns are connections to other managers that raft will need when leadership
// changes. Their handshakes would be most of what an election takes, at a moment when
// everybody shakes hands with everybody.
type warmConns struct {
	dial func(ctx context.Context, addr string) (net.Conn, error)

	mu      sync.Mutex // guards the fields below
	closed  bool
	ready   map[string][]*warmConn
	dialing map[string]int // how many are being made
}

// warmConn is a connection that nobody uses yet. A goroutine reads from it, to which
// nothing comes but its end.
type warmConn struct {
	conn net.Conn
	// idle is closed when the goroutine has ended; the connection is good then if it
	// was taken.
	idle chan struct{}
}

func newWarmConns(dial func(context.Context, string) (net.Conn, error)) *warmConns {
	return &warmConns{dial: dial, ready: map[string][]*warmConn{}, dialing: map[string]int{}}
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// take gives a connection to addr, or nil when none is ready.
func (s *warmConns) take(addr string) net.Conn {
	for {
		s.mu.Lock()
		ready := s.ready[addr]
		if len(ready) == 0 {
			s.mu.Unlock()
			return nil
		}
		taken := ready[len(ready)-1]
		s.ready[addr] = ready[:len(ready)-1]
		s.mu.Unlock()
		_ = taken.conn.SetReadDeadline(past)
		<-taken.idle
		if taken.conn.SetReadDeadline(time.Time{}) == nil {
			return taken.conn
		}
		taken.conn.Close()
	}
}

// put takes in what a dial gave, and keeps the connection until it is taken or ends.
func (s *warmConns) put(addr string, conn net.Conn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dialing[addr]--; s.dialing[addr] == 0 {
		delete(s.dialing, addr)
	}
	if err != nil {
		return // The next round tries again.
	}
	if s.closed {
		conn.Close()
		return
	}
	kept := &warmConn{conn: conn, idle: make(chan struct{})}
	s.ready[addr] = append(s.ready[addr], kept)
	go func() {
		defer close(kept.idle)
		_, _ = conn.Read(make([]byte, 1))
		s.mu.Lock()
		defer s.mu.Unlock()
		if at := slices.Index(s.ready[addr], kept); at >= 0 {
			s.ready[addr] = slices.Delete(s.ready[addr], at, at+1)
			conn.Close() // Nobody took it: it ended.
		}
	}()
}

// fill makes those that are missing to addrs, each on a goroutine of its own, and closes
// those to others. It tells of which some were missing: they are new, or have begun anew.
func (s *warmConns) fill(ctx context.Context, addrs []string) (missing []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for addr, ready := range s.ready {
		if s.closed || !slices.Contains(addrs, addr) {
			for _, unused := range ready {
				unused.conn.Close()
			}
		}
	}
	for _, addr := range addrs {
		if s.dialing[addr]+len(s.ready[addr]) < warmForRaft {
			missing = append(missing, addr)
		}
		for !s.closed && s.dialing[addr]+len(s.ready[addr]) < warmForRaft {
			s.dialing[addr]++
			go func() {
				conn, err := s.dial(ctx, addr)
				s.put(addr, conn, err)
			}()
		}
	}
	return missing
}

// close closes all of them, and those that are being made.
func (s *warmConns) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.fill(context.Background(), nil)
}

// keepWarmConns keeps connections to the other managers ready until ctx ends.
func (t *Transport) keepWarmConns(ctx context.Context) error {
	for round := 0; ; round++ {
		var all, targets []string // And this one, which tells itself to stand.
		for _, server := range t.Servers() {
			all = append(all, string(server.Address))
			targets = append(targets, string(dialTarget(server.ID, server.Address)))
		}
		missing := t.streams.warm.fill(ctx, targets)
		t.calls.keep(slices.DeleteFunc(slices.Clone(targets), func(target string) bool {
			id, _ := splitDialTarget(target)
			return id == t.config.NodeID
		}))
		t.inbound.closeExcept(t.MayConnect)
		t.callers.closeExcept(t.MayConnect)
		var prewarmed []string
		for i, addr := range all {
			if addr != t.config.Addr && (round%prewarmEvery == 0 || slices.Contains(missing, targets[i])) {
				prewarmed = append(prewarmed, addr)
			}
		}
		go t.prewarm(ctx, prewarmed)
		if !cluster.Sleep(ctx, warmEvery) {
			return ctx.Err()
		}
	}
}

// prewarm asks managers how they are, on warmForRequests connections each: every question
// keeps its connection until the last one has one. They are made one after the other, with
// pauses: who makes them has other things to do.
func (t *Transport) prewarm(ctx context.Context, addrs []string) {
	for _, addr := range addrs {
		ctx, cancel := context.WithTimeout(ctx, prewarmLimit)
		met := make(chan struct{})
		var asked sync.WaitGroup
		for range warmForRequests {
			connected := make(chan bool, 1) // whether the connection is new; closed when there is none
			asking := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
				select {
				case connected <- !got.Reused:
				default: // It is the second one, since the first one had ended.
				}
				<-met
			}})
			asked.Go(func() {
				defer close(connected)
				_ = t.config.Ask(asking, addr)
			})
			fresh, ok := <-connected
			if !ok {
				break
			}
			if fresh {
				cluster.Sleep(ctx, prewarmPause)
			}
		}
		close(met)
		go func() {
			asked.Wait() // A manager that hangs keeps the next one from nothing.
			cancel()
		}()
	}
}
