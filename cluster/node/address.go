package node

import (
	"fmt"
	"net"
	"strconv"

	"skep/cluster"
)

const (
	// controlPort and gossipPort are as users of Swarm know them.
	controlPort = 2377
	gossipPort  = 7946
)

// addresses is where a node listens and where others find it.
type addresses struct {
	// Listen and Control are host:port of the control port: bound, and advertised.
	Listen  string `cbor:"1,keyasint"`
	Control string `cbor:"2,keyasint"`
	// Bind and IP are gossip's, on its own port: bound, and advertised.
	Bind string `cbor:"3,keyasint"`
	IP   string `cbor:"4,keyasint"`
}

// interfaces lists the machine's addresses, by interface name.
type interfaces func() (map[string][]net.IP, error)

// localInterfaces asks the system.
func localInterfaces() (map[string][]net.IP, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	found := map[string][]net.IP{}
	for _, iface := range list {
		addrs, err := iface.Addrs()
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", iface.Name, err)
		}
		for _, addr := range addrs {
			if network, ok := addr.(*net.IPNet); ok {
				found[iface.Name] = append(found[iface.Name], network.IP)
			}
		}
	}
	return found, nil
}

// resolve settles a node's addresses. Both texts may be an IP address or an
// interface's name, with or without a port, or empty. An advertised address of
// this machine is also what is bound when listen names none, so that several
// nodes run on one machine, each on its own address.
func resolve(listen, advertise string, local interfaces) (addresses, error) {
	known, err := local()
	if err != nil {
		return addresses{}, err
	}
	listenIP, listenPort, err := parseAddr(listen, controlPort, known)
	if err != nil {
		return addresses{}, fmt.Errorf("read listen address: %w", err)
	}
	ip, port, err := parseAddr(advertise, listenPort, known)
	if err != nil {
		return addresses{}, fmt.Errorf("read advertise address: %w", err)
	}
	if ip == nil || ip.IsUnspecified() {
		ip = listenIP
	}
	if ip == nil || ip.IsUnspecified() {
		if ip, err = onlyIP(known); err != nil {
			return addresses{}, err
		}
	}
	bind := listenIP
	if bind == nil || bind.IsUnspecified() {
		bind = net.IPv4zero
		if isLocal(ip, known) {
			bind = ip
		}
	}
	return addresses{
		Listen:  net.JoinHostPort(bind.String(), strconv.Itoa(listenPort)),
		Control: net.JoinHostPort(ip.String(), strconv.Itoa(port)),
		Bind:    bind.String(), IP: ip.String(),
	}, nil
}

// parseAddr reads host[:port]; no host gives a nil IP.
func parseAddr(text string, defaultPort int, known map[string][]net.IP) (net.IP, int, error) {
	if text == "" {
		return nil, defaultPort, nil
	}
	host, port := text, defaultPort
	if net.ParseIP(text) == nil {
		if h, p, err := net.SplitHostPort(text); err == nil {
			number, err := strconv.ParseUint(p, 10, 16)
			if err != nil || number == 0 {
				return nil, 0, cluster.Say(cluster.ErrInvalid, "%q has no valid port", text)
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
	ips, ok := known[host]
	if !ok {
		return nil, 0, cluster.Say(cluster.ErrInvalid, "%q is neither an IP address nor a network interface here", host)
	}
	candidates := usable(ips)
	if len(candidates) == 0 {
		candidates = ips
	}
	if len(candidates) != 1 {
		return nil, 0, cluster.Say(cluster.ErrInvalid, "interface %s has %d addresses; name one of them", host, len(candidates))
	}
	return candidates[0], port, nil
}

// usable leaves out loopback and link-local addresses, and IPv6 ones where there
// are IPv4 ones.
func usable(ips []net.IP) []net.IP {
	var four, six []net.IP
	for _, ip := range ips {
		switch {
		case ip.IsLoopback() || ip.IsLinkLocalUnicast():
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
func onlyIP(known map[string][]net.IP) (net.IP, error) {
	var all []net.IP
	for name, ips := range known {
		// A container bridge is no address that other machines could reach.
		if name == "docker0" || name == "docker_gwbridge" {
			continue
		}
		all = append(all, usable(ips)...)
	}
	switch len(all) {
	case 1:
		return all[0], nil
	case 0:
		return nil, cluster.Say(cluster.ErrInvalid, "could not choose an IP address to advertise since this system has none that others can reach")
	}
	return nil, cluster.Say(cluster.ErrInvalid, "could not choose an IP address to advertise since this system has multiple addresses")
}

func isLocal(ip net.IP, known map[string][]net.IP) bool {
	if ip.IsLoopback() {
		return true
	}
	for _, ips := range known {
		for _, local := range ips {
			if local.Equal(ip) {
				return true
			}
		}
	}
	return false
}
