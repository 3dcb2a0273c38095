package clustertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how many bytes may be under way in one direction of a connection.
const window = 256 << 10

// wire is the network that all machines of a cluster share.
type wire struct {
	mu sync.Mutex // guards the fields below, and all connections' buffers
	// changed is closed when something changes that may mean something for everybody;
	// what only the two ends of a connection need to know is told to them.
	changed   chan struct{}
	listeners map[string]*listener
	conns     map[*conn]bool
	// cut has the pairs of IP addresses that don't reach each other; down the
	// addresses of machines that are off.
	cut  map[[2]string]bool
	down map[string]bool
	// gone has the addresses that are nobody's any more, and public the private ones of
	// those that a NAT has, or that lead to the same machine.
	gone   map[string]bool
	public map[string]string
	// mute has the pairs of which the second hears nothing from the first.
	mute map[[2]string]bool
	// refused has the pairs of which each refuses the other's connections.
	refused map[[2]string]bool
	// far has how long what a machine sends or is sent is under way, by its address,
	// and lossy how likely it is lost.
	far   map[string]time.Duration
	lossy map[string]float64
	// random decides what is lost.
	random *rand.Rand
	port   int
	// sent counts what each address wrote on connections.
	sent map[string]int
}

func newWire(seed uint64) *wire {
	return &wire{
		changed: make(chan struct{}), listeners: map[string]*listener{}, conns: map[*conn]bool{},
		gone: map[string]bool{}, public: map[string]string{},
		cut: map[[2]string]bool{}, down: map[string]bool{}, mute: map[[2]string]bool{}, refused: map[[2]string]bool{},
		far: map[string]time.Duration{}, lossy: map[string]float64{}, sent: map[string]int{}, random: rand.New(rand.NewPCG(seed, 2)), port: 40000,
	}
}

// wakeLocked makes everybody who waits look again.
func (w *wire) wakeLocked() {
	close(w.changed)
	w.changed = make(chan struct{})
	for c := range w.conns {
		c.wakeLocked()
	}
}

// severedLocked tells whether nothing gets through between two addresses, in
// either direction.
func (w *wire) severedLocked(a, b string) bool {
	return w.cut[[2]string{a, b}] || w.cut[[2]string{b, a}] || w.gone[a] || w.gone[b]
}

// deafLocked tells whether to hears nothing from from.
func (w *wire) deafLocked(from, to string) bool {
	return w.severedLocked(from, to) || w.mute[[2]string{from, to}]
}

// strangersLocked tells whether two addresses can't make a connection: that takes
// both directions.
func (w *wire) strangersLocked(a, b string) bool {
	return w.deafLocked(a, b) || w.deafLocked(b, a) || w.refusedLocked(a, b)
}

func (w *wire) refusedLocked(a, b string) bool {
	return w.refused[[2]string{a, b}] || w.refused[[2]string{b, a}]
}

// refuse has two addresses refuse each other, or ends that. Connections break at once.
func (w *wire) refuse(a, b string, refuse bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(w.refused, [2]string{b, a}); !refuse {
		delete(w.refused, [2]string{a, b})
		return
	}
	w.refused[[2]string{a, b}] = true
	w.breakLocked(func(c *conn) bool { return w.refusedLocked(c.local.host, c.remote.host) })
}

// lose has a part of what an address sends and is sent get lost.
func (w *wire) lose(ip string, part float64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lossy[ip] = part
}

// snap breaks the connections of an address. New ones can be made.
func (w *wire) snap(ip string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.breakLocked(func(c *conn) bool { return c.local.host == ip || c.remote.host == ip })
}

// breakLocked resets connections, as seen from both ends.
func (w *wire) breakLocked(which func(*conn) bool) {
	for c := range w.conns {
		if which(c) {
			c.in.closed, c.in.reset = true, true
			c.out.closed, c.out.reset = true, true
		}
	}
	w.wakeLocked()
}

