package linux

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"skep/agent/network"
)

// dumpLinks lists the cluster's links and what lies on them.
func (p *Plane) dumpLinks(out *network.Existing, clusterID string, links []netlink.Link) error {
	bridges := map[int]string{}
	for _, link := range links {
		attrs := link.Attrs()
		if _, is := link.(*netlink.Bridge); !is || !strings.HasPrefix(attrs.Alias, aliasPrefix+clusterID+"/") {
			continue
		}
		bridges[attrs.Index] = attrs.Name
		b := network.Bridge{Name: attrs.Name, Alias: attrs.Alias, MTU: attrs.MTU}
		copy(b.MAC[:], attrs.HardwareAddr)
		calls, err := callsNetfilter(link)
		if err != nil {
			return err
		}
		if attrs.Flags&net.FlagUp == 0 || !calls {
			b.MTU = wrong
		}
		out.Objects = append(out.Objects, b)
		if err := dumpBridge(out, link); err != nil {
			return err
		}
	}
	ports, err := bridgePorts()
	if err != nil {
		return err
	}
	for _, link := range links {
		attrs := link.Attrs()
		if vxlan, is := link.(*netlink.Vxlan); is && strings.HasPrefix(attrs.Alias, aliasPrefix+clusterID+"/") {
			if err := dumpTunnel(out, vxlan, bridges, ports); err != nil {
				return err
			}
			continue
		}
		if strings.HasPrefix(attrs.Name, network.WirePrefix) && strings.HasPrefix(attrs.Alias, aliasPrefix+clusterID+"/") {
			if err := p.wires.dump(out, link); err != nil {
				return err
			}
			continue
		}
		bridge, is := bridges[attrs.MasterIndex]
		if !is {
			continue
		}
		port, there := ports[attrs.Index]
		if !there {
			continue // Its container has just ended.
		}
		out.Ports[bridge] = append(out.Ports[bridge], attrs.Name)
		if port.hairpin {
			out.Objects = append(out.Objects, network.Hairpin{Link: attrs.Name, Bridge: bridge, On: true})
		}
	}
	return nil
}

// bridgePort is how a bridge treats one of its ports.
type bridgePort struct{ hairpin, learning, flood, suppress bool }

// bridgePorts lists the ports of all bridges, by their links' indexes. The library asks for all of
// them to tell about one.
func bridgePorts() (map[int]bridgePort, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	req.AddData(nl.NewIfInfomsg(unix.AF_BRIDGE))
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return nil, err
	}
	ports := make(map[int]bridgePort, len(answers))
	for _, answer := range answers {
		if err := parseBridgePort(answer, ports); err != nil {
			return nil, err
		}
	}
	return ports, nil
}

// parseBridgePort adds what the kernel says of a bridge's port.
func parseBridgePort(answer []byte, ports map[int]bridgePort) error {
	attrs, index, err := parseLink(answer)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if a.Attr.Type != unix.IFLA_PROTINFO|unix.NLA_F_NESTED {
			continue
		}
		settings, err := attrsOf(a.Value)
		if err != nil {
			return err
		}
		var p bridgePort
		for _, setting := range settings {
			if len(setting.Value) == 0 {
				continue
			}
			on := setting.Value[0] != 0
			switch setting.Attr.Type {
			case nl.IFLA_BRPORT_MODE:
				p.hairpin = on
			case nl.IFLA_BRPORT_LEARNING:
				p.learning = on
			case nl.IFLA_BRPORT_UNICAST_FLOOD:
				p.flood = on
			case nl.IFLA_BRPORT_NEIGH_SUPPRESS:
				p.suppress = on
			}
		}
		ports[index] = p
	}
	return nil
}

// parseLink reads what the kernel says of a link.
func parseLink(answer []byte) (attrs []syscall.NetlinkRouteAttr, index int, err error) {
	if len(answer) < unix.SizeofIfInfomsg {
		return nil, 0, fmt.Errorf("read a link: %d bytes are too few", len(answer))
	}
	msg := nl.DeserializeIfInfomsg(answer)
	attrs, err = attrsOf(answer[msg.Len():])
	return attrs, int(msg.Index), err
}

// attrsOf reads attributes. The library takes it for granted that the last one is filled up to four bytes.
func attrsOf(data []byte) ([]syscall.NetlinkRouteAttr, error) {
	if missing := -len(data) & 3; missing > 0 {
		data = append(data[:len(data):len(data)], make([]byte, missing)...)
	}
	return nl.ParseRouteAttr(data)
}

// callsNetfilter tells whether a bridge has what it bridges pass by netfilter, which the library
// doesn't read.
func callsNetfilter(link netlink.Link) (bool, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(link.Attrs().Index)
	req.AddData(msg)
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil || len(answers) == 0 {
		return false, err
	}
	return parseCallsNetfilter(answers[0])
}

