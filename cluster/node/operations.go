package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"golang.org/x/sync/errgroup"

	"skep/agent/network"
	"skep/cluster"
	"skep/cluster/ca"
	"skep/cluster/manager"
	"skep/store/seal"
)

// orderLimit bounds init and join: clients of Swarm expect 20 s.
const orderLimit = 20 * time.Second

// errMember is what init and join say on a node that is part of a cluster.
var errMember = cluster.Errorf(cluster.ErrUnavailable, "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.")

// errStarting is what a node says that doesn't know yet what it is.
var errStarting = cluster.Errorf(cluster.ErrUnavailable, "This node is starting: its part in the swarm isn't taken up yet. Try again in a moment.")

// beginOperation takes the right to change the membership; done gives it back. It waits until Run has
// found what an earlier run left: an order to a node that is nobody would remove that.
func (n *Node) beginOperation(ctx context.Context) (done func(), err error) {
	select {
	case <-n.ready:
	case <-ctx.Done():
		return nil, errStarting
	}
	select {
	case n.operations <- struct{}{}:
		return func() { <-n.operations }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for another init, join or leave: %w: %w", cluster.ErrUnavailable, ctx.Err())
	}
}

// Init makes a new cluster with this node as its manager.
func (n *Node) Init(ctx context.Context, request swarm.InitRequest) (string, error) {
	if err := refuseInit(request); err != nil {
		return "", err
	}
	settings, err := networkSettings(request)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, orderLimit)
	defer cancel()
	done, err := n.beginOperation(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	if n.locked() != nil {
		return "", errLocked
	}
	if member := n.current(); member != nil {
		if !request.ForceNewCluster {
			return "", errMember
		}
		return n.goOnAlone(ctx, member, request)
	}
	asked := addressFlags{Listen: request.ListenAddr, Advertise: request.AdvertiseAddr, Data: request.DataPathAddr}
	return n.startCluster(ctx, "initialize swarm", asked, func(addrs addresses) (*member, error) {
		ingress, err := n.firstIngress(ctx, request.Spec, settings)
		if err != nil {
			return nil, err
		}
		return n.bootstrap(request, addrs, settings, ingress)
	})
}

// startCluster makes this node the first manager of a cluster whose files install writes,
// and returns its ID. It runs within an operation, on a node that is in no cluster.
func (n *Node) startCluster(ctx context.Context, operation string, asked addressFlags, install func(addresses) (*member, error)) (string, error) {
	addrs, err := n.resolve(ctx, asked)
	if err != nil {
		return "", err
	}
	if err := n.freePorts(ctx, addrs, true); err != nil {
		return "", fmt.Errorf("%s: %w", operation, err)
	}
	m, err := install(addrs)
	if err != nil {
		return "", errors.Join(fmt.Errorf("%s: %w", operation, err), n.files.wipe())
	}
	n.begin(m)
	if err := m.wait(ctx); err != nil {
		return "", errors.Join(fmt.Errorf("%s: %w", operation, err), n.end(m))
	}
	return m.credentials.Identity().NodeID, nil
}

