package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/manager"
)

// A machine may have another address than when its node last ran, or get one while the
// node runs: by DHCP, by being moved. What a node listens at and advertises is settled
// anew at each start, and looked at again now and then; the same function decides both
// times, so that nothing happens as long as nothing changed.

// surroundings are what a node's addresses are settled by.
type surroundings struct {
	flags addressFlags
	local interfaces
	// towards is the machine's own address by which it reaches others; nil when it
	// reaches nobody.
	towards func() net.IP
	// patient waits for the interface that the address was on to get another.
	patient bool
}

// settleAgain settles a node's addresses anew. A flag of the command line that says something
// new is obeyed; else what still is the machine's own stays, as does the address of a
// NAT, and what isn't is replaced. The ports stay.
func (a addresses) settleAgain(now surroundings) (addresses, error) {
	listen, advertise := a.Listen, a.Control
	bind, listenPort, err := net.SplitHostPort(a.Listen)
	if err != nil {
		return a, fmt.Errorf("read the listen address of before: %w", err)
	}
	if ip := net.ParseIP(bind); bind == a.IP || !ip.IsUnspecified() && !now.local.has(ip) {
		listen = ":" + listenPort // as what is advertised, if that is the machine's own
	}
	newFlags := now.flags != a.Flags
	if newFlags && now.flags.Listen != "" {
		listen = now.flags.Listen
	}
	switch {
	case newFlags && now.flags.Advertise != "":
		advertise = now.flags.Advertise
	case a.Own && !now.local.has(net.ParseIP(a.IP)):
		_, port, err := net.SplitHostPort(a.Control)
		if err != nil {
			return a, fmt.Errorf("read the address advertised before: %w", err)
		}
		ip, err := a.pickOther(now)
		if err != nil {
			return a, err
		}
		advertise = net.JoinHostPort(ip.String(), port)
	}
	next, err := resolve(listen, advertise, now.local)
	if err != nil {
		return next, err
	}
	next.Flags = now.flags
	if newFlags && now.flags.Data != "" {
		return next.resolveData(now.flags.Data, now.local)
	}
	settled, err := next.resolveData(a.DataGiven, now.local)
	if err != nil {
		// Its interface may get an address again; until then it calls itself as before.
		next.Data, next.DataGiven = a.Data, a.DataGiven
		return next, nil
	}
	return settled, nil
}

// pickOther picks the machine's address to advertise after the one of before is gone: the
// one that its interface has now, or else the one by which others are reached, or the
// only one there is.
func (a addresses) pickOther(now surroundings) (net.IP, error) {
	if iface := now.local.outward().named(a.Interface); iface != nil {
		switch ips := usable(iface.ips()); {
		case len(ips) == 1:
			return ips[0], nil
		case len(ips) == 0 && now.patient:
			return nil, cluster.Errorf(cluster.ErrUnavailable, "the address %s isn't this machine's any more, and its interface %s has no other yet", a.IP, a.Interface)
		}
	}
	if ip := now.towards(); ip != nil {
		return ip, nil
	}
	ip, err := onlyIP(now.local)
	if err != nil {
		return nil, fmt.Errorf("the address %s isn't this machine's any more: %w; start the daemon with --advertise-addr", a.IP, err)
	}
	return ip, nil
}

// everywhere is what a node does that has no address: it listens at whatever it may get,
// and goes on to call itself as before.
func (a addresses) everywhere() addresses {
	_, port, err := net.SplitHostPort(a.Listen)
	if err != nil {
		return a
	}
	a.Listen, a.Bind = net.JoinHostPort(net.IPv4zero.String(), port), net.IPv4zero.String()
	return a
}

const (
	// addressRetry is how often a node that has no address to start with looks again, and
	// addressPatience how long it does nothing else: at boot, others may come up later.
	addressRetry    = time.Second
	addressPatience = 10 * time.Second
	// addressLook is how often a node that runs looks whether its addresses are still its
	// own. It moves when it sees the same twice, and to another interface after a minute:
	// a cable that was pulled may be back soon.
	addressLook  = 5 * time.Second
	addressLooks = 12
)

