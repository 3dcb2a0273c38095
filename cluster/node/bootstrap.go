package node

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/scheduler/address"
	"skep/store/seal"
)

// refuseInit refuses what can't be done yet.
func refuseInit(r swarm.InitRequest) error {
	refuse := func(what string) error {
		return cluster.Errorf(cluster.ErrUnsupported, "initialize swarm: %s", what)
	}
	if len(r.Spec.CAConfig.ExternalCAs) > 0 {
		return refuse("external CAs aren't supported; leave --external-ca out")
	}
	return nil
}

const (
	// The ports that Swarm lets users choose for packets of networks.
	firstDataPort, lastDataPort = 1024, 49151
	// maxPools is more than anybody needs: each is gone through when a subnet is looked for.
	maxPools = 64
)

// networkSettings are those that an order to make a cluster asks for.
func networkSettings(r swarm.InitRequest) (cluster.NetworkSettings, error) {
	var s cluster.NetworkSettings
	port := r.DataPathPort
	switch {
	case port != 0 && (port < firstDataPort || port > lastDataPort):
		return s, cluster.Errorf(cluster.ErrInvalid, "initialize swarm: Datapath port number must be in valid range of ports between %d and %d: %d", firstDataPort, lastDataPort, port)
	case port == gossipPort:
		return s, cluster.Errorf(cluster.ErrInvalid, "initialize swarm: the data path port can't be %d, which is gossip's", port)
	case len(r.DefaultAddrPool) > maxPools:
		return s, cluster.Errorf(cluster.ErrInvalid, "initialize swarm: %d address pools are more than %d: give fewer that are larger", len(r.DefaultAddrPool), maxPools)
	case r.SubnetSize > 32:
		return s, cluster.Errorf(cluster.ErrInvalid, "initialize swarm: subnet size is out of range: %d", r.SubnetSize)
	}
	for _, text := range r.DefaultAddrPool {
		pool, err := netip.ParsePrefix(text)
		if err != nil {
			return s, cluster.Errorf(cluster.ErrInvalid, "initialize swarm: invalid base pool %s: want an address and the length of its prefix, such as 10.0.0.0/8", text)
		}
		s.Pools = append(s.Pools, pool)
	}
	s.DataPort = uint16(port)
	if s.SubnetBits = int(r.SubnetSize); len(s.Pools) == 0 && s.SubnetBits == cluster.DefaultSubnetBits {
		s.SubnetBits = 0 // which the command always says
	}
	whole := (&cluster.Cluster{Networks: s}).NetworkSettings()
	if err := (address.Pools{Prefixes: whole.Pools, Bits: whole.SubnetBits}).Check(); err != nil {
		return s, fmt.Errorf("initialize swarm: %w", err)
	}
	return s, nil
}

// firstIngress is the network by which the ports are carried that are published on all nodes.
// It keeps off what this machine has: its engine's networks, and those that it is in itself; where
// these leave nothing, as a machine's in 10.0.0.0/8 do, off its own addresses.
func (n *Node) firstIngress(ctx context.Context, spec swarm.Spec, settings cluster.NetworkSettings) (*cluster.Network, error) {
	ingress := &cluster.Network{ID: cluster.NewID(n.cfg.Random), Spec: swarm.NetworkSpec{
		Annotations:         swarm.Annotations{Name: cluster.IngressName},
		DriverConfiguration: &swarm.Driver{Name: cluster.OverlayDriver}, Ingress: true, Scope: "swarm",
	}}
	if err := ingress.EncryptNew(spec); err != nil {
		return nil, fmt.Errorf("make the ingress network: %w", err)
	}
	local, err := n.cfg.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("make the ingress network: %w", err)
	}
	ingress.Spec.IPv6Enabled = reachedByIPv6(local)
	engines := n.api.EngineUses(ctx)
	w := address.Neighbours{
		Settings: (&cluster.Cluster{Networks: settings}).NetworkSettings(), VNITaken: func(uint32) bool { return false },
		Used: append(usedBy(local, false), engines...),
	}
	if err = w.Complete(ingress); err != nil {
		w.Used, ingress.Subnets = append(usedBy(local, true), engines...), nil
		err = w.Complete(ingress)
	}
	if err != nil {
		return nil, fmt.Errorf("make the ingress network: %w", err)
	}
	return ingress, nil
}

// reachedByIPv6 tells whether a machine has an address of IPv6 that others can ask it at: what it
// publishes should answer there too. Where it has none, its kernel may be without IPv6.
func reachedByIPv6(local []Interface) bool {
	return slices.ContainsFunc(local, func(iface Interface) bool {
		return slices.ContainsFunc(iface.Networks, func(network net.IPNet) bool {
			return network.IP.To4() == nil && network.IP.IsGlobalUnicast()
		})
	})
}

