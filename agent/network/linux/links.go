package linux

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"skep/agent/network"
)

const (
	// protocol marks the routes and rules that are skep's, as other programs have numbers of
	// their own in /etc/iproute2/rt_protos.
	protocol = 91
	// wrong is the MTU that a link is given in a dump when something else about it isn't as
	// skep makes it: then it is made so.
	wrong = -1
	// aliasPrefix begins the aliases of skep's links.
	aliasPrefix = "skep/"
)

// apply carries out one step that isn't nftables'.
func (p *Plane) apply(ctx context.Context, step network.Step) error {
	gone := step.Do == network.Remove
	switch o := step.Object.(type) {
	case network.Bridge:
		if gone {
			return removeLink(o.Name)
		}
		return putBridge(o)
	case network.Wire:
		if gone {
			return p.wires.remove(o.Name)
		}
		return p.wires.put(ctx, o)
	case network.WirePeer:
		return putPeer(o, gone)
	case network.Tunnel:
		if gone {
			return removeLink(o.Name)
		}
		return putTunnel(o)
	case network.Address:
		link, err := netlink.LinkByName(o.Link)
		if err != nil {
			return err
		}
		addr := &netlink.Addr{IPNet: ipNet(o.Prefix)}
		if gone {
			return netlink.AddrDel(link, addr)
		}
		if o.Prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD // Each node has it: that is no conflict.
		}
		return netlink.AddrReplace(link, addr)
	case network.Sysctl:
		value := o.Value
		if gone {
			value = "0"
		}
		return os.WriteFile(sysctlPath(o.Name), []byte(value), 0o644)
	case network.Hairpin:
		link, err := netlink.LinkByName(o.Link)
		if err != nil && !isGone(err) {
			return err
		}
		if err != nil || link.Attrs().MasterIndex == 0 {
			return nil // The container has ended, or left the network.
		}
		return netlink.LinkSetHairpin(link, o.On && !gone)
	case network.BridgeEntry:
		return neighbour(gone, o.Link, netlink.Neigh{
			Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER, State: netlink.NUD_NOARP, HardwareAddr: o.MAC[:],
		})
	case network.Forward:
		return neighbour(gone, o.Link, netlink.Neigh{
			Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT, HardwareAddr: o.MAC[:], IP: o.Node.AsSlice(),
		})
	case network.Neighbour:
		return neighbour(gone, o.Link, netlink.Neigh{
			Family: familyOf(o.Addr), State: netlink.NUD_PERMANENT, HardwareAddr: o.MAC[:], IP: o.Addr.AsSlice(),
		})
	case network.Route:
		return route(gone, o)
	case network.Pass:
		return p.putPass(ctx, o, gone)
	case network.Rule:
		if gone {
			return netlink.RuleDel(netlinkRule(o))
		}
		return netlink.RuleAdd(netlinkRule(o))
	}
	return fmt.Errorf("no such kind of object: %T", step.Object)
}

func familyOf(a netip.Addr) int {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func sysctlPath(name string) string {
	return hostRoot + "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
}

// setIfThere sets what a kernel without IPv6 doesn't have.
func setIfThere(name, value string) error {
	if err := os.WriteFile(sysctlPath(name), []byte(value), 0o644); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func removeLink(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkDel(link)
}

// own is the link of a name that is to have the alias; nil if there is none. One of another
// cluster, or of nobody's, is an error; one without an alias is what a daemon that was killed left. One
// of another network of the cluster, whose number this one has got, is removed: its containers mustn't
// find themselves in this one.
func own(name, alias, kind string) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	was := link.Attrs().Alias
	if cluster := alias[:strings.LastIndex(alias, "/")+1]; was != alias && strings.HasPrefix(was, cluster) && link.Type() == kind {
		return nil, netlink.LinkDel(link)
	}
	if was != "" && was != alias || link.Type() != kind {
		return nil, fmt.Errorf("there is a %s of this name that isn't the network's: its alias is %q: remove it with `ip link delete %s`", link.Type(), was, name)
	}
	return link, nil
}

// putBridge makes the bridge, or makes it as it should be.
func putBridge(b network.Bridge) error {
	link, err := own(b.Name, b.Alias, "bridge")
	if err != nil {
		return err
	}
	if link == nil {
		off := false
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = b.Name, b.MTU, b.MAC[:]
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}); err != nil {
			return err
		}
		if link, err = netlink.LinkByName(b.Name); err != nil {
			return err
		}
	}
	for _, set := range []func() error{
		func() error { return netlink.LinkSetAlias(link, b.Alias) },
		// Before it is sure of its own address, for a second, IPv6 asks for no neighbour. Nobody else
		// has the address: it follows from the MAC.
		func() error { return setIfThere("net.ipv6.conf."+b.Name+".accept_dad", "0") },
		func() error { return netlink.LinkSetHardwareAddr(link, b.MAC[:]) },
		func() error { return netlink.LinkSetMTU(link, b.MTU) },
		// Packets that are bridged pass by netfilter, or virtual IPs would be untranslated.
		func() error {
			return setBridge(link, map[int]byte{nl.IFLA_BR_NF_CALL_IPTABLES: 1, nl.IFLA_BR_NF_CALL_IP6TABLES: 1, nl.IFLA_BR_MCAST_SNOOPING: 0})
		},
		func() error { return netlink.LinkSetUp(link) },
	} {
		if err := set(); err != nil {
			return err
		}
	}
	return nil
}