// resolve settles the addresses of a node that is to become a member, by its order and,
// where that says nothing, by the command line.
func (n *Node) resolve(ctx context.Context, asked addressFlags) (addresses, error) {
	flags, listen := n.flags(), asked.Listen
	if listen == "" || listen == net.JoinHostPort(net.IPv4zero.String(), strconv.Itoa(controlPort)) {
		listen = flags.Listen // Docker's clients always say the other.
	}
	local, err := n.cfg.Interfaces()
	if err != nil {
		return addresses{}, err
	}
	local = n.markEngines(ctx, local)
	addrs, err := resolve(listen, cmp.Or(asked.Advertise, flags.Advertise), local)
	if err != nil {
		return addresses{}, err
	}
	addrs.Flags = flags
	return addrs.resolveData(cmp.Or(asked.Data, flags.Data), local)
}

func (n *Node) flags() addressFlags {
	return addressFlags{Listen: n.cfg.ListenAddr, Advertise: n.cfg.AdvertiseAddr, Data: n.cfg.DataPathAddr}
}

// markEngines asks the engine which interfaces are its own, whatever their names.
func (n *Node) markEngines(ctx context.Context, local interfaces) interfaces {
	bridges, err := n.api.EngineBridges(ctx)
	if err != nil {
		n.log.Debug("ask the engine for its networks", "err", err) // Most are known by their names.
	}
	return local.engines(bridges)
}

// again settles the addresses of a member anew.
func (m *member) again(ctx context.Context, patient bool) (addresses, error) {
	listed, err := m.node.cfg.Interfaces()
	if err != nil {
		return addresses{}, err
	}
	known, local := m.currentRecord(), interfaces(listed)
	if known.Addresses.Own && !local.has(net.ParseIP(known.Addresses.IP)) {
		local = m.node.markEngines(ctx, local)
	}
	return known.Addresses.settleAgain(surroundings{
		flags: m.node.flags(), local: local, patient: patient,
		towards: func() net.IP { return m.towards(ctx, known, local) },
	})
}

// anywhere is an address that is nobody's (RFC 5737): what would reach it goes the
// default way.
const anywhere = "192.0.2.1:2377"

// towards is the machine's address by which it reaches the managers, or else anybody.
func (m *member) towards(ctx context.Context, known record, local interfaces) net.IP {
	var targets []string
	for _, peer := range m.others(known) {
		targets = append(targets, peer.Addr)
	}
	for _, target := range append(targets, anywhere) {
		text, err := m.node.cfg.localIP(ctx, target)
		if err != nil {
			continue
		}
		if ip := net.ParseIP(text); ip != nil && local.outward().has(ip) && len(usable([]net.IP{ip})) > 0 {
			return ip
		}
	}
	return nil
}

// takeAddresses settles where the node is before it begins. One that finds no address
// listens everywhere, and goes on to look for one.
func (m *member) takeAddresses(ctx context.Context) error {
	defer m.setAddressError(nil)
	for waited := time.Duration(0); ; waited += addressRetry {
		next, err := m.again(ctx, waited < addressPatience)
		if err != nil && waited >= addressPatience {
			m.node.log.Error("settle this node's address; it listens everywhere, and calls itself as before", "addr", m.currentRecord().Addresses.IP, "err", err)
			next, err = m.currentRecord().Addresses.everywhere(), nil
		}
		if err == nil {
			err = m.checkAlone(ctx, next)
		}
		if ctx.Err() != nil {
			return ctx.Err() // What stops begins nothing.
		}
		if err == nil {
			return m.setAddresses(next)
		}
		m.setAddressError(fmt.Errorf("settle this node's address: %w", err))
		if !cluster.Sleep(ctx, addressRetry) {
			return ctx.Err()
		}
	}
}

// checkAlone fails when another machine answers as this manager where it was: this one is a
// copy then, and two managers with one vote could elect two leaders.
func (m *member) checkAlone(ctx context.Context, next addresses) error {
	id, before := m.credentials.Identity(), m.currentRecord().Addresses.Control
	if next.Control == before || id.Role != swarm.NodeRoleManager {
		return nil
	}
	conn, err := manager.Dial(ctx, m.node.cfg.Network, before, m.credentials.ClientTLS(cluster.Identity{NodeID: id.NodeID, Role: id.Role}, cluster.ProtocolHTTP))
	if err != nil {
		return nil
	}
	conn.Close()
	return fmt.Errorf("another machine is node %s, at %s: this one is a copy of its disk: stop the daemon, remove its data directory, and join it anew", id.NodeID, before)
}

