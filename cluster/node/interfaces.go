package node

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
)

// Interface is one of the machine's network interfaces, with the networks that it is in.
type Interface struct {
	Name     string
	Networks []net.IPNet
	Loopback bool
	// MTU is 0 when it isn't known.
	MTU int
	// Engine is set for a bridge of the Docker Engine: its addresses are the machine's,
	// but other machines have the same.
	Engine bool
}

// interfaces are all of the machine's.
type interfaces []Interface

// localInterfaces asks the system. It leaves out the engine's ends of containers'
// cables, of which there may be very many, and which nobody can reach.
func localInterfaces() ([]Interface, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var found interfaces
	for _, iface := range list {
		if strings.HasPrefix(iface.Name, "veth") {
			continue
		}
		addrs, err := iface.Addrs()
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", iface.Name, err)
		}
		one := Interface{Name: iface.Name, MTU: iface.MTU, Loopback: iface.Flags&net.FlagLoopback != 0, Engine: ofEngine.MatchString(iface.Name)}
		for _, addr := range addrs {
			if network, ok := addr.(*net.IPNet); ok {
				one.Networks = append(one.Networks, *network)
			}
		}
		found = append(found, one)
	}
	return found, nil
}

// ofEngine is how a Docker Engine names its bridges, unless it is told other names: see
// engines.
var ofEngine = regexp.MustCompile(`^(docker0|docker_gwbridge|br-[0-9a-f]{12})$`)

func (i Interface) ips() []net.IP {
	var ips []net.IP
	for _, network := range i.Networks {
		ips = append(ips, network.IP)
	}
	return ips
}

// has tells whether an address is this machine's; on loopback a whole network is.
func (i interfaces) has(ip net.IP) bool { return i.of(ip) != "" }

// of names the interface that has the address, or "".
func (i interfaces) of(ip net.IP) string {
	for _, iface := range i {
		for _, network := range iface.Networks {
			if network.IP.Equal(ip) || iface.Loopback && network.Contains(ip) {
				return iface.Name
			}
		}
	}
	return ""
}

// named finds an interface; nil when there is none.
func (i interfaces) named(name string) *Interface {
	at := slices.IndexFunc(i, func(iface Interface) bool { return iface.Name == name })
	if at < 0 {
		return nil
	}
	return &i[at]
}

// engines marks more of them as bridges of the engine.
func (i interfaces) engines(names []string) interfaces {
	marked := slices.Clone(i)
	for at := range marked {
		marked[at].Engine = marked[at].Engine || slices.Contains(names, marked[at].Name)
	}
	return marked
}

// outward are those through which other machines may reach this one.
func (i interfaces) outward() interfaces {
	return slices.DeleteFunc(slices.Clone(i), func(iface Interface) bool { return iface.Engine || iface.Loopback })
}