// silence cuts or mends one direction. What is under way in the other one arrives.
func (w *wire) silence(from, to string, mute bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if mute {
		w.mute[[2]string{from, to}] = true
	} else {
		delete(w.mute, [2]string{from, to})
	}
	w.wakeLocked()
}

// delay has everything to and from an address take so long.
func (w *wire) delay(ip string, by time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.far[ip] = by
	w.wakeLocked()
}

// sever cuts or mends the way between two addresses. What is sent while it is cut
// is held, as TCP would retransmit it.
func (w *wire) sever(a, b string, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(w.cut, [2]string{b, a}); cut {
		w.cut[[2]string{a, b}] = true
	} else {
		delete(w.cut, [2]string{a, b})
	}
	w.wakeLocked()
}

// kill turns a machine off: its connections break at once, as a killed process's do.
func (w *wire) kill(ip string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down[ip] = true
	for addr, l := range w.listeners {
		if l.addr.host == ip {
			delete(w.listeners, addr)
		}
	}
	w.breakLocked(func(c *conn) bool { return c.local.host == ip || c.remote.host == ip })
}

// also has a second address lead to a machine, as a NAT's does.
func (w *wire) also(addr, ip string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.public[addr] = ip
}

// move gives a machine another address: nothing gets to or from the one of before. What
// there was with the new one is over, since it was somebody else's.
func (w *wire) move(from, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone[from] = true
	for addr, ip := range w.public {
		if ip == from {
			w.public[addr] = to
		}
	}
	for addr, l := range w.listeners {
		if l.addr.host == to {
			delete(w.listeners, addr)
		}
	}
	delete(w.gone, to)
	w.breakLocked(func(c *conn) bool { return c.local.host == to || c.remote.host == to })
}

// end breaks what is left when no daemon runs any more: an address that was somebody's
// tells nobody that a process ended.
func (w *wire) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.breakLocked(func(*conn) bool { return true })
}

func (w *wire) revive(ip string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.down, ip)
}

// machine is the network as one machine sees it: a node.Network.
type machineNetwork struct {
	wire *wire
	ip   string
}

// ofMachine is the network of a machine, whose address may change: a
// node.Network.
type ofMachine struct{ m *Machine }

func (n ofMachine) now() machineNetwork { return machineNetwork{n.m.cluster.wire, n.m.address()} }

func (n ofMachine) Listen(text string) (net.Listener, error) { return n.now().Listen(text) }

func (n ofMachine) Dial(ctx context.Context, text string) (net.Conn, error) {
	return n.now().Dial(ctx, text)
}

// LocalIP is the machine's address, by which it reaches everybody.
func (n ofMachine) LocalIP(context.Context, string) (string, error) { return n.m.address(), nil }

type address struct {
	host string
	port string
}

func (a address) Network() string { return "memory" }
func (a address) String() string  { return net.JoinHostPort(a.host, a.port) }

func parseAddress(text string) (address, error) {
	host, port, err := net.SplitHostPort(text)
	return address{host, port}, err
}

// Listen opens a port.
func (m machineNetwork) Listen(text string) (net.Listener, error) {
	addr, err := parseAddress(text)
	if err != nil {
		return nil, err
	}
	shown := addr
	if addr.host == "0.0.0.0" {
		addr.host = m.ip
	}
	w := m.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.gone[addr.host] {
		return nil, fmt.Errorf("listen %s: %w", addr, syscall.EADDRNOTAVAIL)
	}
	if w.listeners[addr.String()] != nil {
		return nil, fmt.Errorf("listen %s: %w", addr, syscall.EADDRINUSE)
	}
	l := &listener{wire: w, addr: addr, shown: shown}
	w.listeners[addr.String()] = l
	return l, nil
}

