package gossip

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"skep/cluster"
)

// loopless is a transport that brings what a test puts in, and sends nothing.
type loopless struct {
	packets chan *memberlist.Packet
	streams chan net.Conn
	dialed  chan net.Conn // what DialTimeout gives
}

func newLoopless() loopless {
	return loopless{make(chan *memberlist.Packet), make(chan net.Conn), make(chan net.Conn, 1)}
}

func (loopless) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IPv4(10, 0, 0, 1), DefaultPort, nil
}
func (loopless) WriteTo([]byte, string) (time.Time, error) { return time.Now(), nil }
func (l loopless) DialTimeout(string, time.Duration) (net.Conn, error) {
	select {
	case conn := <-l.dialed:
		return conn, nil
	default:
		return nil, errors.New("connection refused")
	}
}
func (l loopless) PacketCh() <-chan *memberlist.Packet { return l.packets }
func (l loopless) StreamCh() <-chan net.Conn           { return l.streams }
func (loopless) Shutdown() error                       { return nil }

// startLone starts a member in a bubble, which it leaves nothing in.
func startLone(t *testing.T, transport memberlist.Transport, log *slog.Logger) *Gossip {
	t.Helper()
	g, err := Start(Config{NodeID: "node1", ClusterID: "c1", Keys: [][]byte{key(1)}, Transport: transport, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { settled(t, g) })
	return g
}

// settled closes a member within a bubble.
func settled(t *testing.T, g *Gossip) {
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	// What memberlist still waits for must end before the bubble does.
	time.Sleep(2 * streamTimeout)
}

// stranger is where packets and streams of a loopless come from.
var stranger = &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 7946}

// sendPacket has a member take a packet, and waits until it has.
func (l loopless) sendPacket(packet []byte) {
	l.packets <- &memberlist.Packet{Buf: packet, From: stranger, Timestamp: time.Now()}
	synctest.Wait()
}

// sendStream has a member take a stream, which ends, and returns what it answers.
func (l loopless) sendStream(stream []byte) []byte {
	near, far := net.Pipe()
	l.streams <- from{far}
	return talk(near, stream)
}

// from is a connection from the stranger.
type from struct{ net.Conn }

func (from) RemoteAddr() net.Addr { return stranger }

// talk says something and hears what the other side says, for a second.
func talk(conn net.Conn, say []byte) []byte {
	conn.SetDeadline(time.Now().Add(time.Second))
	conn.Write(say)
	heard, _ := io.ReadAll(conn)
	conn.Close()
	synctest.Wait()
	return heard
}

// labelled puts the label in front, as memberlist does.
func labelled(t testing.TB, packet []byte) []byte {
	packet, err := memberlist.AddLabelHeaderToPacket(packet, "c1")
	if err != nil {
		t.Fatal(err)
	}
	return packet
}

// encrypt does what memberlist does with its key, so that a text gets through to what
// understands it. In version 0 there is padding behind the text.
func encrypt(t testing.TB, version byte, text []byte, about []byte) []byte {
	block, err := aes.NewCipher(key(1))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, gcm.NonceSize())
	return gcm.Seal(append([]byte{version}, nonce...), nonce, text, about)
}

func packetOf(t testing.TB, version byte, text []byte) []byte {
	return labelled(t, encrypt(t, version, text, []byte("c1")))
}

// messageOf is a message in a stream.
func messageOf(t testing.TB, version byte, text []byte) []byte {
	head := binary.BigEndian.AppendUint32([]byte{10}, uint32(29+len(text)))
	return append(slices.Clone(head), encrypt(t, version, text, append(head, "c1"...))...)
}

// msgpack writes a message of memberlist's: its type, and fields by name.
func msgpack(kind byte, fields ...any) []byte {
	out := []byte{kind, 0x80 | byte(len(fields)/2)}
	for _, field := range fields {
		switch v := field.(type) {
		case string:
			out = append(append(out, 0xa0|byte(len(v))), v...)
		case []byte:
			out = append(append(out, 0xa0|byte(len(v))), v...)
		case int:
			out = binary.BigEndian.AppendUint32(append(out, 0xce), uint32(v))
		}
	}
	return out
}

// vsn is what members say of the versions that they understand.
var vsn = []byte{1, 5, 2, 0, 0, 0}

func aliveOf(name string, ip []byte) []byte {
	return msgpack(4, "Incarnation", 9, "Node", name, "Addr", ip, "Port", 7946, "Vsn", vsn)
}

