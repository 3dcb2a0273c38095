package gossip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// maxNodes is how many members a node keeps in mind, the dead of the last minutes
	// included; a manager keeps twice as many as are in the database, and spareNodes.
	// Each is probed in its turn, so names that are made up would have a dead node be
	// found late.
	maxNodes   = 20_000
	spareNodes = 64
	// maxStream is the longest text of a stream, in bytes: a push/pull of maxNodes
	// members.
	maxStream = 2<<20 + 1<<18
	// maxStrangers is how many streams may be open that nothing has come from yet that
	// has the key. One may cost maxStream of memory. The oldest has to go for the next,
	// so that silence keeps nobody out.
	maxStrangers = 32
	// maxAnswers is how many streams may be answered at once. Each costs the memory of
	// both sides' members.
	maxAnswers = 32
)

// guard stands between memberlist and the network. It seals what memberlist sends and
// opens what arrives, in the form that memberlist itself has for that, and lets nothing
// through that isn't well formed, or that a later level added: memberlist 0.6.0 can be ended by whoever has the key
// (an empty stream, a padding longer than the text, a short Vsn) or be made to take any
// amount of memory (lengths that it believes, compression).
//
// It opens instead of only looking, since two readers may see different texts in one
// packet: AES-GCM doesn't bind a packet to one key, and keys change in between.
type guard struct {
	memberlist.Transport
	ring    *ring
	self    string
	head    []byte // label of the cluster, in front of each packet and stream
	log     *log.Logger
	seen    func(text []byte) // what each packet says, either way
	packets chan *memberlist.Packet
	streams chan net.Conn

	ending  <-chan struct{} // closed by stop
	stop    func()          // ends pump
	stopped chan struct{}   // closed when pump has ended

	mu        sync.Mutex // guards the fields below
	strangers []*stream  // the oldest first
	answers   int
}

var _ memberlist.Transport = (*guard)(nil)

// newGuard begins to take what transport brings, until Shutdown.
func newGuard(transport memberlist.Transport, ring *ring, self, label string, log *log.Logger, seen func([]byte)) *guard {
	stop := make(chan struct{})
	g := &guard{
		Transport: transport,
		ring:      ring,
		self:      self,
		head:      append([]byte{labelMsg, byte(len(label))}, label...),
		log:       log,
		seen:      seen,
		packets:   make(chan *memberlist.Packet),
		streams:   make(chan net.Conn),
		ending:    stop,
		stop:      sync.OnceFunc(func() { close(stop) }),
		stopped:   make(chan struct{}),
	}
	go g.pump(stop)
	return g
}

// overhead is what the guard adds to a packet, in bytes.
func (g *guard) overhead() int { return len(g.head) + sealOverhead }

// label is what everything sealed is bound to.
func (g *guard) label() []byte { return g.head[2:] }

func (g *guard) WriteTo(text []byte, addr string) (time.Time, error) {
	g.seen(text)
	packet := make([]byte, 0, g.overhead()+len(text))
	return g.Transport.WriteTo(g.ring.seal(append(packet, g.head...), text, g.label()), addr)
}

func (g *guard) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	conn, err := g.Transport.DialTimeout(addr, timeout)
	if err != nil {
		return nil, err
	}
	return &stream{Conn: conn, guard: g}, nil
}

func (g *guard) PacketCh() <-chan *memberlist.Packet { return g.packets }
func (g *guard) StreamCh() <-chan net.Conn           { return g.streams }

// Shutdown may be called more than once.
func (g *guard) Shutdown() error {
	// The transport's listeners may be handing something over: they end first.
	err := g.Transport.Shutdown()
	g.stop()
	<-g.stopped
	return err
}

func (g *guard) pump(stop <-chan struct{}) {
	defer close(g.stopped)
	for {
		select {
		case packet := <-g.Transport.PacketCh():
			text, err := g.open(packet.Buf)
			if err != nil {
				g.log.Printf("[WARN] drop packet from %v: %v", packet.From, err)
				continue
			}
			if len(text) == 0 {
				continue // All of it is a later level's.
			}
			packet.Buf = text
			g.seen(text)
			select {
			case g.packets <- packet:
			case <-stop:
			}
		case conn := <-g.Transport.StreamCh():
			s := &stream{Conn: conn, guard: g, accepted: true}
			g.admit(s)
			select {
			case g.streams <- s:
			case <-stop:
				s.Close()
			}
		case <-stop:
			return
		}
	}
}

// inject gives memberlist a packet as if another member had sent it.
func (g *guard) inject(text []byte) {
	g.seen(text)
	select {
	case g.packets <- &memberlist.Packet{Buf: text, From: &net.UDPAddr{}}:
	case <-g.ending:
	}
}