// goOnAlone makes a manager the only one of its cluster, with all that it knows:
// what is left to do when most managers are lost for good. It keeps its addresses
// unless it is given one to advertise, since clients always send where to listen.
func (n *Node) goOnAlone(ctx context.Context, m *member, request swarm.InitRequest) (string, error) {
	if request.AutoLockManagers {
		return "", cluster.Errorf(cluster.ErrInvalid, "force a new cluster: it keeps its locks; leave --autolock out and use \"swarm update --autolock\" afterwards")
	}
	if m.credentials.Identity().Role != swarm.NodeRoleManager {
		return "", cluster.Errorf(cluster.ErrUnavailable, "force a new cluster: this node is a worker and has no copy of the cluster's database; do it on one that was a manager")
	}
	if running := m.manager.Load(); running != nil && running.LeaderID() != "" && len(running.Elsewhere()) > 0 {
		// They would go on without this one, and there would be two clusters.
		return "", cluster.Errorf(cluster.ErrPrecondition, "force a new cluster: this one has a leader, node %s: demote the managers that are lost (\"node demote\"), and remove them", running.LeaderID())
	}
	if len(request.DefaultAddrPool) > 0 || request.DataPathPort != 0 {
		return "", cluster.Errorf(cluster.ErrInvalid, "force a new cluster: it keeps its address pools and its data path port; leave --default-addr-pool and --data-path-port out")
	}
	addrs := m.currentRecord().Addresses
	if request.AdvertiseAddr != "" || request.DataPathAddr != "" {
		asked := addressFlags{Listen: request.ListenAddr, Advertise: request.AdvertiseAddr, Data: cmp.Or(request.DataPathAddr, addrs.DataGiven)}
		if request.AdvertiseAddr == "" {
			asked.Listen, asked.Advertise = addrs.Listen, addrs.Control
		}
		var err error
		if addrs, err = n.resolve(ctx, asked); err != nil {
			return "", err
		}
	}
	n.log.Warn("go on without the other managers", "node", m.credentials.Identity().NodeID)
	// The manager of the membership so far must have ended: it would go on alone as well.
	m.stop()
	lineage := cluster.NewID(n.cfg.Random)
	ordered := m.change(func(r *record) { r.Alone, r.Lineage, r.Addresses = true, lineage, addrs })
	next, err := n.load(m.lock())
	if err != nil {
		return "", fmt.Errorf("force a new cluster: %w", errors.Join(ordered, err))
	}
	n.begin(next)
	if err = ordered; err == nil {
		err = next.wait(ctx)
	}
	if running := next.manager.Load(); err == nil && running != nil {
		_, _, err = running.Leader(ctx)
	}
	if err == nil {
		// It leads, and the others are workers: a restart mustn't do that again to those who
		// are promoted next.
		err = next.change(func(r *record) { r.Alone = false })
	}
	if err != nil {
		return "", fmt.Errorf("force a new cluster: %w", err)
	}
	return next.credentials.Identity().NodeID, nil
}

// Join makes the node part of the cluster of a manager at one of the addresses.
func (n *Node) Join(ctx context.Context, request swarm.JoinRequest) error {
	token, err := cluster.ParseJoinToken(request.JoinToken)
	if err != nil {
		return err
	}
	if len(request.RemoteAddrs) == 0 {
		return cluster.Errorf(cluster.ErrInvalid, "join swarm: at least 1 RemoteAddr is required to join")
	}
	var managers []string
	for _, remote := range request.RemoteAddrs {
		addr, err := splitRemote(remote)
		if err != nil {
			return err
		}
		managers = append(managers, addr)
	}
	ctx, cancel := context.WithTimeout(ctx, orderLimit)
	defer cancel()
	done, err := n.beginOperation(ctx)
	if err != nil {
		return err
	}
	defer done()
	if n.locked() != nil {
		return errLocked
	}
	if n.current() != nil {
		return errMember
	}
	n.setJoining(true)
	defer n.setJoining(false)
	member, err := n.join(ctx, request, token, managers)
	if err != nil {
		return errors.Join(fmt.Errorf("join swarm: %w", err), n.files.wipe())
	}
	n.begin(member)
	if err := member.wait(ctx); err != nil {
		if ctx.Err() == nil {
			return errors.Join(fmt.Errorf("join swarm: %w", err), n.end(member))
		}
		// It is let in; it goes on trying to reach the managers.
		return fmt.Errorf("join swarm: Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the \"docker info\" command to see the current swarm status of your node: %w: %w",
			cluster.ErrUnavailable, err)
	}
	return nil
}

func (n *Node) setJoining(joining bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.joining = joining
}

