package manager

import (
	"net/netip"

	"skep/cluster"
	"skep/cluster/manager/peers"
)

// nodeAddrs are the addresses of which nodes are known, and of how many; a manager counts for
// peers.ManagerWeight.
func (m *Manager) nodeAddrs() map[netip.Addr]int {
	// A manager that listens everywhere reaches itself by loopback.
	weights := map[netip.Addr]int{
		peers.SourceAddr(netip.AddrFrom4([4]byte{127, 0, 0, 1})): peers.ManagerWeight,
		peers.SourceAddr(netip.IPv6Loopback()):                   peers.ManagerWeight,
	}
	for node := range m.store.View().Nodes() {
		if addr, err := netip.ParseAddr(node.Status.Addr); err == nil {
			weights[peers.SourceAddr(addr)]++
		}
	}
	managers := m.Elsewhere()
	if m.cfg.Peers != nil { // Raft's configuration may be older.
		managers = append(managers, m.cfg.Peers()...)
	}
	managers = append(managers, cluster.Peer{Addr: m.cfg.Addr})
	seen := map[string]bool{}
	for _, peer := range managers {
		if source := peers.Source(peer.Addr); source.IsValid() && !seen[peer.Addr] {
			seen[peer.Addr] = true
			weights[source] += peers.ManagerWeight
		}
	}
	return weights
}
