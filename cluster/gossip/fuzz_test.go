package gossip

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
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
}

func (loopless) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.IPv4(10, 0, 0, 1), DefaultPort, nil
}
func (loopless) WriteTo([]byte, string) (time.Time, error) { return time.Now(), nil }
func (loopless) DialTimeout(string, time.Duration) (net.Conn, error) {
	return nil, errors.New("connection refused")
}
func (l loopless) PacketCh() <-chan *memberlist.Packet { return l.packets }
func (l loopless) StreamCh() <-chan net.Conn           { return l.streams }
func (loopless) Shutdown() error                       { return nil }

// encrypt does what memberlist does with its key, so that a text gets through to what
// understands it.
func encrypt(t testing.TB, text []byte, about []byte) []byte {
	block, err := aes.NewCipher(key(1))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, gcm.NonceSize())
	return gcm.Seal(append([]byte{1}, nonce...), nonce, text, about)
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

// FuzzPacket has somebody who has the cluster's key, any node that is, send a packet
// and a stream of any content. Nobody but memberlist's own rules says who is here: a
// node can't be told that it isn't, or is elsewhere, and members have addresses.
func FuzzPacket(f *testing.F) {
	vsn := []byte{1, 5, 2, 0, 0, 0}
	alive := func(name string, ip []byte) []byte {
		return msgpack(4, "Incarnation", 9, "Node", name, "Addr", ip, "Port", 7946, "Vsn", vsn)
	}
	other := alive("node2", []byte{10, 0, 0, 2})
	f.Add(other)
	f.Add(alive("node1", []byte{10, 0, 0, 9}))
	f.Add(alive("node3", []byte{10, 0, 3}))
	f.Add(alive("", []byte{}))
	f.Add(msgpack(3, "Incarnation", 0, "Node", "node1", "From", "node2"))
	f.Add(msgpack(5, "Incarnation", 99, "Node", "node1", "From", "node1"))
	f.Add(msgpack(0, "SeqNo", 1, "Node", "node1"))
	f.Add(msgpack(1, "SeqNo", 1, "Target", []byte{10, 0, 0, 2}, "Port", 1, "Node", "node2"))
	compound := []byte{7, 2}
	compound = binary.BigEndian.AppendUint16(compound, uint16(len(other)))
	compound = binary.BigEndian.AppendUint16(compound, uint16(len(other)))
	f.Add(slices.Concat(compound, other, msgpack(3, "Incarnation", 9, "Node", "node2", "From", "node3")))
	exchange := slices.Concat(msgpack(6, "Nodes", 1, "UserStateLen", 0),
		msgpack(4, "Name", "node4", "Addr", []byte{10, 0, 0, 4}, "Port", 7946, "Incarnation", 1, "State", 0, "Vsn", vsn)[1:])
	f.Add(exchange)
	// These must get through, or nothing does.
	through := map[string]string{string(other): "node2", string(exchange): "node4"}
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 32<<10 || claims(text) {
			t.Skip("a packet isn't as long, or the decoder is known not to look")
		}
		synctest.Test(t, func(t *testing.T) {
			transport := loopless{make(chan *memberlist.Packet), make(chan net.Conn)}
			g, err := Start(Config{NodeID: "node1", ClusterID: "c1", Keys: [][]byte{key(1)}, Transport: transport})
			if err != nil {
				t.Fatal(err)
			}
			packet, err := memberlist.AddLabelHeaderToPacket(encrypt(t, text, []byte("c1")), "c1")
			if err != nil {
				t.Fatal(err)
			}
			transport.packets <- &memberlist.Packet{Buf: packet, From: &net.UDPAddr{IP: net.IPv4(10, 0, 0, 2), Port: 7946}, Timestamp: time.Now()}
			synctest.Wait()
			members(t, g)
			if len(text) == 0 || (text[0] == 6 || text[0] == 9) && !bytes.Equal(text, exchange) {
				// memberlist 0.6.0 panics at a stream without content, and at an exchange,
				// compressed or not, of a node whose Vsn is shorter than six bytes. We can't keep
				// it from that, so none but the good one is tried.
				g.Close()
				return
			}
			near, far := net.Pipe()
			transport.streams <- far
			head := binary.BigEndian.AppendUint32([]byte{10}, uint32(29+len(text)))
			stream, err := memberlist.AddLabelHeaderToPacket(append(slices.Clone(head), encrypt(t, text, append(head, "c1"...))...), "c1")
			if err != nil {
				t.Fatal(err)
			}
			near.SetDeadline(time.Now().Add(time.Second))
			near.Write(stream)
			answer := make([]byte, 64<<10)
			for _, err = near.Read(answer); err == nil; _, err = near.Read(answer) {
			}
			near.Close()
			synctest.Wait()
			members(t, g)
			if name := through[string(text)]; name != "" && !slices.ContainsFunc(g.Members(), func(m cluster.Member) bool { return m.NodeID == name }) {
				t.Errorf("%s isn't among the members: %v", name, g.Members())
			}
			time.Sleep(10 * time.Second)
			members(t, g)
			if err := g.Close(); err != nil {
				t.Error(err)
			}
		})
	})
}

// claims tells whether a text has what may be an extension of MessagePack that says it
// is longer than a mebibyte: go-msgpack 2.1.5, which memberlist reads with, takes up to
// 4 GiB of memory for one before it looks whether so much is there.
func claims(text []byte) bool {
	for i := range text {
		if text[i] == 0xc9 && i+5 <= len(text) && binary.BigEndian.Uint32(text[i+1:]) > 1<<20 {
			return true
		}
	}
	return false
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