func (n *Node) join(ctx context.Context, request swarm.JoinRequest, token cluster.JoinToken, managers []string) (*member, error) {
	advertise := request.AdvertiseAddr
	listen := request.ListenAddr
	if listensEverywhere(listen) {
		listen = n.cfg.ListenAddr
	}
	if advertise == "" && n.cfg.AdvertiseAddr == "" && listensEverywhere(listen) {
		// The address by which the manager is reached is the one to advertise.
		if ip, err := n.cfg.localIP(ctx, managers[0]); err == nil {
			advertise = ip
		}
	}
	addrs, err := n.resolve(ctx, addressFlags{Listen: request.ListenAddr, Advertise: advertise, Data: request.DataPathAddr})
	if err != nil {
		return nil, err
	}
	if err := n.freePorts(ctx, addrs, false); err != nil {
		return nil, err
	}
	keyPEM, csr, err := ca.NewRequest(n.cfg.Random)
	if err != nil {
		return nil, err
	}
	control, stopAnswering, unheard := n.answer(addrs, keyPEM)
	config, trusted := ca.JoinTLS(token.Digest, n.cfg.Now, cluster.ProtocolHTTP)
	asker := manager.ControlClient{Network: n.cfg.Network, TLS: config, Build: n.cfg.Build, Managers: managers}
	admission, err := asker.Join(ctx, manager.JoinRequest{
		Token: token.String(), CSR: csr, Hostname: n.cfg.Hostname, Addr: addrs.IP, Availability: request.Availability, Control: control,
	})
	if stopped := stopAnswering(); err == nil {
		err = stopped
	}
	if unheard != nil && errors.Is(err, cluster.ErrInvalid) {
		return nil, unheard // Without a control port it can't be a manager.
	}
	if err != nil {
		return nil, err
	}
	roots := admission.Peers.Trust.Roots
	if len(roots) == 0 {
		roots = trusted.Root().CertPEM()
	}
	return n.install(ca.Keys{
		CertPEM: admission.Certificate, KeyPEM: keyPEM, RootPEM: roots,
		DataKeys: [][32]byte{seal.NewKey(n.cfg.Random)},
		Lock:     admission.UnlockKey, LockVersion: admission.UnlockVersion,
	}, record{Addresses: addrs, Peers: admission.Peers, Lineage: admission.Lineage}, nil)
}

// answer has this node found at the control port it will have if it is let in as a
// manager, and gives the address of that; "" with the reason when the port can't be had,
// which a worker doesn't need.
func (n *Node) answer(addrs addresses, keyPEM []byte) (control string, stop func() error, err error) {
	nothing := func() error { return nil }
	config, err := ca.AnswerTLS(n.cfg.Random, keyPEM, n.cfg.Now, cluster.ProtocolHTTP)
	if err != nil {
		return "", nothing, err
	}
	answering, err := manager.ListenForLeader(n.cfg.Network, addrs.Listen, config)
	if err != nil {
		return "", nothing, err
	}
	return addrs.Control, answering.Close, nil
}

// install writes a new membership's files and loads it from them, as a restart
// will. The key file goes last, since it means that all is there; before it, more
// may lay down what else belongs to the membership.
func (n *Node) install(keys ca.Keys, known record, more func() error) (*member, error) {
	if err := errors.Join(n.files.begin(), n.files.clear()); err != nil {
		return nil, err
	}
	id, err := keys.Identity()
	if err != nil {
		return nil, err
	}
	ring := dataRing(keys.DataKeys)
	if err := known.write(n.sealedFile(n.files.known(), ring, id.ClusterID, recordKind)); err != nil {
		return nil, err
	}
	if more != nil {
		if err := more(); err != nil {
			return nil, err
		}
	}
	if err := (ca.KeyFile{Path: n.files.keys()}).Save(keys); err != nil {
		return nil, err
	}
	if err := n.files.finish(); err != nil {
		return nil, err
	}
	return n.load(keys.Lock)
}

// Attach asks the leader for a container's place in a network.
func (n *Node) Attach(ctx context.Context, request cluster.AttachRequest) (*cluster.Attached, error) {
	member := n.current()
	if member == nil {
		return nil, cluster.Errorf(cluster.ErrUnavailable, "This node is not part of a swarm")
	}
	return member.control().Attach(ctx, request)
}

// Detach tells the leader that containers are gone, or have left their networks.
func (n *Node) Detach(ctx context.Context, ids []string) error {
	member := n.current()
	if member == nil {
		return cluster.Errorf(cluster.ErrUnavailable, "This node is not part of a swarm")
	}
	return member.control().Detach(ctx, ids)
}

// Leave ends the membership and removes the node's files.
func (n *Node) Leave(ctx context.Context, force bool) error {
	done, err := n.beginOperation(ctx)
	if err != nil {
		return err
	}
	defer done()
	if id := n.locked(); id != nil {
		return n.leaveLocked(ctx, *id, force)
	}
	member := n.current()
	if member == nil {
		return cluster.Errorf(cluster.ErrUnavailable, "This node is not part of a swarm")
	}
	// A manager that is starting, or waits for its database, is one, too; one that was
	// removed is none any more.
	worker := member.credentials.Identity().Role != swarm.NodeRoleManager || member.gone() != nil
	if !worker && !force {
		return cluster.Errorf(cluster.ErrUnavailable, "You are attempting to leave the swarm on a node that is participating as a manager. "+
			"Demote it first, or use `--force` to suppress this message; the last manager takes the swarm's data with it")
	}
	// A manager that is forced out may be the last; nobody else could be told.
	var asker manager.ControlClient
	if worker {
		asker = member.control()
	}
	member.stop()
	if worker {
		telling, cancel := context.WithTimeout(ctx, leaveLimit)
		defer cancel()
		if err := asker.Leave(telling); err != nil {
			n.log.Warn("tell the managers that this node leaves", "err", err)
		}
	}
	clearing, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearLimit)
	defer cancel()
	if err := n.clear(clearing, member.credentials.Identity()); err != nil {
		n.log.Warn("remove this node's containers", "err", err)
	}
	return n.end(member)
}

