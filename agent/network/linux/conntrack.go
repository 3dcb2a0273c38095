package linux

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"skep/agent/network"
)

// flows are connections of one family that the kernel is to forget, or what they sent next would go on being
// translated to who isn't there. Those by UDP and SCTP to a service go as soon as their backend isn't in its list, and
// those by TCP that it hasn't answered yet; other ones outlive that, and go with the backend's address.
type flows struct {
	vips  map[netip.Addr][]netip.Addr
	ports map[port16][]netip.Addr
	gone  map[netip.Addr]bool
	// dead are those of them that are refused, also by the address itself.
	dead map[netip.Addr]bool
	// ended are those by TCP whose client may wait for something: who they were to, and the client.
	ended [][2]netip.AddrPort
}

// port16 is a published port.
type port16 struct {
	protocol byte
	number   uint16
}

// MatchConntrackFlow tells whether it is one of them.
func (f *flows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	to, backend := netipOf(flow.Forward.DstIP), netipOf(flow.Reverse.SrcIP)
	if f.gone[backend] && to != backend || f.dead[backend] {
		if t, state := flow.Forward, stateOf(flow); state >= established && state <= closeWait {
			f.ended = append(f.ended, [2]netip.AddrPort{netip.AddrPortFrom(to, t.DstPort), netip.AddrPortFrom(netipOf(t.SrcIP), t.SrcPort)})
		}
		return true
	}
	if to == backend {
		return false // It isn't translated.
	}
	if flow.Forward.Protocol == unix.IPPROTO_TCP && stateOf(flow) != synSent {
		return false
	}
	backends, is := f.vips[to]
	if !is {
		backends, is = f.ports[port16{flow.Forward.Protocol, flow.Forward.DstPort}]
	}
	for _, b := range backends {
		if b == backend {
			return false
		}
	}
	return is
}

// The kernel's numbers for what a connection by TCP has come to.
const (
	synSent     = 1
	established = 3
	closeWait   = 5
)

// stateOf is one of them; 0 if it isn't known.
func stateOf(flow *netlink.ConntrackFlow) uint8 {
	if tcp, is := flow.ProtoInfo.(*netlink.ProtoInfoTCP); is {
		return tcp.State
	}
	return 0
}

// loses tells whether a list of backends lacks one that there was before, or may: a digest doesn't say who was in it.
func loses(was, now string) bool {
	if _, err := parseAddrs(was); err != nil {
		return true
	}
	left := strings.Fields(now)
	return slices.ContainsFunc(strings.Fields(was), func(b string) bool { return !slices.Contains(left, b) })
}

// flowsOf are those that steps are the end of; nil if there can be none: to look for them is to list all connections there are.
func flowsOf(steps []network.Step, v6 bool) *flows {
	f := &flows{vips: map[netip.Addr][]netip.Addr{}, ports: map[port16][]netip.Addr{}, gone: map[netip.Addr]bool{}, dead: map[netip.Addr]bool{}}
	for _, step := range steps {
		gone := step.Do == network.Remove
		switch o := step.Object.(type) {
		case network.Chain:
			if was, is := step.Was.(network.Chain); o.IPv6 != v6 || is && !loses(was.Backends, o.Backends) {
				continue
			}
			var backends []netip.Addr
			if !gone {
				backends, _ = parseAddrs(o.Backends)
			}
			switch words := strings.SplitN(o.Name, "-", 3); {
			case len(words) == 3 && words[0] == "v":
				if vip, err := netip.ParseAddr(strings.ReplaceAll(words[2], "_", ":")); err == nil {
					f.vips[vip] = backends
				}
			case len(words) == 3 && words[0] == "p":
				number, err := strconv.ParseUint(words[2], 10, 16) // Those of one address only are left alone.
				if err == nil {
					f.ports[port16{protocols[words[1]], uint16(number)}] = backends
				}
			}
		case network.Neighbour: // a task's on another node
			if gone && o.Addr.Is6() == v6 {
				f.gone[o.Addr] = true
			}
		case network.Element:
			switch addr, err := netip.ParseAddr(o.A); {
			case err != nil || addr.Is6() != v6:
			case o.Set == network.SetHair && gone: // a task's on this node
				f.gone[addr] = true
			case o.Set == network.SetGone && !gone:
				f.dead[addr] = true
			}
		}
	}
	if len(f.vips)+len(f.ports)+len(f.gone)+len(f.dead) == 0 {
		return nil
	}
	return f
}

// forget has the kernel forget flows after the steps that they ended with. Nobody would try again: flows that stay
// end by themselves when they have been silent for long.
func (p *Plane) forget(steps []network.Step) {
	for _, v6 := range []bool{false, true} {
		family := netlink.InetFamily(unix.AF_INET)
		if v6 {
			family = unix.AF_INET6
		}
		if f := flowsOf(steps, v6); f != nil {
			if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, f); err != nil {
				p.log.Warn("connections to tasks that are gone aren't forgotten", "err", err)
			}
			if err := hurry(f.ended, family); err != nil {
				p.log.Warn("clients whose connections are forgotten aren't told", "err", err)
			}
		}
	}
}

// hurry has the clients of connections that were forgotten send something, by which they learn that these are no more. One
// that waits for an answer would send nothing by itself, and one whose packets were lost lets seconds pass between two.
// A segment that can't be the connection's next has any client say what it expects instead.
func hurry(ended [][2]netip.AddrPort, family netlink.InetFamily) error {
	if len(ended) == 0 {
		return nil
	}
	fd, err := unix.Socket(int(family), unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var errs []error
	for _, ends := range ended {
		var to unix.Sockaddr = &unix.SockaddrInet6{Addr: ends[1].Addr().As16()}
		if ends[1].Addr().Is4() {
			to = &unix.SockaddrInet4{Addr: ends[1].Addr().As4()}
		}
		errs = append(errs, unix.Sendto(fd, segment(ends[0], ends[1]), 0, to))
	}
	return errors.Join(errs...)
}

// segment is a packet of TCP without data, an acknowledgement of nothing.
func segment(from, to netip.AddrPort) []byte {
	const tcpSize, ack, hops = 20, 0x10, 64
	tcp := make([]byte, tcpSize)
	binary.BigEndian.PutUint16(tcp, from.Port())
	binary.BigEndian.PutUint16(tcp[2:], to.Port())
	tcp[12], tcp[13] = tcpSize/4<<4, ack
	addrs := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	sum := uint32(unix.IPPROTO_TCP + tcpSize)
	for covered := append(addrs[:len(addrs):len(addrs)], tcp...); len(covered) > 0; covered = covered[2:] {
		sum += uint32(binary.BigEndian.Uint16(covered))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(tcp[16:], ^uint16(sum))
	// The kernel completes the header of IPv4.
	header := []byte{0: 4<<4 | 5, 8: hops, 9: unix.IPPROTO_TCP, 11: 0}
	if to.Addr().Is6() {
		header = []byte{0: 6 << 4, 5: tcpSize, 6: unix.IPPROTO_TCP, 7: hops}
	}
	return slices.Concat(header, addrs, tcp)
}
