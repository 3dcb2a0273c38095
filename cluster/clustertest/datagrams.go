package clustertest

import (
	"context"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"skep/cluster"
)

// datagrams carries the packets and streams of real gossip: see Options.RealGossip. A packet that can't
// get through is lost.
type datagrams struct {
	machine machineNetwork
	air     *air
	packets chan *memberlist.Packet
	streams chan net.Conn
	listen  net.Listener
	once    sync.Once
	done    chan struct{} // closed by Shutdown
}

var _ memberlist.Transport = (*datagrams)(nil)

// plug gives a machine's gossip its place in the network, until Shutdown.
func (a *air) plug(ip string) (*datagrams, error) {
	d := &datagrams{machine: machineNetwork{a.wire, ip}, air: a, packets: make(chan *memberlist.Packet, 1024), streams: make(chan net.Conn), done: make(chan struct{})}
	var err error
	if d.listen, err = d.machine.Listen(net.JoinHostPort(ip, strconv.Itoa(cluster.GossipPort))); err != nil {
		return nil, err
	}
	go func() {
		for {
			conn, err := d.listen.Accept()
			if err != nil {
				return
			}
			select {
			case d.streams <- conn:
			case <-d.done:
				conn.Close()
			}
		}
	}()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.plugs[ip] = d
	return d, nil
}

func (d *datagrams) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return net.ParseIP(d.machine.ip).To4(), cluster.GossipPort, nil
}

func (d *datagrams) WriteTo(b []byte, address string) (time.Time, error) {
	from, now := d.machine.ip, time.Now()
	to, _, err := net.SplitHostPort(address)
	if err != nil {
		return now, err
	}
	d.air.mu.Lock()
	other := d.air.plugs[to]
	d.air.mu.Unlock()
	w := d.machine.wire
	w.mu.Lock()
	lost := w.down[from] || w.down[to] || w.deafLocked(from, to) || w.lostLocked(from, to)
	w.mu.Unlock()
	if other != nil && !lost {
		select {
		case other.packets <- &memberlist.Packet{Buf: slices.Clone(b), From: &net.UDPAddr{IP: net.ParseIP(from), Port: cluster.GossipPort}, Timestamp: now}:
		default: // lost, as packets may be
		}
	}
	return now, nil
}

func (d *datagrams) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d.machine.Dial(ctx, address)
}

func (d *datagrams) PacketCh() <-chan *memberlist.Packet { return d.packets }
func (d *datagrams) StreamCh() <-chan net.Conn           { return d.streams }

func (d *datagrams) Shutdown() error {
	d.once.Do(func() {
		d.air.mu.Lock()
		if d.air.plugs[d.machine.ip] == d {
			delete(d.air.plugs, d.machine.ip)
		}
		d.air.mu.Unlock()
		close(d.done)
		_ = d.listen.Close()
	})
	return nil
}
