package node

import (
	"fmt"
	"net"
	"strconv"

	"skep/cluster"
)

const (
	controlPort = cluster.ControlPort
	gossipPort  = cluster.GossipPort
)

// addresses is where a node listens and where others find it.
type addresses struct {
	// Listen and Control are host:port of the control port: bound, and advertised.
	Listen  string `cbor:"1,keyasint"`
	Control string `cbor:"2,keyasint"`
	// Bind and IP are gossip's, on its own port: bound, and advertised.
	Bind string `cbor:"3,keyasint"`
	IP   string `cbor:"4,keyasint"`
	// Own is set when IP was the machine's own, on Interface; otherwise it is that of a
	// NAT, and the node can't see it change.
	Own       bool   `cbor:"5,keyasint,omitempty"`
	Interface string `cbor:"6,keyasint,omitempty"`
	// Data is where packets of networks are taken, if it isn't IP, and DataGiven how the user
	// named it: by an address, or by an interface whose address may change.
	Data      string `cbor:"8,keyasint,omitempty"`
	DataGiven string `cbor:"9,keyasint,omitempty"`
	// Flags are what the daemon's command line said when the addresses were settled: one
	// that says something new is obeyed.
	Flags addressFlags `cbor:"7,keyasint,omitzero"`
}

// addressFlags are --listen-addr, --advertise-addr and --data-path-addr.
type addressFlags struct {
	Listen    string `cbor:"1,keyasint,omitempty"`
	Advertise string `cbor:"2,keyasint,omitempty"`
	Data      string `cbor:"3,keyasint,omitempty"`
}

// resolve settles a node's addresses. Both texts may be an IP address or an
// interface's name, with or without a port, or empty. An advertised address of
// this machine is also what is bound when listen names none, so that several
// nodes run on one machine, each on its own address.
func resolve(listen, advertise string, known interfaces) (addresses, error) {
	listenIP, listenPort, err := parseAddr(listen, controlPort, known)
	if err != nil {
		return addresses{}, fmt.Errorf("read listen address: %w", err)
	}
	ip, port, err := parseAddr(advertise, listenPort, known)
	if err != nil {
		return addresses{}, fmt.Errorf("read advertise address: %w", err)
	}
	if ip != nil && !reachable(ip) {
		return addresses{}, cluster.Errorf(cluster.ErrInvalid, "advertise address must be a non-zero IP address or network interface (with optional port number): %s is none that other nodes could reach", ip)
	}
	if ip == nil {
		ip = listenIP
	}
	if ip == nil || ip.IsUnspecified() {
		if ip, err = onlyIP(known); err != nil {
			return addresses{}, err
		}
	}
	bind := listenIP
	own := known.has(ip)
	if bind == nil || bind.IsUnspecified() {
		bind = net.IPv4zero
		if own {
			bind = ip
		}
	}
	return addresses{
		Listen:  net.JoinHostPort(bind.String(), strconv.Itoa(listenPort)),
		Control: net.JoinHostPort(ip.String(), strconv.Itoa(port)),
		Bind:    bind.String(), IP: ip.String(), Own: own, Interface: known.of(ip),
	}, nil
}

// resolveData settles where packets of networks are taken: at an address of this machine, or
// at an interface's. None is given for where other nodes find this one anyway.
func (a addresses) resolveData(given string, known interfaces) (addresses, error) {
	a.Data, a.DataGiven = "", given
	if given == "" {
		return a, nil
	}
	if _, _, err := net.SplitHostPort(given); err == nil {
		return a, cluster.Errorf(cluster.ErrInvalid, "data path address must be an IP address or network interface, without a port: %q (the port is the cluster's: --data-path-port of init)", given)
	}
	ip, _, err := parseAddr(given, 0, known)
	if err != nil {
		return a, fmt.Errorf("read data path address: %w", err)
	}
	if ip == nil || !reachable(ip) || !known.has(ip) {
		return a, cluster.Errorf(cluster.ErrInvalid, "data path address must be a non-zero IP address of this machine, or one of its network interfaces: %q is none", given)
	}
	a.Data = ip.String()
	return a, nil
}

// reachable tells whether an address can be that of a node at all.
func reachable(ip net.IP) bool {
	return !ip.IsUnspecified() && !ip.IsMulticast() && !ip.Equal(net.IPv4bcast)
}

// listensEverywhere tells whether a listen address names no address or interface.
func listensEverywhere(listen string) bool {
	host := listen
	if h, _, err := net.SplitHostPort(listen); err == nil {
		host = h
	}
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// parseAddr reads host[:port]; no host gives a nil IP.
func parseAddr(text string, defaultPort int, known interfaces) (net.IP, int, error) {
	if text == "" {
		return nil, defaultPort, nil
	}
	host, port := text, defaultPort
	if net.ParseIP(text) == nil {
		if h, p, err := net.SplitHostPort(text); err == nil {
			number, err := strconv.ParseUint(p, 10, 16)
			if err != nil || number == 0 {
				return nil, 0, cluster.Errorf(cluster.ErrInvalid, "%q has no valid port", text)
			}
			host, port = h, int(number)
		}
	}
	if host == "" {
		return nil, port, nil
	}
	if ip := net.ParseIP(host); ip != nil {
		return ip, port, nil
	}
	iface := known.named(host)
	if iface == nil {
		return nil, 0, cluster.Errorf(cluster.ErrInvalid, "%q is neither an IP address nor a network interface here", host)
	}
	ips := iface.ips()
	candidates := usable(ips)
	if len(candidates) == 0 {
		candidates = ips
	}
	if len(candidates) != 1 {
		return nil, 0, cluster.Errorf(cluster.ErrInvalid, "interface %s has %d addresses; name one of them", host, len(candidates))
	}
	return candidates[0], port, nil
}

// usable leaves out link-local addresses, and IPv6 ones where there are IPv4 ones.
func usable(ips []net.IP) []net.IP {
	var four, six []net.IP
	for _, ip := range ips {
		switch {
		case ip.IsLinkLocalUnicast():
		case ip.To4() != nil:
			four = append(four, ip)
		default:
			six = append(six, ip)
		}
	}
	if len(four) > 0 {
		return four
	}
	return six
}

// onlyIP is the address to advertise when the user names none.
func onlyIP(known interfaces) (net.IP, error) {
	var all []net.IP
	for _, iface := range known.outward() {
		all = append(all, usable(iface.ips())...)
	}
	switch len(all) {
	case 1:
		return all[0], nil
	case 0:
		return nil, cluster.Errorf(cluster.ErrInvalid, "could not choose an IP address to advertise since this system has none that others can reach")
	}
	return nil, cluster.Errorf(cluster.ErrInvalid, "could not choose an IP address to advertise since this system has multiple addresses")
}
