package dns

import (
	"net/netip"
	"strings"
)

// Names is what a node knows of names. It doesn't change: there is another one when
// something does.
type Names struct {
	// Listen is where questions are taken: at the gateways of the node's networks.
	Listen []Listen
	// Complete is set once the managers have told everything: until then no question is
	// answered, since what isn't known may still be there.
	Complete bool
	// Askers are the node's containers, by each of their addresses.
	Askers map[netip.Addr]*Asker
	// Networks are those that the node's containers are on, by ID.
	Networks map[string]*Network
	// Resolvers are asked for names that aren't the cluster's. Without any, the process of
	// names takes those of the node's /etc/resolv.conf, and heeds when they change.
	Resolvers []netip.AddrPort
}

// Listen is where questions are taken.
type Listen struct {
	Addr netip.AddrPort
	// Bridge is the only link that they are taken from, and From are the addresses of its
	// network: nobody else gets an answer. Both are empty where anybody may ask.
	Bridge string
	From   netip.Prefix
}

// hears tells whether a question from an address is taken. Who has the address of another network's
// member is answered nowhere: the answer would be of that one's networks.
func (l Listen) hears(from netip.Addr) bool { return !l.From.IsValid() || l.From.Contains(from) }

// Asker is a container of the node.
type Asker struct {
	// Networks are the IDs of those it is on, in the order in which names are looked up.
	Networks []string
	// Resolvers are asked instead of the node's, if there are any.
	Resolvers []netip.AddrPort
}

// Network is the names in one network.
type Network struct {
	Subnets []netip.Prefix
	// Names are in lower case, without a dot at the end.
	Names map[string]Record
	// Addresses are the names of addresses, for PTR.
	Addresses map[netip.Addr]string
}

// Record is what a name stands for. A name without addresses is known all the same: there
// is nobody who serves.
type Record struct {
	Addrs []netip.Addr
	// Shuffle has each answer begin with another address, where they are tasks'.
	Shuffle bool
}

// find looks a name up in the asker's networks: in all, since a service may be on several of
// them.
func (n *Names) find(asker *Asker, name string) (found Record, known bool) {
	for _, id := range asker.Networks {
		network := n.Networks[id]
		if network == nil {
			continue
		}
		if record, is := network.Names[name]; is {
			if known = true; found.Addrs == nil {
				found = record
				continue
			}
			found.Addrs = append(found.Addrs[:len(found.Addrs):len(found.Addrs)], record.Addrs...)
			found.Shuffle = found.Shuffle || record.Shuffle
		}
	}
	return found, known
}

// reverse finds the name of an address in the asker's networks. ours tells whether the address is
// in one of their subnets: then nobody else knows better.
func (n *Names) reverse(asker *Asker, addr netip.Addr) (name string, ours bool) {
	for _, id := range asker.Networks {
		network := n.Networks[id]
		if network == nil {
			continue
		}
		for _, subnet := range network.Subnets {
			if subnet.Contains(addr) {
				return network.Addresses[addr], true
			}
		}
	}
	return "", false
}

// parseReverse is the address that a name below in-addr.arpa or ip6.arpa stands for.
func parseReverse(name string) (netip.Addr, bool) {
	if digits, is := strings.CutSuffix(name, ".in-addr.arpa"); is {
		parts := strings.Split(digits, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		addr, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return addr, err == nil
	}
	digits, is := strings.CutSuffix(name, ".ip6.arpa")
	if !is || len(digits) != 63 {
		return netip.Addr{}, false
	}
	var text strings.Builder
	for i := 62; i >= 0; i -= 2 {
		if i < 62 && digits[i+1] != '.' {
			return netip.Addr{}, false
		}
		if n := (62 - i) / 2; n > 0 && n%4 == 0 {
			text.WriteByte(':')
		}
		text.WriteByte(digits[i])
	}
	addr, err := netip.ParseAddr(text.String())
	return addr, err == nil
}
