package node

import (
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/store/seal"
)

// refuseInit refuses what can't be done yet.
func refuseInit(r swarm.InitRequest) error {
	refuse := func(what string) error {
		return cluster.Errorf(cluster.ErrUnsupported, "initialize swarm: %s", what)
	}
	switch {
	case r.DataPathAddr != "" || r.DataPathPort != 0:
		return refuse("overlay networks aren't there yet; leave the data path's address and port out")
	case len(r.DefaultAddrPool) > 0 || (r.SubnetSize != 0 && r.SubnetSize != 24):
		return refuse("overlay networks aren't there yet; leave the address pool out")
	case len(r.Spec.CAConfig.ExternalCAs) > 0:
		return refuse("external CAs aren't supported; leave --external-ca out")
	}
	return nil
}

// bootstrap makes the keys and first objects of a new cluster.
func (n *Node) bootstrap(request swarm.InitRequest, addrs addresses) (*member, error) {
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
			ID: clusterID, ClusterLevel: cluster.ClusterLevel{Level: n.cfg.Build.Level, LevelVersion: n.cfg.Build.Version},
			Spec: spec, RootCert: root.CertPEM(), RootKey: rootKey,
			WorkerToken:  cluster.NewJoinToken(root.Digest(), n.cfg.Random).String(),
			ManagerToken: cluster.NewJoinToken(root.Digest(), n.cfg.Random).String(),
			GossipKeys:   [][]byte{gossipKey[:]}, GossipKeysAt: now.UTC().Round(0),
			UnlockKey: lock,
		},
		Node: n.firstManager(nodeID, addrs, request.Availability, certificate),
	}
	known := firstRecord(addrs, first.Node, first.Cluster.GossipKeys)
	known.Fresh, known.Peers.Cluster = first, first.Cluster.ClusterLevel
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