// leaveLocked is the way out for one whose unlock key is lost.
func (n *Node) leaveLocked(ctx context.Context, id cluster.Identity, force bool) error {
	if !force {
		return cluster.Errorf(cluster.ErrUnavailable, "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message.")
	}
	clearing, cancel := context.WithTimeout(context.WithoutCancel(ctx), clearLimit)
	defer cancel()
	if err := n.clear(clearing, id); err != nil {
		n.log.Warn("remove this node's containers", "err", err)
	}
	if err := n.files.wipe(); err != nil {
		return err
	}
	n.setLocked(nil)
	return nil
}

// clear stops and removes all containers of a node that leaves, then, if it is the last one on its engine,
// what all of them have in common. What containers see of secrets goes in any case, also when the engine doesn't
// answer: nobody will look after it any more. So do networks.
func (n *Node) clear(ctx context.Context, id cluster.Identity) (err error) {
	nodeID := id.NodeID
	defer func() {
		err = errors.Join(err, n.cfg.Driver.Forget(nodeID))
		clear := func() error { return n.clearNetworks(ctx, id) }
		if engine, ok := n.cfg.Driver.(sharedEngine); ok {
			err = errors.Join(err, engine.Unshare(id.ClusterID, clear))
		} else {
			err = errors.Join(err, clear())
		}
	}()
	containers, err := n.cfg.Driver.List(ctx, nodeID)
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(8)
	for _, container := range containers {
		g.Go(func() error {
			if _, err := n.cfg.Driver.Stop(ctx, container.TaskID, cluster.DefaultStopGrace); err != nil && !errors.Is(err, cluster.ErrNotFound) {
				n.log.Debug("stop a container of a leaving node", "task", container.TaskID, "err", err)
			}
			return n.cfg.Driver.Remove(ctx, container.TaskID)
		})
	}
	return g.Wait()
}

// clearNetworks removes the engine's networks, then what they consist of; unless containers of another node are on
// them, which was killed and will be back.
func (n *Node) clearNetworks(ctx context.Context, id cluster.Identity) error {
	shared, err := n.cfg.Driver.ClearNetworks(ctx, id.NodeID)
	if shared || n.cfg.Plane == nil {
		return err
	}
	err = errors.Join(err, network.Clear(ctx, n.cfg.Plane, id.ClusterID))
	if n.cfg.Names != nil {
		err = errors.Join(err, n.cfg.Names(id.ClusterID, nil))
	}
	if n.cfg.EndHelpers != nil {
		err = errors.Join(err, n.cfg.EndHelpers(id.ClusterID))
	}
	return err
}

// sharedEngine is a driver whose engine several nodes may have, and so networks in common.
type sharedEngine interface {
	// Share notes that this node uses them, until Unshare or the process's end.
	Share(ctx context.Context, clusterID string) error
	// Unshare ends that, and runs clear if no other node uses them.
	Unshare(clusterID string, clear func() error) error
}

// share notes that this node uses what nodes on its engine have in common.
func (n *Node) share(ctx context.Context, clusterID string) {
	if engine, ok := n.cfg.Driver.(sharedEngine); ok {
		if err := engine.Share(ctx, clusterID); err != nil {
			n.log.Warn("other nodes on the engine may take this one for gone when they leave", "err", err)
		}
	}
}

// unshare ends that when there is nothing to clear.
func (n *Node) unshare(clusterID string) {
	if engine, ok := n.cfg.Driver.(sharedEngine); ok {
		_ = engine.Unshare(clusterID, func() error { return nil })
	}
}

// clearLimit bounds the removal of a leaving node's containers.
const clearLimit = 30 * time.Second
