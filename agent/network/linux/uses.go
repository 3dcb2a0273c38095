package linux

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"skep/cluster"
)

// AddressUses are the machine's own addresses, and where its main table leads, but for the way to
// everything else. What lies on a link of skep's is the network's whose the link is.
func (p *Plane) AddressUses(context.Context) (uses []cluster.AddressUse, err error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	byIndex := map[int]netlink.Link{}
	for _, link := range links {
		byIndex[link.Attrs().Index] = link
	}
	add := func(index int, prefix netip.Prefix, kind string) {
		link := byIndex[index]
		if a := prefix.Addr(); link == nil || prefix.Bits() <= 0 || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a == netip.IPv6Unspecified() {
			return
		}
		use := cluster.AddressUse{Prefix: prefix.Masked(), By: kind + link.Attrs().Name}
		if alias, is := strings.CutPrefix(link.Attrs().Alias, aliasPrefix); is {
			if _, use.NetworkID, _ = strings.Cut(alias, "/"); prefix.IsSingleIP() {
				return // A gateway's or a virtual IP, of which there may be thousands.
			}
		}
		uses = append(uses, use)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		at := netipOf(a.IP)
		add(a.LinkIndex, netip.PrefixFrom(at, at.BitLen()), "interface ")
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || r.Type != unix.RTN_UNICAST {
			continue
		}
		kind := "the route by "
		if r.Gw == nil {
			kind = "interface "
		}
		ones, _ := r.Dst.Mask.Size()
		add(r.LinkIndex, netip.PrefixFrom(netipOf(r.Dst.IP), ones), kind)
	}
	return uses, nil
}
