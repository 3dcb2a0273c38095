package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// A manager whose database is damaged may have promised what it doesn't know any more,
// so it never votes on what is left. It has the others take its vote away first; then it
// begins anew, as one that was just promoted. Each step may be repeated. The same goes for a
// database of another lineage, as of a manager that was lost when another one went on alone:
// nothing that the leader sends could make a copy of the leader's of it.

// repairLimit bounds one attempt to have the vote taken away, repairEvery is the pause
// until the next one.
const (
	repairLimit = 15 * time.Second
	repairEvery = 2 * time.Second
)

// repair removes this manager's database, which is damaged or of another lineage, once it
// has no vote.
func (m *member) repair(ctx context.Context, damage error) error {
	log := m.node.log.With("node", m.credentials.Identity().NodeID)
	switch known := m.currentRecord(); {
	case known.Alone:
		return fmt.Errorf("go on alone: %w; give the order to a manager whose database is whole", damage)
	case len(m.control().Managers) == 0:
		return fmt.Errorf("start manager: %w; no other manager has a copy: %s, and restore a backup with \"skep cluster restore\"",
			damage, m.node.startOver())
	}
	log.Error("this manager's database can't be used; it will be replaced by a copy of the other managers'", "err", damage)
	m.setDamage(fmt.Errorf("%w; waiting for the other managers to replace it", damage))
	defer m.setDamage(nil)
	lineage := ""
	for {
		if m.credentials.Identity().Role != swarm.NodeRoleManager {
			return nil // The caller removes the database, as any former manager's.
		}
		asking, cancel := context.WithTimeout(ctx, repairLimit)
		var err error
		lineage, err = m.control().Lost(asking)
		cancel()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		log.Warn("replace this manager's database: waiting for a leader to take its vote away", "err", err)
		if errors.Is(err, cluster.ErrDenied) {
			if err := m.renewOnce(ctx); err != nil {
				log.Warn("ask for this node's role", "err", err)
			}
		}
		if !cluster.Sleep(ctx, repairEvery) {
			return ctx.Err()
		}
	}
	if err := m.dropDatabase(); err != nil {
		return err
	}
	log.Info("removed the database; the other managers will send theirs")
	return m.change(func(r *record) { r.Lineage = lineage })
}

// dropDatabase removes the database, and then notes that there is none.
func (m *member) dropDatabase() error {
	if err := os.RemoveAll(m.node.files.raft()); err != nil {
		return fmt.Errorf("remove the database: %w", err)
	}
	if err := cluster.SyncDir(m.node.files.dir); err != nil {
		return fmt.Errorf("remove the database: sync %s: %w", m.node.files.dir, err)
	}
	if known := m.currentRecord(); !known.Database && known.Kept.Level == 0 {
		return nil
	}
	if err := m.change(func(r *record) { r.Database, r.Kept = false, kept{} }); err != nil {
		return err
	}
	return m.node.files.removeKept("")
}

// setDamage says why the node can't be a manager at the moment.
func (m *member) setDamage(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.damage = err
}

// damaged is what setDamage said.
func (m *member) damaged() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.damage
}

// startOver says how to get rid of files that can't be read.
func (n *Node) startOver() string {
	return fmt.Sprintf("stop the daemon, move %s away, start it again", n.files.dir)
}