// open returns what is known of the text of a packet that is well formed.
func (g *guard) open(packet []byte) ([]byte, error) {
	if len(packet) < len(g.head) || !slices.Equal(packet[:len(g.head)], g.head) {
		return nil, errLabel
	}
	text, err := g.ring.open(packet[len(g.head):], g.label())
	if err != nil {
		return nil, err
	}
	return checkPacket(text, g.self)
}

var errLabel = errors.New("it hasn't the label of this cluster")

// admit counts a stream as a stranger's.
func (g *guard) admit(s *stream) {
	g.mu.Lock()
	g.strangers = append(g.strangers, s)
	var oldest *stream
	if len(g.strangers) > maxStrangers {
		oldest = g.strangers[0]
		g.strangers = slices.Delete(g.strangers, 0, 1)
	}
	g.mu.Unlock()
	if oldest != nil {
		// memberlist, which is reading from it, says so.
		oldest.Conn.Close()
	}
}

// answer counts a stream as one that is being answered.
func (g *guard) answer(s *stream) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.answers >= maxAnswers {
		return fmt.Errorf("%d streams are being answered already", g.answers)
	}
	g.strangers = slices.DeleteFunc(g.strangers, func(other *stream) bool { return other == s })
	g.answers++
	s.answered = true
	return nil
}

func (g *guard) forget(s *stream) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.strangers = slices.DeleteFunc(g.strangers, func(other *stream) bool { return other == s })
	if s.answered {
		g.answers--
		s.answered = false
	}
}

// stream carries one message each way, each written at once. Whoever dialed sends
// the label first. It reads a message as a whole, within the time that memberlist has
// set, and checks it before it gives away any of it.
type stream struct {
	net.Conn
	guard    *guard
	accepted bool
	greeted  bool // the label is sent
	answered bool // guarded by guard.mu: counted among the answers

	received bool
	text     []byte // what is left of the message
	err      error  // why there is none
}

// Write sends a message.
func (s *stream) Write(text []byte) (int, error) {
	head := messageHead(len(text))
	out := make([]byte, 0, s.guard.overhead()+len(head)+len(text))
	if !s.accepted && !s.greeted {
		out = append(out, s.guard.head...)
		s.greeted = true
	}
	if _, err := s.Conn.Write(s.guard.ring.seal(append(out, head...), text, slices.Concat(head, s.guard.label()))); err != nil {
		return 0, err
	}
	return len(text), nil
}

// messageHead is the beginning of a message in a stream, to which it is bound.
func messageHead(length int) []byte {
	return binary.BigEndian.AppendUint32([]byte{encryptMsg}, uint32(sealOverhead+length))
}

func (s *stream) Read(p []byte) (int, error) {
	if !s.received {
		s.received = true
		s.text, s.err = s.receive()
	}
	if s.err != nil {
		return 0, s.err
	}
	if len(s.text) == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	n := copy(p, s.text)
	s.text = s.text[n:]
	return n, nil
}

func (s *stream) receive() ([]byte, error) {
	if s.accepted {
		label := make([]byte, len(s.guard.head))
		if _, err := io.ReadFull(s.Conn, label); err != nil {
			return nil, err
		}
		if !slices.Equal(label, s.guard.head) {
			return nil, errLabel
		}
	}
	head := messageHead(0)
	if _, err := io.ReadFull(s.Conn, head); err != nil {
		return nil, err
	}
	if length := binary.BigEndian.Uint32(head[1:]); head[0] != encryptMsg || length > sealOverhead+maxStream {
		return nil, fmt.Errorf("it isn't encrypted, or has %d bytes", length)
	}
	sealed, err := readGrowing(s.Conn, int(binary.BigEndian.Uint32(head[1:])))
	if err != nil {
		return nil, err
	}
	text, err := s.guard.ring.open(sealed, append(head, s.guard.label()...))
	if err != nil {
		return nil, err
	}
	if s.accepted {
		if err := s.guard.answer(s); err != nil {
			return nil, err
		}
	}
	return checkStream(text, s.guard.self)
}

// readGrowing reads n bytes, and takes memory as they come, not as they are announced.
func readGrowing(from io.Reader, n int) ([]byte, error) {
	var read []byte
	for len(read) < n {
		had := len(read)
		read = append(read, make([]byte, min(n-had, max(had, 4<<10)))...)
		if _, err := io.ReadFull(from, read[had:]); err != nil {
			return nil, err
		}
	}
	return read, nil
}

func (s *stream) Close() error {
	s.guard.forget(s)
	return s.Conn.Close()
}
