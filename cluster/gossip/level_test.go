package gossip

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"log"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"skep/cluster"
	"skep/cluster/gossip/guard"
)

// What a later level adds is left out, and what came with it is taken.
func TestCheck_LeavesOutWhatALaterLevelAdds(t *testing.T) {
	ip := []byte{10, 0, 0, 2}
	alive, accuse := aliveOf("node2", ip), msgpack(3, "Incarnation", 1, "Node", "node2", "From", "node3")
	more := msgpack(4, "Incarnation", 9, "Zone", "a", "Node", "node2", "Addr", ip, "Port", 7946, "Vsn", vsn, "Load", 7)
	later := []byte{99, 1, 2, 3}
	checked := binary.BigEndian.AppendUint32([]byte{12}, crc32.ChecksumIEEE(more))
	for name, c := range map[string]struct{ sent, known []byte }{
		"as it is":             {alive, alive},
		"fields":               {more, alive},
		"fields, checked":      {append(checked, more...), alive},
		"type":                 {later, nil},
		"type among others":    {compoundOf(accuse, later, more), compoundOf(accuse, alive)},
		"nothing but types":    {compoundOf(later, later), nil},
		"understands more":     {msgpack(4, "Node", "node2", "Addr", ip, "Vsn", []byte{1, 6, 2, 0, 3, 0}), msgpack(4, "Node", "node2", "Addr", ip, "Vsn", []byte{1, 6, 2, 0, 3, 0})},
		"a request and a type": {compoundOf(msgpack(0, "SeqNo", 1, "Node", "node1"), later), compoundOf(msgpack(0, "SeqNo", 1, "Node", "node1"))},
	} {
		if got, err := guard.CheckPacket(c.sent, "self"); err != nil || !bytes.Equal(got, c.known) {
			t.Errorf("packet with %s: %x, want %x, %v", name, got, c.known, err)
		}
	}
	head := msgpack(6, "Nodes", 1, "UserStateLen", 0)
	state := func(fields ...any) []byte { return msgpack(0, fields...)[1:] }
	sent := slices.Concat(msgpack(6, "Nodes", 1, "Level", 2, "UserStateLen", 0), state("Name", "n", "Zone", "a", "Addr", ip, "Vsn", vsn))
	known := slices.Concat(head, state("Name", "n", "Addr", ip, "Vsn", vsn))
	if got, err := guard.CheckStream(sent, "self"); err != nil || !bytes.Equal(got, known) {
		t.Errorf("stream: %x, want %x, %v", got, known, err)
	}
}

// A later level's packets do no harm: what can be understood is, and a protocol that isn't
// known is named.
func TestGuard_HearsALaterLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, out := newLoopless(), new(lines)
		g := startLone(t, transport, slog.New(slog.NewTextHandler(out, nil)))
		transport.sendPacket(packetOf(t, 1, []byte{99, 1}))
		if strings.Contains(out.String(), "drop packet") {
			t.Errorf("a type of a later level is complained about: %s", out)
		}
		transport.sendPacket(packetOf(t, 1, compoundOf(msgpack(4, "Incarnation", 9, "Node", "node2", "Zone", "a", "Addr", []byte{10, 0, 0, 2}, "Port", 7946, "Vsn", vsn), []byte{99, 1})))
		if m := g.Members(); !has(m, "node2") {
			t.Errorf("members: %v", m)
		}
		transport.sendPacket(packetOf(t, 2, aliveOf("node3", []byte{10, 0, 0, 3})))
		transport.sendStream(labelled(t, messageOf(t, 2, exchangeOf("node4", []byte{10, 0, 0, 4}, vsn))))
		if m := g.Members(); len(m) != 2 || strings.Count(out.String(), "it is of gossip protocol 2, and this version of skep knows 1") != 2 {
			t.Errorf("members: %v; log: %s", m, out)
		}
	})
}

var capture = flag.Bool("capture", false, "write down what this source's members send, as that of its level")

