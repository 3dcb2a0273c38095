package gossip

import (
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"skep/cluster"
)

// network carries packets and streams between members in memory, so that minutes
// pass in no time under synctest.
type network struct {
	sent  atomic.Int64 // packets
	mu    sync.Mutex   // guards the fields below
	wires map[string]*wire
	cut   func(from, to string) bool // by IP
	drop  func(from, to string) bool // as cut, for packets only
}

// wire is one member's place in the network.
type wire struct {
	net     *network
	ip      string
	packets chan *memberlist.Packet
	streams chan net.Conn
}

var _ memberlist.Transport = (*wire)(nil)

func (n *network) plug(ip string) *wire {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.wires == nil {
		n.wires = make(map[string]*wire)
	}
	n.wires[ip] = &wire{net: n, ip: ip, packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn, 64)}
	return n.wires[ip]
}

func (n *network) setCut(cut func(from, to string) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = cut
}

// reach finds who is at an address; nil when nobody is, or the way there is cut.
func (w *wire) reach(address string) *wire {
	ip, _, _ := net.SplitHostPort(address)
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	if w.net.cut != nil && w.net.cut(w.ip, ip) || w.net.wires[w.ip] != w {
		return nil
	}
	return w.net.wires[ip]
}

func (w *wire) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.ParseIP(w.ip).To4(), testPort, nil
}

func (w *wire) WriteTo(b []byte, address string) (time.Time, error) {
	w.net.sent.Add(1)
	to, _, _ := net.SplitHostPort(address)
	w.net.mu.Lock()
	dropped := w.net.drop != nil && w.net.drop(w.ip, to)
	w.net.mu.Unlock()
	if dropped {
		return time.Now(), nil
	}
	if to := w.reach(address); to != nil {
		from := &net.UDPAddr{IP: net.ParseIP(w.ip), Port: testPort}
		select {
		case to.packets <- &memberlist.Packet{Buf: slices.Clone(b), From: from, Timestamp: time.Now()}:
		default: // lost, as packets may be
		}
	}
	return time.Now(), nil
}

func (w *wire) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	to := w.reach(address)
	if to == nil {
		time.Sleep(timeout)
		return nil, errors.New("no route")
	}
	here, there := net.Pipe()
	select {
	case to.streams <- there:
		return here, nil
	default:
		return nil, errors.New("refused")
	}
}

func (w *wire) PacketCh() <-chan *memberlist.Packet { return w.packets }
func (w *wire) StreamCh() <-chan net.Conn           { return w.streams }

func (w *wire) Shutdown() error {
	w.net.mu.Lock()
	defer w.net.mu.Unlock()
	delete(w.net.wires, w.ip)
	return nil
}

// swarmOn starts n members, node1 on 10.0.0.1 and up, that all have the first three
// as seeds, as nodes have the managers.
func swarmOn(t *testing.T, net *network, n int) []*Gossip {
	t.Helper()
	// Runs after the members are closed: what memberlist still waits for must end
	// before the bubble does.
	t.Cleanup(func() { time.Sleep(2 * streamTimeout) })
	var seeds []cluster.Member
	for i := range min(3, n) {
		seeds = append(seeds, cluster.Member{NodeID: fmt.Sprintf("node%d", i+1), Addr: fmt.Sprintf("10.0.0.%d", i+1)})
	}
	all := make([]*Gossip, n)
	for i := range all {
		all[i] = start(t, Config{NodeID: fmt.Sprintf("node%d", i+1), Transport: net.plug(fmt.Sprintf("10.0.0.%d", i+1))})
		if err := all[i].Join(t.Context(), seeds); err != nil && i > 0 {
			t.Fatal(err)
		}
	}
	for _, g := range all {
		await(t, time.Minute, g, func(members []cluster.Member) bool { return len(members) == n })
	}
	return all
}

// noticedWithin is how long memberlist may take, by its rules, until a member lists none
// of any number that n members have lost at once. It may come to each only at the end of
// its next round of probes, the more slowly the less it hears (Lifeguard's awareness),
// and when nobody else confirms its suspicion, that takes its longest time.
func noticedWithin(g *Gossip, n int) time.Duration {
	c := g.memberlistConfig(nil)
	probes := time.Duration(2*(n-1)*c.AwarenessMaxMultiplier) * c.ProbeInterval
	scale := max(1, math.Log10(float64(n)))
	suspicion := time.Duration(float64(c.SuspicionMaxTimeoutMult*c.SuspicionMult) * scale * float64(c.ProbeInterval))
	return probes + suspicion
}

// TestPartition_HealsHowLongSoever: memberlist alone forgets the other side after
// half a minute and would stay apart for ever.
func TestPartition_HealsHowLongSoever(t *testing.T) {
	for _, length := range []time.Duration{5 * time.Second, 2 * time.Minute} {
		t.Run(length.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				net := &network{}
				all := swarmOn(t, net, 7)
				near := func(ip string) bool { return ip <= "10.0.0.4" }
				net.setCut(func(from, to string) bool { return near(from) != near(to) })
				for i, g := range all {
					size := 4
					if i >= 4 {
						size = 3
					}
					await(t, noticedWithin(g, len(all)), g, func(m []cluster.Member) bool { return len(m) == size })
				}
				time.Sleep(length)
				net.setCut(nil)
				for _, g := range all {
					await(t, 30*time.Second, g, func(m []cluster.Member) bool { return len(m) == 7 })
				}
			})
		})
	}
}

// TestCrash_ManyTimes is TestCrash_NoticedByAll in fake time: how long it takes by
// the rules alone, on a network that loses nothing.
func TestCrash_ManyTimes(t *testing.T) {
	for _, size := range []int{3, 5, 15} {
		var took []time.Duration
		for range 90 / size {
			synctest.Test(t, func(t *testing.T) {
				all := swarmOn(t, &network{}, size)
				time.Sleep(time.Second)
				began := time.Now()
				last := all[size-1]
				if err := last.Close(); err != nil {
					t.Fatal(err)
				}
				for _, g := range all[:size-1] {
					await(t, time.Minute, g, func(m []cluster.Member) bool { return !has(m, last.config.NodeID) })
				}
				took = append(took, time.Since(began))
			})
		}
		slices.Sort(took)
		var total time.Duration
		for _, d := range took {
			total += d
		}
		mean, worst := total/time.Duration(len(took)), took[len(took)-1]
		t.Logf("%d members: gone on all others after %v mean, %v median, %v worst of %d", size, mean, took[len(took)/2], worst, len(took))
		if worst > 2500*time.Millisecond {
			t.Errorf("%d members: gone after %v", size, worst)
		}
	}
}