// usedBy are the networks that a machine's interfaces are in, or their own addresses only.
func usedBy(local []Interface, own bool) (used []address.Use) {
	for _, iface := range local {
		for _, network := range iface.Networks {
			addr, ok := netip.AddrFromSlice(network.IP)
			bits, all := network.Mask.Size()
			addr = addr.Unmap()
			if bits -= all - addr.BitLen(); own {
				bits = addr.BitLen()
			}
			if prefix, err := addr.Prefix(bits); ok && err == nil {
				used = append(used, address.Use{Prefix: prefix, By: "interface " + iface.Name})
			}
		}
	}
	return used
}

// bootstrap makes the keys and first objects of a new cluster.
func (n *Node) bootstrap(request swarm.InitRequest, addrs addresses, settings cluster.NetworkSettings, ingress *cluster.Network) (*member, error) {
	if err := binary.Read(n.cfg.Random, binary.BigEndian, &settings.Seed); err != nil {
		return nil, fmt.Errorf("choose a seed: %w", err)
	}
	now := n.cfg.Now()
	clusterID, nodeID := cluster.NewID(n.cfg.Random), cluster.NewID(n.cfg.Random)
	root, err := ca.NewRoot(n.cfg.Random, now, clusterID)
	if err != nil {
		return nil, err
	}
	rootKey, err := root.KeyPEM()
	if err != nil {
		return nil, err
	}
	keyPEM, csr, err := ca.NewRequest(n.cfg.Random)
	if err != nil {
		return nil, err
	}
	spec := cluster.CompleteSpec(request.Spec)
	var lock cluster.UnlockKey
	if request.AutoLockManagers || spec.EncryptionConfig.AutoLockManagers {
		spec.EncryptionConfig.AutoLockManagers = true
		lock = cluster.NewUnlockKey(n.cfg.Random)
	}
	id := cluster.Identity{NodeID: nodeID, Role: swarm.NodeRoleManager, ClusterID: clusterID}
	chain, err := root.Issue(n.cfg.Random, csr, id, now, spec.CAConfig.NodeCertExpiry)
	if err != nil {
		return nil, err
	}
	certificate, err := ca.Certificate(chain)
	if err != nil {
		return nil, err
	}
	gossipKey := seal.NewKey(n.cfg.Random)
	first := &fresh{
		Cluster: &cluster.Cluster{
			ID: clusterID, Lineage: cluster.NewID(n.cfg.Random), ClusterLevel: cluster.ClusterLevel{Level: n.cfg.Build.Level, LevelVersion: n.cfg.Build.Version},
			Spec: spec, RootCert: root.CertPEM(), RootKey: rootKey,
			WorkerToken:  cluster.NewJoinToken(root.Digest(), n.cfg.Random).String(),
			ManagerToken: cluster.NewJoinToken(root.Digest(), n.cfg.Random).String(),
			GossipKeys:   [][]byte{gossipKey[:]}, GossipKeysAt: now.UTC().Round(0),
			UnlockKey: lock, Networks: settings,
		},
		Ingress: ingress,
		Node:    n.firstManager(nodeID, addrs, request.Availability, certificate),
	}
	known := firstRecord(addrs, first.Node, first.Cluster.GossipKeys)
	known.Fresh, known.Lineage, known.Peers.Cluster = first, first.Cluster.Lineage, first.Cluster.ClusterLevel
	return n.install(ca.Keys{
		CertPEM: chain, KeyPEM: keyPEM, RootPEM: root.CertPEM(),
		DataKeys: [][32]byte{seal.NewKey(n.cfg.Random)}, Lock: lock,
	}, known, nil)
}

// firstManager is this node as the only manager of a cluster.
func (n *Node) firstManager(id string, addrs addresses, availability swarm.NodeAvailability, certificate cluster.Certificate) *cluster.Node {
	if availability == "" {
		availability = swarm.NodeAvailabilityActive
	}
	return &cluster.Node{
		ID:   id,
		Spec: swarm.NodeSpec{Role: swarm.NodeRoleManager, Availability: availability},
		Role: swarm.NodeRoleManager, Description: swarm.NodeDescription{Hostname: n.cfg.Hostname},
		Status:      cluster.NodeStatus{State: cluster.NodeUnknown, Message: "its agent hasn't called yet", Addr: addrs.IP, Since: n.cfg.Now()},
		ManagerAddr: addrs.Control, Certificate: certificate, Build: n.cfg.Build,
	}
}

// firstRecord is what the only manager of a cluster knows of it.
func firstRecord(addrs addresses, first *cluster.Node, gossipKeys [][]byte) record {
	return record{Addresses: addrs, Peers: cluster.Peers{
		Managers: []cluster.Peer{cluster.PeerOf(first)}, GossipKeys: gossipKeys, Role: swarm.NodeRoleManager,
	}}
}