// TestGuard_TakesWhatEachLevelSends takes what members of each level up to this one
// sent: testdata/level-N has a packet or the text of a stream of each form. It is
// written by -capture before the first release of a level, and never again.
func TestGuard_TakesWhatEachLevelSends(t *testing.T) {
	if *capture {
		write(t, filepath.Join("testdata", fmt.Sprintf("level-%d", cluster.Level)), sample(t))
	}
	for level := cluster.MinLevel; level <= cluster.Level; level++ {
		path := filepath.Join("testdata", fmt.Sprintf("level-%d", level))
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatalf("what members of level %d send isn't written down: %v", level, err)
		}
		count := map[string]int{}
		for line := range strings.Lines(string(file)) {
			kind, text, _ := strings.Cut(strings.TrimSpace(line), " ")
			sent, err := hex.DecodeString(text)
			if err != nil {
				t.Fatal(err)
			}
			check, want := guard.CheckStream, sent
			if kind == "packet" {
				check = guard.CheckPacket
				if sent[0] == guard.CRCMsg {
					want = sent[5:]
				}
			}
			count[kind]++
			if got, err := check(sent, "self"); err != nil || !bytes.Equal(got, want) {
				t.Errorf("level %d: %s %x: understood as %x, %v", level, kind, sent, got, err)
			}
		}
		if count["packet"] < 8 || count["stream"] < 1 {
			t.Errorf("level %d: only %v", level, count)
		}
	}
}

func write(t *testing.T, path string, texts map[string]string) {
	var out strings.Builder
	for _, form := range slices.Sorted(maps.Keys(texts)) {
		out.WriteString(texts[form] + "\n")
	}
	if err := os.WriteFile(path, []byte(out.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// tap is a transport that notes what its member sends, one text of each form: by types
// of messages and names of fields.
type tap struct {
	memberlist.Transport
	ring  *guard.Ring
	mu    *sync.Mutex // guards texts, which all members share
	texts map[string]string
}

// fieldNames are the fields of all messages.
var fieldNames = []string{
	"SeqNo", "Node", "SourceAddr", "SourcePort", "SourceNode", "Target", "Port", "Nack", "Payload", "Incarnation", "From", "Addr", "Meta", "Vsn",
	"Nodes", "UserStateLen", "Join", "Error", "Name", "State",
}

func (p *tap) note(kind string, text []byte) {
	form := fmt.Sprint(kind, " ", text[0])
	for _, field := range fieldNames {
		if bytes.Contains(text, []byte(field)) && !strings.Contains(form, field) {
			form += " " + field
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.texts[form] = kind + " " + hex.EncodeToString(text)
}

func (p *tap) WriteTo(packet []byte, addr string) (time.Time, error) {
	if text, err := p.ring.Open(packet[2+len("cluster1"):], []byte("cluster1")); err == nil {
		p.note("packet", text)
	}
	return p.Transport.WriteTo(packet, addr)
}

func (p *tap) DialTimeout(addr string, limit time.Duration) (net.Conn, error) {
	conn, err := p.Transport.DialTimeout(addr, limit)
	if err != nil {
		return nil, err
	}
	return tapped{conn, p}, nil
}

type tapped struct {
	net.Conn
	tap *tap
}

func (c tapped) Write(sent []byte) (int, error) {
	message := bytes.TrimPrefix(sent, append([]byte{guard.LabelMsg, byte(len("cluster1"))}, "cluster1"...))
	if text, err := c.tap.ring.Open(message[5:], append(slices.Clone(message[:5]), "cluster1"...)); err == nil {
		c.tap.note("stream", text)
	}
	return c.Conn.Write(sent)
}

// sample is what members send when they meet, miss each other and part.
func sample(t *testing.T) map[string]string {
	texts, mu := map[string]string{}, new(sync.Mutex)
	var members []*Gossip
	for i := range 4 {
		ip := addr(49, i+1)
		transport, err := memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{ip}, BindPort: testPort, Logger: log.New(io.Discard, "", 0)})
		if err != nil {
			t.Fatal(err)
		}
		var keys guard.Ring
		if err := keys.Set([][]byte{key(1)}); err != nil {
			t.Fatal(err)
		}
		p := &tap{Transport: transport, ring: &keys, mu: mu, texts: texts}
		g := start(t, Config{NodeID: fmt.Sprint("node", i+1), BindAddr: ip, Transport: p})
		if i > 0 {
			if err := g.Join(t.Context(), []cluster.Member{{NodeID: "node1", Addr: addr(49, 1)}}); err != nil {
				t.Fatal(err)
			}
		}
		members = append(members, g)
	}
	time.Sleep(7 * time.Second)
	if err := members[3].Close(); err != nil { // The others probe it, in vain.
		t.Fatal(err)
	}
	time.Sleep(4 * time.Second)
	if err := members[2].Leave(time.Second); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	mu.Lock()
	defer mu.Unlock()
	return maps.Clone(texts)
}