func parseCallsNetfilter(answer []byte) (bool, error) {
	attrs, _, err := parseLink(answer)
	for _, outer := range []uint16{unix.IFLA_LINKINFO, nl.IFLA_INFO_DATA} {
		if err != nil {
			return false, err
		}
		i := slices.IndexFunc(attrs, func(a syscall.NetlinkRouteAttr) bool { return a.Attr.Type&^unix.NLA_F_NESTED == outer })
		if i < 0 {
			return false, nil
		}
		attrs, err = attrsOf(attrs[i].Value)
	}
	for _, a := range attrs {
		if (a.Attr.Type == nl.IFLA_BR_NF_CALL_IPTABLES || a.Attr.Type == nl.IFLA_BR_NF_CALL_IP6TABLES) && (len(a.Value) == 0 || a.Value[0] == 0) {
			return false, nil
		}
	}
	return true, err // A kernel that can't at all has no such attribute.
}

// dumpBridge lists a bridge's addresses, neighbours and settings.
func dumpBridge(out *network.Existing, link netlink.Link) error {
	name := link.Attrs().Name
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		addrs, err := netlink.AddrList(link, family)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			ip := netipOf(a.IP)
			if ip.IsLinkLocalUnicast() {
				continue // the kernel's own
			}
			ones, _ := a.Mask.Size()
			out.Objects = append(out.Objects, network.Address{Link: name, Prefix: netip.PrefixFrom(ip, ones)})
		}
		neighbours, err := netlink.NeighList(link.Attrs().Index, family)
		if err != nil {
			return err
		}
		for _, n := range neighbours {
			if n.State != netlink.NUD_PERMANENT {
				continue
			}
			entry := network.Neighbour{Link: name, Addr: netipOf(n.IP)}
			copy(entry.MAC[:], n.HardwareAddr)
			out.Objects = append(out.Objects, entry)
		}
	}
	setting := "net.ipv4.conf." + name + ".route_localnet"
	if value, err := os.ReadFile(sysctlPath(setting)); err == nil && strings.TrimSpace(string(value)) == "1" {
		out.Objects = append(out.Objects, network.Sysctl{Name: setting, Value: "1"})
	}
	return nil
}

// dumpTunnel lists a VXLAN port and its forwarding entries.
func dumpTunnel(out *network.Existing, link *netlink.Vxlan, bridges map[int]string, ports map[int]bridgePort) error {
	t := network.Tunnel{
		Name: link.Name, Alias: link.Alias, Bridge: bridges[link.MasterIndex], VNI: uint32(link.VxlanId), MTU: link.MTU,
		Local: netipOf(link.SrcAddr), Port: uint16(link.Port),
	}
	if link.Flags&net.FlagUp == 0 {
		t.MTU = wrong
	} else if p, there := ports[link.Index]; t.Bridge != "" && (!there || p.learning || p.flood || !p.suppress) {
		t.MTU = wrong
	}
	out.Objects = append(out.Objects, t)
	entries, err := netlink.NeighList(link.Index, unix.AF_BRIDGE)
	if err != nil {
		return err
	}
	for _, n := range entries {
		var mac network.MAC
		copy(mac[:], n.HardwareAddr)
		switch {
		case n.Flags&netlink.NTF_SELF != 0 && n.IP != nil:
			out.Objects = append(out.Objects, network.Forward{Link: link.Name, MAC: mac, Node: netipOf(n.IP)})
		case n.MasterIndex != 0 && n.State == netlink.NUD_NOARP:
			out.Objects = append(out.Objects, network.BridgeEntry{Link: link.Name, MAC: mac})
		}
	}
	return nil
}

// dumpRoutes lists skep's routes and rules of a family.
func dumpRoutes(out *network.Existing, links []netlink.Link, v6 bool) error {
	family := unix.AF_INET
	if v6 {
		family = unix.AF_INET6
	}
	names := map[int]string{}
	for _, link := range links {
		names[link.Attrs().Index] = link.Attrs().Name
	}
	routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC, Protocol: protocol}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return err
	}
	for _, r := range routes {
		o := network.Route{Link: names[r.LinkIndex], Table: uint32(r.Table)}
		if r.Gw != nil {
			o.Via = netipOf(r.Gw)
		} else if r.Dst != nil {
			ones, _ := r.Dst.Mask.Size()
			o.Dst = netip.PrefixFrom(netipOf(r.Dst.IP), ones)
		}
		out.Objects = append(out.Objects, o)
	}
	rules, err := netlink.RuleList(family)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if r.Protocol != protocol {
			continue
		}
		o := network.Rule{Priority: uint32(r.Priority), IPv6: v6, In: r.IifName, Not: r.Invert, Mark: r.Mark}
		if r.Mask != nil {
			o.Mask = *r.Mask
		}
		if r.Goto > 0 {
			o.Goto = uint32(r.Goto)
		} else {
			o.Table = uint32(r.Table)
		}
		out.Objects = append(out.Objects, o)
	}
	return nil
}