// setAddresses notes the node's addresses.
func (m *member) setAddresses(next addresses) error {
	before := m.currentRecord().Addresses
	if next == before {
		return nil
	}
	if next.Control != before.Control {
		m.node.log.Warn("this node's address changed", "node", m.credentials.Identity().NodeID, "from", before.Control, "to", next.Control)
	}
	if flag := next.Flags.Advertise; flag != "" && flag == before.Flags.Advertise && net.ParseIP(flag) != nil && flag != next.IP {
		m.node.log.Warn("--advertise-addr isn't this machine's address any more", "flag", flag, "advertised", next.IP)
	}
	return m.change(func(r *record) {
		r.Addresses = next
		if r.Fresh != nil {
			first := *r.Fresh.Node
			first.ManagerAddr, first.Status.Addr = next.Control, next.IP
			r.Fresh = &fresh{Cluster: r.Fresh.Cluster, Node: &first}
		}
	})
}

// bind tries to listen until it can, when the node was a member before it started: an
// address may be taken or not usable yet for a moment, and what goes through the daemon
// to the engine shouldn't end with it. One that is only about to be a member fails.
func (m *member) bind(ctx context.Context, listen func() error) error {
	complaint := ""
	for {
		err := listen()
		if err == nil || !m.isArrived() || !errors.Is(err, syscall.EADDRNOTAVAIL) && !errors.Is(err, syscall.EADDRINUSE) {
			if complaint != "" {
				m.setAddressError(nil)
			}
			return err
		}
		if text := err.Error(); text != complaint {
			complaint = text
			m.node.log.Error("listen for other nodes; trying again", "err", err)
		}
		m.setAddressError(fmt.Errorf("listen for other nodes: %w", err))
		if !cluster.Sleep(ctx, addressRetry) {
			return ctx.Err()
		}
	}
}

func (m *member) isArrived() bool {
	select {
	case <-m.ready:
		return true
	default:
		return false
	}
}

// setAddressError says what keeps the node from taking its place in the cluster.
func (m *member) setAddressError(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lack = err
}

// addressError is what setAddressError said.
func (m *member) addressError() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lack
}

// watchAddresses begins the membership anew when the machine's address changes, until
// ctx ends.
func (n *Node) watchAddresses(ctx context.Context) {
	var seen addresses
	complaint, looks := "", 0
	for cluster.Sleep(ctx, addressLook) {
		m := n.current()
		if m == nil || m.addressError() != nil {
			looks = 0
			continue
		}
		next, err := m.again(ctx, looks < addressLooks)
		if err != nil {
			looks++
			if text := err.Error(); text != complaint {
				complaint = text
				n.log.Error("settle this node's address; it goes on to call itself as before", "err", err)
			}
			continue
		}
		complaint = ""
		switch {
		case next == m.currentRecord().Addresses:
			seen, looks = addresses{}, 0
		case next != seen:
			seen = next
		default:
			if err := n.moveMember(ctx, m); err != nil && ctx.Err() == nil {
				n.log.Error("go on at another address", "err", err)
			}
			seen, looks = addresses{}, 0
		}
	}
}

// moveMember ends a membership in order and begins it anew, at the addresses of now.
func (n *Node) moveMember(ctx context.Context, m *member) error {
	done, err := n.beginOperation(ctx)
	if err != nil {
		return err
	}
	defer done()
	if n.current() != m {
		return nil // It left, or joined anew.
	}
	n.log.Warn("this machine's address changed: begin anew", "node", m.credentials.Identity().NodeID)
	m.stop()
	next, err := n.load(m.lock())
	if err != nil {
		select {
		case n.failed <- n.unreadable(err):
		default: // It ends already.
		}
		return err
	}
	next.markReady()
	n.begin(next)
	return nil
}

// onCopy takes in that managers call this machine a copy of the node's, or "" when they
// take it for the node's.
func (m *member) onCopy(reason string) {
	m.mu.Lock()
	before := m.copyOf
	m.copyOf = reason
	m.mu.Unlock()
	if reason != before {
		cluster.Notify(m.certified)
	}
	if reason != before && reason != "" {
		m.node.log.Error("this machine is a copy of another one", "reason", reason)
	}
}

// copied is what onCopy was told.
func (m *member) copied() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.copyOf
}