// Dial connects; to a machine that is cut off it takes until ctx ends.
func (m machineNetwork) Dial(ctx context.Context, text string) (net.Conn, error) {
	addr, err := parseAddress(text)
	if err != nil {
		return nil, err
	}
	if addr.host == "127.0.0.1" {
		addr.host = m.ip
	}
	w := m.wire
	w.mu.Lock()
	if private := w.public[addr.host]; private == m.ip {
		w.mu.Unlock()
		<-ctx.Done() // A NAT without hairpin: its own address doesn't lead back in.
		return nil, ctx.Err()
	} else if private != "" {
		addr.host = private
	}
	for w.strangersLocked(m.ip, addr.host) && !w.refusedLocked(m.ip, addr.host) {
		changed := w.changed
		w.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		w.mu.Lock()
	}
	defer w.mu.Unlock()
	l := w.listeners[addr.String()]
	if l == nil || w.down[m.ip] || w.refusedLocked(m.ip, addr.host) {
		return nil, fmt.Errorf("dial %s: %w", addr, syscall.ECONNREFUSED)
	}
	w.port++
	local := address{m.ip, fmt.Sprint(w.port)}
	there, back := &stream{}, &stream{}
	near := &conn{wire: w, local: local, remote: addr, in: back, out: there, changed: make(chan struct{})}
	far := &conn{wire: w, local: addr, remote: local, in: there, out: back, changed: make(chan struct{}), peer: near}
	near.peer = far
	w.conns[near], w.conns[far] = true, true
	l.pending = append(l.pending, far)
	w.wakeLocked()
	return near, nil
}

type listener struct {
	wire    *wire
	addr    address
	shown   address // what it says of itself
	pending []*conn
	closed  bool
}

func (l *listener) Accept() (net.Conn, error) {
	w := l.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if l.closed {
			return nil, net.ErrClosed
		}
		if len(l.pending) > 0 {
			c := l.pending[0]
			l.pending = l.pending[1:]
			return c, nil
		}
		changed := w.changed
		w.mu.Unlock()
		<-changed
		w.mu.Lock()
	}
}

func (l *listener) Close() error {
	w := l.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	l.closed = true
	if w.listeners[l.addr.String()] == l {
		delete(w.listeners, l.addr.String())
	}
	w.wakeLocked()
	return nil
}

func (l *listener) Addr() net.Addr { return l.shown }

// stream is one direction of a connection.
type stream struct {
	data []byte
	// due says when how much of data has arrived; times don't go back.
	due    []arrival
	closed bool
	reset  bool
}

// arrival is when the bytes up to a place, counted from the stream's beginning, are there.
type arrival struct {
	at   time.Time
	upTo int
}

// send puts bytes under way that arrive at the time given, and not before those ahead of them.
func (s *stream) send(p []byte, at time.Time) (arrives time.Time) {
	s.data = append(s.data, p...)
	if n := len(s.due); n > 0 && s.due[n-1].at.After(at) {
		at = s.due[n-1].at
	}
	s.due = append(s.due, arrival{at, len(s.data)})
	return at
}

// arrived is how many of the bytes are there.
func (s *stream) arrived(now time.Time) (n int) {
	for _, a := range s.due {
		if a.at.After(now) {
			break
		}
		n = a.upTo
	}
	return n
}

// take removes bytes that have arrived.
func (s *stream) take(p []byte, arrived int) int {
	n := copy(p, s.data[:arrived])
	if s.data = s.data[n:]; len(s.data) == 0 {
		s.data = nil
	}
	kept := s.due[:0]
	for _, a := range s.due {
		if a.upTo -= n; a.upTo > 0 {
			kept = append(kept, a)
		}
	}
	s.due = kept
	return n
}

// How TCP takes loss: what isn't acknowledged is sent again, each time after twice as
// long, and who has tried for too long gives the connection up.
const (
	resendAfter = 200 * time.Millisecond
	giveUpAfter = 15 * time.Second
)

// lostLocked decides whether one packet is lost.
func (w *wire) lostLocked(from, to string) bool {
	lost := 1 - (1-w.lossy[from])*(1-w.lossy[to])
	return lost > 0 && w.random.Float64() < lost
}