// putTunnel makes the VXLAN port, or makes it as it should be.
func putTunnel(t network.Tunnel) error {
	link, err := own(t.Name, t.Alias, "vxlan")
	if err != nil {
		return err
	}
	if is, vxlan := link.(*netlink.Vxlan); vxlan && (is.VxlanId != int(t.VNI) || is.Port != int(t.Port) || netipOf(is.SrcAddr).Is6() != t.Local.Is6()) {
		// The kernel doesn't change these. What lies on it is made again as soon as that is seen.
		if err := netlink.LinkDel(link); err != nil {
			return err
		}
		link = nil
	}
	bridge, err := netlink.LinkByName(t.Bridge)
	if err != nil {
		return fmt.Errorf("its bridge %s: %w", t.Bridge, err)
	}
	if link == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = t.Name, t.MTU
		if err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: int(t.VNI), Port: int(t.Port), SrcAddr: t.Local.AsSlice()}); err != nil {
			return err
		}
		if link, err = netlink.LinkByName(t.Name); err != nil {
			return err
		}
	}
	if netipOf(link.(*netlink.Vxlan).SrcAddr) != t.Local {
		if err := setLocal(link, t.Local); err != nil {
			return err
		}
	}
	for _, set := range []func() error{
		func() error { return netlink.LinkSetAlias(link, t.Alias) },
		func() error { return netlink.LinkSetMTU(link, t.MTU) },
		func() error {
			// A kernel without IPv6, or an MTU too small for it, has no addresses to make either.
			if err := netlink.LinkSetIP6AddrGenMode(link, nl.IN6_ADDR_GEN_MODE_NONE); !errors.Is(err, unix.EAFNOSUPPORT) {
				return err
			}
			return nil
		},
		func() error { return netlink.LinkSetMaster(link, bridge) },
		// Where addresses are is known: nothing is learned, and nothing flooded to find out.
		func() error {
			return setPort(link, map[int]byte{
				nl.IFLA_BRPORT_LEARNING: 0, nl.IFLA_BRPORT_UNICAST_FLOOD: 0, nl.IFLA_BRPORT_MCAST_FLOOD: 0, nl.IFLA_BRPORT_BCAST_FLOOD: 0,
				nl.IFLA_BRPORT_NEIGH_SUPPRESS: 1,
			})
		},
		func() error { return netlink.LinkSetUp(link) },
	} {
		if err := set(); err != nil {
			return err
		}
	}
	return nil
}

func netipOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// setBridge sets attributes of a bridge.
func setBridge(link netlink.Link, values map[int]byte) error {
	return setInfo(link, "bridge", func(data *nl.RtAttr) {
		for attr, value := range values {
			data.AddRtAttr(attr, []byte{value})
		}
	})
}

// setLocal sets the address that a tunnel sends from.
func setLocal(link netlink.Link, local netip.Addr) error {
	return setInfo(link, "vxlan", func(data *nl.RtAttr) {
		data.AddRtAttr(nl.IFLA_VXLAN_ID, nl.Uint32Attr(uint32(link.(*netlink.Vxlan).VxlanId)))
		attr := nl.IFLA_VXLAN_LOCAL
		if local.Is6() {
			attr = nl.IFLA_VXLAN_LOCAL6
		}
		data.AddRtAttr(attr, local.AsSlice())
	})
}

func setInfo(link netlink.Link, kind string, fill func(*nl.RtAttr)) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(link.Attrs().Index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	fill(info.AddRtAttr(nl.IFLA_INFO_DATA, nil))
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// setPort sets attributes of a bridge's port.
func setPort(link netlink.Link, values map[int]byte) error {
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(link.Attrs().Index)
	req.AddData(msg)
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	for attr, value := range values {
		info.AddRtAttr(attr, []byte{value})
	}
	req.AddData(info)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

func neighbour(gone bool, name string, n netlink.Neigh) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	n.LinkIndex = link.Attrs().Index
	if gone {
		return netlink.NeighDel(&n)
	}
	return netlink.NeighSet(&n)
}

func route(gone bool, o network.Route) error {
	link, err := netlink.LinkByName(o.Link)
	if err != nil {
		return err
	}
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Table: int(o.Table), Protocol: protocol}
	if o.Via.IsValid() {
		r.Gw, r.Flags, r.Family = o.Via.AsSlice(), int(netlink.FLAG_ONLINK), familyOf(o.Via)
		r.Dst = &net.IPNet{IP: make(net.IP, o.Via.BitLen()/8), Mask: net.CIDRMask(0, o.Via.BitLen())}
	} else if r.Dst = ipNet(o.Dst); o.Table != unix.RT_TABLE_LOCAL {
		r.Scope = netlink.SCOPE_LINK
	} else {
		r.Type, r.Scope = unix.RTN_LOCAL, netlink.SCOPE_HOST
		if o.Dst.Addr().Is6() {
			r.Scope = netlink.SCOPE_UNIVERSE // IPv6 has no other.
		}
	}
	if gone {
		return netlink.RouteDel(r)
	}
	return netlink.RouteReplace(r)
}

func netlinkRule(o network.Rule) *netlink.Rule {
	r := netlink.NewRule()
	r.Priority, r.IifName, r.Invert, r.Protocol, r.Family = int(o.Priority), o.In, o.Not, protocol, unix.AF_INET
	if o.IPv6 {
		r.Family = unix.AF_INET6
	}
	if o.Mask != 0 {
		r.Mark, r.Mask = o.Mark, &o.Mask
	}
	if o.Table != 0 {
		r.Table = int(o.Table)
	} else {
		r.Goto = int(o.Goto)
	}
	return r
}
