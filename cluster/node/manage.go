package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"golang.org/x/sync/errgroup"

	"skep/cluster"
	"skep/cluster/manager"
)

// manage runs a manager for as long as the certificate says that the node is one.
func (m *member) manage(ctx context.Context) error {
	for {
		if m.gone() != nil || m.copied() != "" {
			// It asks nobody for votes, and keeps its copy of the database until it leaves.
			// Two machines with one vote could elect two leaders.
			select {
			case <-m.certified:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if m.credentials.Identity().Role != swarm.NodeRoleManager {
			// A worker keeps no copy of the database.
			if err := m.dropDatabase(); err != nil {
				return err
			}
			select {
			case <-m.certified:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := m.manageOnce(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// manageOnce is one term as a manager.
func (m *member) manageOnce(ctx context.Context) error {
	cfg, id, known := m.node.cfg, m.credentials.Identity(), m.currentRecord()
	config := manager.Config{
		NodeID: id.NodeID, ClusterID: id.ClusterID,
		Listen: known.Addresses.Listen, Addr: known.Addresses.Control,
		Build:       cfg.Build,
		Credentials: m.credentials, KnownManager: m.knownManager, Ring: m.ring, Dir: m.node.files.raft(), Write: cfg.Write,
		Network: known.Addresses.home(cfg.Network), Peers: m.managers, Members: m.gossip.Members, MembersChanged: m.seen, Doubt: m.gossip.Doubt, Unheard: m.gossip.Unheard, Twins: m.gossip.Twins, API: m.node.api.Remote(),
		Audit: m.node.api.Audit, WatchImages: m.node.api.WatchImages, ImageProblems: m.node.api.ImageProblems, Keep: m.keepDatabase, Kept: func() int { return m.currentRecord().Kept.Level },
		HeartbeatTimeout: m.node.timing.HeartbeatTimeout, SnapshotBytes: cfg.SnapshotBytes, SnapshotEntries: cfg.SnapshotEntries, GossipKeyPeriod: cfg.GossipKeyPeriod,
		Metrics: m.node.metrics, Trace: cfg.Trace, Now: cfg.Now, Random: cfg.Random, Log: cfg.Log, Fatal: cfg.Fatal,
	}
	if known.Fresh != nil {
		config.Bootstrap = &manager.Bootstrap{Cluster: known.Fresh.Cluster, Node: known.Fresh.Node, Ingress: known.Fresh.Ingress}
	}
	if known.Alone {
		config.NewLineage = known.Lineage
	}
	// A new cluster's first manager has promised nothing yet.
	config.Expected = known.Database && known.Fresh == nil
	if !known.Database {
		if err := m.change(func(r *record) { r.Database = true }); err != nil {
			return err
		}
	}
	var running *manager.Manager
	err := m.bind(ctx, func() (err error) {
		running, err = manager.Open(config)
		return err
	})
	if errors.Is(err, manager.ErrDamaged) {
		return m.repair(ctx, err)
	}
	if err != nil {
		return fmt.Errorf("start manager: %w", err)
	}
	err = m.runManager(ctx, running)
	if errors.Is(err, cluster.ErrLineage) {
		return m.repair(ctx, err)
	}
	return err
}

// runManager runs a manager until ctx ends, this node is to be none any more, or its database
// can't become a copy of the leader's (cluster.ErrLineage).
func (m *member) runManager(ctx context.Context, running *manager.Manager) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return running.Run(ctx) })
	m.setManager(running)
	defer m.setManager(nil)
	m.managerStartedOnce.Do(func() { close(m.managerStarted) })
	g.Go(func() error { return m.report(ctx, running) })
	g.Go(func() error { return m.recheckRole(ctx, running) })
	g.Go(func() error { return m.lockKeys(ctx, running) })
	g.Go(func() error {
		for m.credentials.Identity().Role == swarm.NodeRoleManager && m.gone() == nil && m.copied() == "" {
			select {
			case <-m.certified:
			case <-ctx.Done():
				return nil
			}
		}
		cancel()
		return nil
	})
	return g.Wait()
}

// setManager makes running this node's manager; nil when there is none.
func (m *member) setManager(running *manager.Manager) {
	m.manager.Store(running)
	m.node.announceManager()
}

// report makes the leader know where this manager listens, and finishes what a
// new manager has to do once there is a leader. It fails with cluster.ErrLineage only.
func (m *member) report(ctx context.Context, running *manager.Manager) error {
	known := m.currentRecord()
	defer m.setDamage(nil)
	failing := cluster.Complaint{Log: m.node.log, Patience: renewPatience, Now: m.node.cfg.Now}
	for {
		// The first manager of a new cluster is in the store from the beginning.
		if known.Fresh == nil {
			if err := m.tell(ctx, running, known.Addresses.Control); err != nil {
				if errors.Is(err, cluster.ErrDenied) {
					// It may have been demoted, or removed, while it was off.
					if err := m.renewOnce(ctx); err != nil {
						m.node.log.Debug("ask for this node's role", "err", err)
					}
				}
				if ctx.Err() != nil {
					return nil
				}
				if errors.Is(err, cluster.ErrLineage) {
					return err
				}
				failing.About(err, "the leader can't be told that this manager is ready; trying again", "")
				if errors.Is(err, cluster.ErrPrecondition) {
					m.setDamage(fmt.Errorf("this node is to be a manager, and waits: %w", err))
				}
				if !cluster.Sleep(ctx, time.Second) {
					return nil
				}
				continue
			}
		}
		m.setDamage(nil)
		if _, _, err := running.Leader(ctx); err != nil {
			return nil
		}
		m.keep(func(r *record) { r.Fresh, r.Alone = nil, false })
		m.markReady()
		m.preferLocalManager()
		return nil
	}
}

// tellLimit bounds one attempt to tell the leader where this manager is. It is short, since
// there may be no leader before the others know it.
const tellLimit = 5 * time.Second

// tell makes all managers know where this one is, and the leader write it down.
func (m *member) tell(ctx context.Context, running *manager.Manager, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	all := m.control()
	for _, peer := range running.Elsewhere() {
		if !slices.Contains(all.Managers, peer.Addr) {
			all.Managers = append(all.Managers, peer.Addr)
		}
	}
	go all.Here(ctx, addr)
	admission, err := all.Ready(ctx, addr, m.currentRecord().Lineage)
	if err == nil {
		m.takeManagers(admission.Peers)
	}
	return err
}

// doubtEvery is how often a manager that lost the others asks what it is.
const doubtEvery = 5 * time.Second

// recheckRole asks for this node's role, by renewing its certificate, whenever its
// manager is out of touch: one that was demoted isn't told by the log any more. One
// that was promoted again since must say anew where it listens.
func (m *member) recheckRole(ctx context.Context, running *manager.Manager) error {
	for {
		wait := time.Second
		if running.Isolated() {
			err := m.renewOnce(ctx)
			if err == nil && m.credentials.Identity().Role == swarm.NodeRoleManager {
				asking, cancel := context.WithTimeout(ctx, renewLimit)
				known := m.currentRecord()
				_, err = m.control().Ready(asking, known.Addresses.Control, known.Lineage)
				cancel()
			}
			if errors.Is(err, cluster.ErrLineage) {
				return err
			}
			if err != nil {
				m.node.log.Debug("ask for this node's role", "err", err)
			}
			wait = doubtEvery
		}
		if !cluster.Sleep(ctx, wait) {
			return nil
		}
	}
}
