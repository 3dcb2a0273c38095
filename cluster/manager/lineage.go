package manager

import (
	"fmt"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/store"
)

// beginLineage makes a database the first of a lineage, with first as the only manager. The
// managers of the time become workers: should one of them still be there, it has a
// certificate and may come back as that.
func beginLineage(database *store.Restored, lineage string, first *cluster.Node, now time.Time) error {
	return database.Edit(now, func(tx *store.Tx) error {
		record := *tx.Cluster()
		record.Lineage = lineage
		record.Tokens = nil // How often they were used since isn't known here.
		changed := []*cluster.Node{first}
		for node := range tx.Nodes() {
			if node.ID == first.ID || node.Role != swarm.NodeRoleManager && node.Spec.Role != swarm.NodeRoleManager {
				continue
			}
			next := *node
			next.Role, next.Spec.Role, next.ManagerAddr = swarm.NodeRoleWorker, swarm.NodeRoleWorker, ""
			changed = append(changed, &next)
		}
		for _, node := range changed {
			if err := tx.Put(node); err != nil {
				return err
			}
		}
		return tx.Put(&record)
	})
}

// goOnAlone makes of this manager's copy of the database, with all that is in its log,
// committed or not, the beginning of a lineage of which it is the only manager. Done twice,
// it begins the lineage twice, the second time with the outcome of the first.
func (m *Manager) goOnAlone(config *raft.Config, alone raft.Configuration) error {
	was, err := resetTerm(m.disk.Log, m.disk.Stable, m.disk.Snapshots)
	if err != nil {
		return err
	}
	if was != 0 {
		m.log.Warn("take an absurd term back", "node", m.cfg.NodeID, "term", was)
	}
	// It plays the log into a store of its own, and leaves a snapshot of that and no log.
	scratch := store.New(store.Config{Now: m.cfg.Now, Log: m.log, Build: m.cfg.Build, Fatal: m.cfg.Fatal})
	if err := raft.RecoverCluster(config, scratch.FSM(), m.disk.Log, m.disk.Stable, m.disk.Snapshots, m.transport, alone); err != nil {
		return err
	}
	term, err := lastTerm(m.disk.Log, m.disk.Snapshots)
	if err != nil {
		return err
	}
	self := scratch.View().Node(m.cfg.NodeID)
	if self == nil || scratch.View().Cluster() == nil {
		return cluster.Errorf(cluster.ErrUnavailable, "this manager has no copy of the database yet; do it on another one")
	}
	first, database := *self, scratch.View().Copy()
	first.Role, first.Spec.Role, first.ManagerAddr = swarm.NodeRoleManager, swarm.NodeRoleManager, m.cfg.Addr
	if err := beginLineage(database, m.cfg.NewLineage, &first, m.cfg.Now()); err != nil {
		return fmt.Errorf("begin lineage: %w", err)
	}
	return database.Install(m.disk, alone.Servers[0], term)
}
