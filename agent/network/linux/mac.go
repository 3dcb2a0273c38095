package linux

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"skep/agent/network"
)

// SetMAC gives the interface that has an IPv4 address, of the network namespace of a process, a MAC, unless it has
// it. It needs CAP_SYS_ADMIN.
func SetMAC(pid int, addr netip.Addr, mac network.MAC) error {
	return setMAC(fmt.Sprintf("/proc/%d/ns/net", pid), addr, mac)
}

func setMAC(namespace string, addr netip.Addr, mac network.MAC) (err error) {
	defer func() {
		if errors.Is(err, os.ErrPermission) {
			err = fmt.Errorf("%w: allow the daemon CAP_SYS_ADMIN and setns, or have the container made anew (\"docker service update --force\", \"docker run --network\")", err)
		}
		if err != nil {
			err = fmt.Errorf("set MAC of %s in %s: %w", addr, namespace, err)
		}
	}()
	at, err := netns.GetFromPath(namespace)
	if err != nil {
		return err
	}
	defer at.Close()
	there, err := netlink.NewHandleAt(at)
	if err != nil {
		return err
	}
	defer there.Close()
	addrs, err := there.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if !a.IP.Equal(net.IP(addr.AsSlice())) {
			continue
		}
		link, err := there.LinkByIndex(a.LinkIndex)
		if err != nil || bytes.Equal(link.Attrs().HardwareAddr, mac[:]) {
			return err
		}
		return there.LinkSetHardwareAddr(link, mac[:])
	}
	return errors.New("no interface has the address")
}