// travelLocked is how long what is sent now is under way, if it ever arrives. What a
// machine tells itself doesn't leave it.
func (w *wire) travelLocked(from, to string) (by time.Duration, arrives bool) {
	if from == to {
		return 0, true
	}
	by = w.far[from] + w.far[to]
	for again := resendAfter; w.lostLocked(from, to); again *= 2 {
		if by += again; by > giveUpAfter {
			return 0, false
		}
	}
	return by, true
}

type conn struct {
	wire          *wire
	local, remote address
	in, out       *stream
	peer          *conn
	// changed is closed when whoever reads or writes should look again.
	changed chan struct{}
	// readBy and writeBy are deadlines; zero means none.
	readBy, writeBy time.Time
}

func (c *conn) wakeLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *conn) wake() {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	c.wakeLocked()
}

// wait runs with the wire's lock held until ready does something, the deadline
// passes, or the end of time.
func (c *conn) wait(deadline func() time.Time, ready func() (int, error, bool)) (int, error) {
	w := c.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		if n, err, done := ready(); done {
			return n, err
		}
		var expired <-chan time.Time
		var timer *time.Timer
		if by := deadline(); !by.IsZero() {
			left := time.Until(by)
			if left <= 0 {
				return 0, os.ErrDeadlineExceeded
			}
			timer = time.NewTimer(left)
			expired = timer.C
		}
		changed := c.changed
		w.mu.Unlock()
		select {
		case <-changed:
		case <-expired:
		}
		if timer != nil {
			timer.Stop()
		}
		w.mu.Lock()
	}
}

func (c *conn) deafLocked() bool { return c.wire.deafLocked(c.remote.host, c.local.host) }

func (c *conn) Read(p []byte) (int, error) {
	return c.wait(func() time.Time { return c.readBy }, func() (int, error, bool) {
		switch {
		case c.in.reset:
			return 0, errReset, true
		case c.deafLocked():
			return 0, nil, false
		}
		if n := c.in.arrived(time.Now()); n > 0 {
			n = c.in.take(p, n)
			c.peer.wakeLocked()
			return n, nil, true
		}
		if c.in.closed && len(c.in.data) == 0 {
			return 0, io.EOF, true
		}
		return 0, nil, false
	})
}

var errReset = errors.New("connection reset by peer")

func (c *conn) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) || len(p) == 0 {
		n, err := c.wait(func() time.Time { return c.writeBy }, func() (int, error, bool) {
			switch {
			case c.out.closed && (c.in.reset || !c.deafLocked()): // That the other end closed it has to get here.
				return 0, errReset, true
			case len(c.out.data) >= window:
				return 0, nil, false
			}
			n := min(len(p)-written, window-len(c.out.data))
			now := time.Now()
			by, arrives := c.wire.travelLocked(c.local.host, c.remote.host)
			if !arrives {
				c.wire.breakLocked(func(of *conn) bool { return of == c || of == c.peer })
				return 0, errReset, true
			}
			if at := c.out.send(p[written:written+n], now.Add(by)); at.After(now) {
				time.AfterFunc(at.Sub(now), c.peer.wake)
			}
			c.wire.sent[c.local.host]++
			c.peer.wakeLocked()
			return n, nil, true
		})
		if written += n; err != nil || len(p) == 0 {
			return written, err
		}
	}
	return written, nil
}

func (c *conn) Close() error {
	w := c.wire
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.conns[c] {
		return nil
	}
	delete(w.conns, c)
	c.in.closed, c.in.reset = true, true
	c.out.closed = true
	c.wakeLocked()
	c.peer.wakeLocked()
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error { return c.setDeadlines(&t, &t) }

func (c *conn) SetReadDeadline(t time.Time) error { return c.setDeadlines(&t, nil) }

func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(nil, &t) }

func (c *conn) setDeadlines(read, write *time.Time) error {
	c.wire.mu.Lock()
	defer c.wire.mu.Unlock()
	if read != nil {
		c.readBy = *read
	}
	if write != nil {
		c.writeBy = *write
	}
	c.wakeLocked()
	return nil
}