func exchangeOf(name string, ip, vsn []byte) []byte {
	return slices.Concat(msgpack(6, "Nodes", 1, "UserStateLen", 0),
		msgpack(4, "Name", name, "Addr", ip, "Port", 7946, "Incarnation", 1, "State", 0, "Vsn", vsn)[1:])
}

// FuzzPacket has somebody who has the cluster's key, any node that is, send a packet
// of any content. Nobody but memberlist's own rules says who is here: a node can't be
// told that it isn't, or is elsewhere, and members have addresses.
func FuzzPacket(f *testing.F) {
	other := aliveOf("node2", []byte{10, 0, 0, 2})
	f.Add(other)
	f.Add(aliveOf("node1", []byte{10, 0, 0, 9}))
	f.Add(aliveOf("node3", []byte{10, 0, 3}))
	f.Add(aliveOf("", []byte{}))
	f.Add(msgpack(3, "Incarnation", 0, "Node", "node1", "From", "node2"))
	f.Add(msgpack(5, "Incarnation", 99, "Node", "node1", "From", "node1"))
	f.Add(msgpack(0, "SeqNo", 1, "Node", "node1"))
	f.Add(msgpack(1, "SeqNo", 1, "Target", []byte{10, 0, 0, 2}, "Port", 1, "Node", "node2"))
	f.Add(msgpack(2, "SeqNo", 1))
	f.Add(append([]byte{12}, binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(other))...))
	f.Add(compoundOf(other, other))
	for _, h := range harms {
		if h.packet {
			f.Add(h.text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 64<<10 {
			t.Skip("a packet isn't as long")
		}
		fuzz(t, func(g *Gossip, transport loopless) {
			transport.sendPacket(text)
			transport.sendPacket(labelled(t, text))
			members(t, g)
			transport.sendPacket(packetOf(t, 1, text))
			members(t, g)
			// This must get through, or nothing does.
			if bytes.Equal(text, other) && !has(g.Members(), "node2") {
				t.Errorf("node2 isn't among the members: %v", g.Members())
			}
		})
	})
}

// FuzzStream is FuzzPacket with streams: one that somebody opens, and the answer to
// one that this member opens.
func FuzzStream(f *testing.F) {
	exchange := exchangeOf("node4", []byte{10, 0, 0, 4}, vsn)
	f.Add(exchange)
	f.Add(exchangeOf("node1", []byte{10, 0, 0, 4}, vsn))
	f.Add(msgpack(0, "SeqNo", 1, "Node", "node1"))
	f.Add(msgpack(2, "SeqNo", 1))
	f.Add(msgpack(13, "Error", "no"))
	for _, h := range harms {
		if !h.packet {
			f.Add(h.text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 64<<10 {
			t.Skip("it takes long")
		}
		fuzz(t, func(g *Gossip, transport loopless) {
			transport.sendStream(text)
			transport.sendStream(labelled(t, text))
			members(t, g)
			transport.sendStream(labelled(t, messageOf(t, 1, text)))
			members(t, g)
			if bytes.Equal(text, exchange) && !has(g.Members(), "node4") {
				t.Errorf("node4 isn't among the members: %v", g.Members())
			}
			near, far := net.Pipe()
			transport.dialed <- far
			go func() {
				io.CopyN(io.Discard, near, 100) // the label, and some of what follows
				go io.Copy(io.Discard, near)
				talk(near, messageOf(t, 1, text))
			}()
			g.list.Join([]string{"node9/10.0.0.9"})
			members(t, g)
		})
	})
}

// fuzz starts a member, has something done to it, and looks at it a while later.
func fuzz(t *testing.T, do func(*Gossip, loopless)) {
	synctest.Test(t, func(t *testing.T) {
		transport := newLoopless()
		g := startLone(t, transport, nil)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		do(g, transport)
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > 8<<20 {
			t.Errorf("it took %d bytes of memory", took)
		}
		time.Sleep(10 * time.Second)
		members(t, g)
	})
}

// members checks who is here.
func members(t *testing.T, g *Gossip) {
	t.Helper()
	all := g.Members()
	for _, m := range all {
		if addr, err := netip.ParseAddrPort(m.Addr); err != nil || m.NodeID == "" {
			t.Errorf("member %q is at %v %q: %v", m.NodeID, addr, m.Addr, err)
		}
	}
	self := cluster.Member{NodeID: "node1", Addr: "10.0.0.1:7946"}
	if !slices.ContainsFunc(all, func(m cluster.Member) bool { return m.NodeID == self.NodeID && m.Addr == self.Addr }) {
		t.Errorf("this node isn't among the members: %v", all)
	}
}
