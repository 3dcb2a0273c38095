package linux

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"skep/agent/network"
)

// reservation is a port that a socket keeps, at all addresses of the machine or at one.
type reservation struct {
	protocol string
	addr     netip.Addr
	port     uint16
}

// Reserve keeps these ports, and no others, from programs of the machine, whose clients the mesh would lead
// to a service: each is bound, so that who wants it fails as with any port that is in use. It lists the ports
// that others have. Nothing comes in by these sockets: what is published doesn't need them.
func (p *Plane) Reserve(ports []network.Port) (taken []string) {
	wanted := map[reservation]bool{}
	for _, port := range ports {
		if port.Protocol != "sctp" { // Kernels may have no such sockets.
			wanted[reservation{port.Protocol, port.HostIP.Unmap(), port.Published}] = true
		}
	}
	for r, fd := range p.reserved {
		if !wanted[r] {
			unix.Close(fd)
			delete(p.reserved, r)
		}
	}
	for r := range wanted {
		if _, held := p.reserved[r]; held {
			continue
		}
		switch fd, err := r.bind(); {
		case err == nil:
			p.reserved[r] = fd
		case errors.Is(err, unix.EADDRINUSE):
			taken = append(taken, fmt.Sprintf("%d/%s", r.port, r.protocol))
		case !errors.Is(err, unix.EADDRNOTAVAIL): // Else it is another node's address.
			p.log.Warn("reserve a published port", "port", r.port, "protocol", r.protocol, "err", err)
		}
	}
	slices.Sort(taken)
	return slices.Compact(taken)
}

// bind makes a socket that has the port and never takes anything: one of TCP doesn't listen, so that the
// kernel refuses who calls as if there was none, and one of UDP has a filter that lets nothing in.
func (r reservation) bind() (fd int, err error) {
	family := unix.AF_INET6
	var at unix.Sockaddr = &unix.SockaddrInet6{Port: int(r.port), Addr: r.addr.As16()}
	switch {
	case !r.addr.IsValid():
		at = &unix.SockaddrInet6{Port: int(r.port)} // of both families
	case r.addr.Is4():
		family, at = unix.AF_INET, &unix.SockaddrInet4{Port: int(r.port), Addr: r.addr.As4()}
	}
	kind := unix.SOCK_STREAM
	if r.protocol == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) && !r.addr.IsValid() {
		at = &unix.SockaddrInet4{Port: int(r.port)}
		family = unix.AF_INET
		fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	}
	if err != nil {
		return -1, err
	}
	if family == unix.AF_INET6 && !r.addr.IsValid() {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	if kind == unix.SOCK_DGRAM && err == nil {
		nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
	}
	if err == nil {
		err = unix.Bind(fd, at)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
