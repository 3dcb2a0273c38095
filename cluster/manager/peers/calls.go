package peers

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"

	"skep/cluster"
)

// What users ask of a follower becomes a small question to the leader each time. An exchange of
// HTTP costs both ends more than the answer does; here all questions to one manager go over one
// connection that is kept, and those that wait together are sent together.
//
// A message is four bytes of length, big endian, then the number of the call (eight bytes), its kind
// (one) and the content. An answer has the number of its call.

const (
	// MaxCall is the largest content of a call or an answer, in bytes.
	MaxCall = 4 << 20
	// maxCalls is how many calls of one connection are answered at a time; the next one isn't read
	// until then.
	maxCalls = 1024
	// callWriteLimit is how long the other end may take nothing of what is written.
	callWriteLimit = 5 * time.Second
	// callHead is how long the part of a message before its content is, without the length.
	callHead = 9
	// callBuffer is how much is read at once.
	callBuffer = 16 << 10
	// dialPause is how long a manager that couldn't be called isn't dialed again: it may be of a
	// version that doesn't know this protocol.
	dialPause = 500 * time.Millisecond
)

// callConns are the connections for calls to other managers, one for each.
type callConns struct {
	dial func(ctx context.Context, target string) (net.Conn, error)
	now  func() time.Time

	mu     sync.Mutex // guards the fields below
	closed bool
	to     map[string]*callConn
}

// callConn is one of them, also while it is being made and a while after that failed.
type callConn struct {
	made   chan struct{} // closed when the three below are set
	err    error         // why there is none
	failed time.Time
	out    *callWriter

	mu      sync.Mutex // guards the fields below
	pending map[uint64]chan []byte
	last    uint64
	broken  error // why it can't be used any more
}

func newCallConns(dial func(context.Context, string) (net.Conn, error), now func() time.Time) *callConns {
	return &callConns{dial: dial, now: now, to: map[string]*callConn{}}
}

// call sends a call and waits for its answer. Its errors wrap cluster.ErrUnreachable when nothing
// was sent. A connection on which an answer is missing when ctx is over is given up.
func (c *callConns) call(ctx context.Context, target string, kind byte, content []byte) ([]byte, error) {
	conn, err := c.get(ctx, target)
	if err != nil {
		return nil, err
	}
	answer := make(chan []byte, 1)
	conn.mu.Lock()
	if conn.broken != nil {
		err := conn.broken
		conn.mu.Unlock()
		return nil, fmt.Errorf("call manager: %w: %w", cluster.ErrUnreachable, err)
	}
	conn.last++
	id := conn.last
	conn.pending[id] = answer
	conn.mu.Unlock()
	conn.out.send(id, kind, content)
	select {
	case data, ok := <-answer:
		if !ok {
			return nil, fmt.Errorf("call manager: the connection ended: %w", cluster.ErrUnavailable)
		}
		return data, nil
	case <-ctx.Done():
	}
	conn.mu.Lock()
	delete(conn.pending, id)
	conn.mu.Unlock()
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		c.drop(target, conn, context.DeadlineExceeded)
	}
	return nil, fmt.Errorf("call manager: %w: %w", cluster.ErrUnavailable, context.Cause(ctx))
}

// get gives the connection to a manager, and makes it if there is none.
func (c *callConns) get(ctx context.Context, target string) (*callConn, error) {
	c.mu.Lock()
	conn := c.to[target]
	if conn == nil || conn.over(c.now()) {
		if c.closed {
			c.mu.Unlock()
			return nil, fmt.Errorf("call manager: %w: %w", cluster.ErrUnreachable, net.ErrClosed)
		}
		conn = &callConn{made: make(chan struct{}), pending: map[uint64]chan []byte{}}
		c.to[target] = conn
		go c.connect(target, conn)
	}
	c.mu.Unlock()
	select {
	case <-conn.made:
	case <-ctx.Done():
		return nil, fmt.Errorf("call manager: %w: %w", cluster.ErrUnreachable, context.Cause(ctx))
	}
	return conn, conn.err
}

// over tells whether another one is to be made in its place.
func (c *callConn) over(now time.Time) bool {
	select {
	case <-c.made:
	default:
		return false
	}
	if c.err != nil {
		return now.Sub(c.failed) >= dialPause
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken != nil
}

// connect makes a connection, and takes what comes by it until it ends.
func (c *callConns) connect(target string, made *callConn) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	conn, err := c.dial(ctx, target)
	cancel()
	if err != nil {
		made.err, made.failed = err, c.now()
		close(made.made)
		return
	}
	made.out = newCallWriter(conn)
	close(made.made)
	c.mu.Lock()
	unwanted := c.closed || c.to[target] != made
	c.mu.Unlock()
	if unwanted {
		c.drop(target, made, net.ErrClosed)
		return
	}
	err = readCalls(conn, func(id uint64, _ byte, content []byte) bool {
		made.mu.Lock()
		answer := made.pending[id]
		delete(made.pending, id)
		made.mu.Unlock()
		if answer != nil {
			answer <- content
		}
		return true
	})
	c.drop(target, made, err)
}

// drop ends a connection, and the calls that wait for answers by it.
func (c *callConns) drop(target string, conn *callConn, why error) {
	c.mu.Lock()
	if c.to[target] == conn {
		delete(c.to, target)
	}
	c.mu.Unlock()
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if conn.broken != nil {
		return
	}
	conn.broken = why
	for _, answer := range conn.pending {
		close(answer)
	}
	conn.pending = nil
	_ = conn.out.conn.Close() // It is over either way.
}

