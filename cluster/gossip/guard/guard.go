package guard

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
	// MaxMembers is how many members a node keeps in mind, the dead of the last minutes
	// included.
	MaxMembers = 20_000
	// MaxStream is the longest text of a stream, in bytes: a push/pull of MaxMembers
	// members.
	MaxStream = 2<<20 + 1<<18
	// MaxStrangers is how many streams may be open that nothing has come from yet that
	// has the key. One may cost MaxStream of memory. The oldest has to go for the next,
	// so that silence keeps nobody out.
	MaxStrangers = 32
	// MaxAnswers is how many streams may be answered at once. Each costs the memory of
	// both sides' members.
	MaxAnswers = 32
)

// Guard is a transport for memberlist in front of another one. It seals and opens in the
// form that memberlist itself has for that. It opens instead of only looking, since two
// readers may see different texts in one packet: AES-GCM doesn't bind a packet to one key,
// and keys change in between.
type Guard struct {
	memberlist.Transport
	ring    *Ring
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

var _ memberlist.Transport = (*Guard)(nil)

// New begins to take what transport brings, until Shutdown.
func New(transport memberlist.Transport, ring *Ring, self, label string, log *log.Logger, seen func([]byte)) *Guard {
	stop := make(chan struct{})
	g := &Guard{
		Transport: transport,
		ring:      ring,
		self:      self,
		head:      append([]byte{LabelMsg, byte(len(label))}, label...),
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

// Overhead is what the guard adds to a packet, in bytes.
func (g *Guard) Overhead() int { return len(g.head) + SealOverhead }

// label is what everything sealed is bound to.
func (g *Guard) label() []byte { return g.head[2:] }

func (g *Guard) WriteTo(text []byte, addr string) (time.Time, error) {
	g.seen(text)
	packet := make([]byte, 0, g.Overhead()+len(text))
	return g.Transport.WriteTo(g.ring.Seal(append(packet, g.head...), text, g.label()), addr)
}

func (g *Guard) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	conn, err := g.Transport.DialTimeout(addr, timeout)
	if err != nil {
		return nil, err
	}
	return &stream{Conn: conn, guard: g}, nil
}

func (g *Guard) PacketCh() <-chan *memberlist.Packet { return g.packets }
func (g *Guard) StreamCh() <-chan net.Conn           { return g.streams }

// Shutdown may be called more than once.
func (g *Guard) Shutdown() error {
	// The transport's listeners may be handing something over: they end first.
	err := g.Transport.Shutdown()
	g.stop()
	<-g.stopped
	return err
}

func (g *Guard) pump(stop <-chan struct{}) {
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

// Inject gives memberlist a packet as if another member had sent it.
func (g *Guard) Inject(text []byte) {
	g.seen(text)
	select {
	case g.packets <- &memberlist.Packet{Buf: text, From: &net.UDPAddr{}}:
	case <-g.ending:
	}
}

// open returns what is known of the text of a packet that is well formed.
func (g *Guard) open(packet []byte) ([]byte, error) {
	if len(packet) < len(g.head) || !slices.Equal(packet[:len(g.head)], g.head) {
		return nil, errLabel
	}
	text, err := g.ring.Open(packet[len(g.head):], g.label())
	if err != nil {
		return nil, err
	}
	return CheckPacket(text, g.self)
}

var errLabel = errors.New("it hasn't the label of this cluster")

// admit counts a stream as a stranger's.
func (g *Guard) admit(s *stream) {
	g.mu.Lock()
	g.strangers = append(g.strangers, s)
	var oldest *stream
	if len(g.strangers) > MaxStrangers {
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
func (g *Guard) answer(s *stream) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.answers >= MaxAnswers {
		return fmt.Errorf("%d streams are being answered already", g.answers)
	}
	g.strangers = slices.DeleteFunc(g.strangers, func(other *stream) bool { return other == s })
	g.answers++
	s.answered = true
	return nil
}

func (g *Guard) forget(s *stream) {
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
	guard    *Guard
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
	out := make([]byte, 0, s.guard.Overhead()+len(head)+len(text))
	if !s.accepted && !s.greeted {
		out = append(out, s.guard.head...)
		s.greeted = true
	}
	if _, err := s.Conn.Write(s.guard.ring.Seal(append(out, head...), text, slices.Concat(head, s.guard.label()))); err != nil {
		return 0, err
	}
	return len(text), nil
}

// messageHead is the beginning of a message in a stream, to which it is bound.
func messageHead(length int) []byte {
	return binary.BigEndian.AppendUint32([]byte{encryptMsg}, uint32(SealOverhead+length))
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
	if length := binary.BigEndian.Uint32(head[1:]); head[0] != encryptMsg || length > SealOverhead+MaxStream {
		return nil, fmt.Errorf("it isn't encrypted, or has %d bytes", length)
	}
	sealed, err := readGrowing(s.Conn, int(binary.BigEndian.Uint32(head[1:])))
	if err != nil {
		return nil, err
	}
	text, err := s.guard.ring.Open(sealed, append(head, s.guard.label()...))
	if err != nil {
		return nil, err
	}
	if s.accepted {
		if err := s.guard.answer(s); err != nil {
			return nil, err
		}
	}
	return CheckStream(text, s.guard.self)
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