// keep makes those that are missing to targets, without waiting, and ends those to others.
func (c *callConns) keep(targets []string) {
	c.mu.Lock()
	var others []string
	for target := range c.to {
		if !slices.Contains(targets, target) {
			others = append(others, target)
		}
	}
	c.mu.Unlock()
	for _, target := range others {
		c.end(target)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, target := range targets {
		_, _ = c.get(ended, target) // Whoever calls sees what comes of it.
	}
}

// end ends the connection to a manager.
func (c *callConns) end(target string) {
	c.mu.Lock()
	conn := c.to[target]
	delete(c.to, target)
	c.mu.Unlock()
	if conn == nil {
		return
	}
	select {
	case <-conn.made:
		if conn.err == nil {
			c.drop(target, conn, net.ErrClosed)
		}
	default: // Connect sees that it is wanted no more.
	}
}

// close ends all, now and from now on.
func (c *callConns) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.keep(nil)
}

// callWriter writes messages to a connection. What comes while one is written goes with the next
// write, together.
type callWriter struct {
	conn net.Conn

	mu      sync.Mutex // guards the fields below
	waiting []byte
	spare   []byte // a buffer for the next ones
	writing bool
}

// maxSpare is the largest buffer that is kept.
const maxSpare = 64 << 10

func newCallWriter(conn net.Conn) *callWriter { return &callWriter{conn: conn} }

// send writes a message, or leaves it to who is writing. A connection that takes nothing is closed,
// which its reader notices.
func (w *callWriter) send(id uint64, kind byte, content []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = binary.BigEndian.AppendUint32(w.waiting, uint32(callHead+len(content)))
	w.waiting = binary.BigEndian.AppendUint64(w.waiting, id)
	w.waiting = append(append(w.waiting, kind), content...)
	if w.writing {
		return
	}
	w.writing = true
	for len(w.waiting) > 0 {
		out := w.waiting
		w.waiting, w.spare = w.spare[:0], nil
		w.mu.Unlock()
		// The deadline is the connection's, so it is by its clock.
		_ = w.conn.SetWriteDeadline(time.Now().Add(callWriteLimit))
		_, err := w.conn.Write(out)
		if err != nil {
			_ = w.conn.Close() // The error of the write says more, and the reader's end says it to all.
		}
		w.mu.Lock()
		if cap(out) <= maxSpare {
			w.spare = out
		}
	}
	w.writing = false
}

// readCalls gives each message that comes, until the connection ends or take says no.
func readCalls(conn net.Conn, take func(id uint64, kind byte, content []byte) bool) error {
	in := bufio.NewReaderSize(conn, callBuffer)
	for {
		var head [4 + callHead]byte
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return fmt.Errorf("read call: %w", err)
		}
		size := binary.BigEndian.Uint32(head[:4])
		if size < callHead || size > callHead+MaxCall {
			return fmt.Errorf("read call: %d bytes are over the limit of %d: %w", size, MaxCall, cluster.ErrInvalid)
		}
		content := make([]byte, size-callHead)
		if _, err := io.ReadFull(in, content); err != nil {
			return fmt.Errorf("read call: %w", err)
		}
		if !take(binary.BigEndian.Uint64(head[4:]), head[12], content) {
			return fmt.Errorf("read call: %w", net.ErrClosed)
		}
	}
}

// ServeCalls answers the calls of the manager from that come by conn until it or ctx ends, or that one is no manager any more, and
// closes it. Handle gets one after the other and mustn't block; it calls answer once, from any goroutine.
func (t *Transport) ServeCalls(ctx context.Context, conn net.Conn, from string, handle func(kind byte, content []byte, answer func([]byte))) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	t.callers.add(conn, from)
	defer t.callers.remove(conn)
	out := newCallWriter(conn)
	places := make(chan struct{}, maxCalls)
	return readCalls(conn, func(id uint64, kind byte, content []byte) bool {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return false
		}
		handle(kind, content, func(answer []byte) {
			out.send(id, kind, answer)
			<-places
		})
		return true
	})
}

// callers are the connections that others opened for calls.
type callers struct {
	mu   sync.Mutex // guards from
	from map[net.Conn]string
}

func (c *callers) add(conn net.Conn, from string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.from == nil {
		c.from = map[net.Conn]string{}
	}
	c.from[conn] = from
}

func (c *callers) remove(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.from, conn)
}

// closeExcept ends the connections of those who don't belong.
func (c *callers) closeExcept(belongs func(from string) bool) {
	c.mu.Lock()
	all := maps.Clone(c.from)
	c.mu.Unlock()
	for conn, from := range all {
		if !belongs(from) {
			_ = conn.Close() // It is over either way.
		}
	}
}

// Call asks the manager of that ID at addr something, over the connection that is kept, and gives
// its answer. Its errors wrap cluster.ErrUnreachable when nothing was sent.
func (t *Transport) Call(ctx context.Context, id, addr string, kind byte, content []byte) ([]byte, error) {
	if len(content) > MaxCall {
		return nil, fmt.Errorf("call manager: %d bytes are over the limit of %d: %w", len(content), MaxCall, cluster.ErrInvalid)
	}
	return t.calls.call(ctx, string(dialTarget(raft.ServerID(id), raft.ServerAddress(addr))), kind, content)
}

// dialCalls opens a connection for calls to the manager that target names.
func (t *Transport) dialCalls(ctx context.Context, target string) (net.Conn, error) {
	id, addr := splitDialTarget(target)
	done, err := t.turns.acquire(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("dial manager %s: %w: %w", addr, cluster.ErrUnreachable, err)
	}
	defer done()
	want := cluster.Identity{NodeID: id, Role: swarm.NodeRoleManager}
	return Dial(ctx, t.config.Network, addr, t.config.Credentials.ClientTLS(want, cluster.ProtocolManager))
}
