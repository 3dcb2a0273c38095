package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/cluster/manager"
	"skep/store/seal"
)

// A manager whose key file is locked can't start after a restart: neither its
// certificate's key nor anything it keeps can be read. Until it is unlocked it is
// no member that runs; its containers go on, and the cluster sees it as down.

// errLocked is what a locked node says to everything but unlock.
var errLocked = cluster.Errorf(cluster.ErrLocked, "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.")

// locked tells who this node is while it is locked; nil when it isn't.
func (n *Node) locked() *cluster.Identity {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.lockedAs
}

func (n *Node) setLocked(id *cluster.Identity) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lockedAs = id
}

// unlockAlone is what a daemon does that finds itself locked: it takes the key
// from the file it was given, if any, or waits to be unlocked. A key that doesn't
// fit is no reason to end, since somebody may have the right one.
func (n *Node) unlockAlone(id cluster.Identity) (*member, error) {
	n.setLocked(&id)
	if n.cfg.UnlockKeyFile == "" {
		n.log.Warn("this manager is locked: unlock it with \"swarm unlock\"", "node", id.NodeID)
		return nil, nil
	}
	text, err := os.ReadFile(n.cfg.UnlockKeyFile)
	var key cluster.UnlockKey
	if err == nil {
		key, err = cluster.ParseUnlockKey(string(text))
	}
	var member *member
	if err == nil {
		member, err = n.load(key)
	}
	if errors.Is(err, cluster.ErrWrongKey) {
		err = fmt.Errorf("%w: the unlock key was rotated while this node was off, or since the file was written", err)
	}
	switch {
	case err == nil:
		n.setLocked(nil)
		return member, nil
	case member == nil && (errors.Is(err, cluster.ErrWrongKey) || errors.Is(err, cluster.ErrInvalid) || errors.Is(err, os.ErrNotExist)):
		n.log.Error("unlock this manager: use \"swarm unlock\"", "file", n.cfg.UnlockKeyFile, "err", err)
		return nil, nil
	}
	return nil, err
}

// Unlock starts a locked manager. It returns when the manager runs.
func (n *Node) Unlock(ctx context.Context, key cluster.UnlockKey) error {
	ctx, cancel := context.WithTimeout(ctx, orderLimit)
	defer cancel()
	done, err := n.beginOperation(ctx)
	if err != nil {
		return err
	}
	defer done()
	switch {
	case n.current() != nil:
		return cluster.Errorf(cluster.ErrNotLocked, "swarm is not locked")
	case n.locked() == nil:
		return cluster.Errorf(cluster.ErrUnavailable, "This node is not part of a swarm")
	}
	member, err := n.load(key)
	if errors.Is(err, cluster.ErrWrongKey) {
		return cluster.Errorf(cluster.ErrWrongKey, "swarm could not be unlocked: invalid key provided")
	}
	if err != nil {
		return fmt.Errorf("unlock: %w", err)
	}
	n.setLocked(nil)
	// As after a restart: whatever keeps it from going on ends the daemon.
	member.markReady()
	n.begin(member)
	n.log.Info("unlocked", "node", member.credentials.Identity().NodeID)
	select {
	case <-member.managerStarted:
	case <-member.done:
	case <-ctx.Done():
	}
	return nil
}

// newDataKey makes a key for what is written to the disk.
func (m *member) newDataKey() [32]byte { return seal.NewKey(m.node.cfg.Random) }

// lock is what the key file is encrypted under now.
func (m *member) lock() cluster.UnlockKey {
	m.renewing.Lock()
	defer m.renewing.Unlock()
	return m.keys.Lock
}

// adoptKeys makes keys, which are in the file, the ones in use. The caller holds
// renewing.
func (m *member) adoptKeys(keys ca.Keys) {
	if keys.DataKeys[0] != m.keys.DataKeys[0] {
		m.ring.Rotate(seal.Key(keys.DataKeys[0]))
	}
	m.keys = keys
}

// lockKeys keeps the key file encrypted as this manager's copy of the database
// says, for as long as it is a manager; and drops data keys of before once nothing
// is under them any more.
func (m *member) lockKeys(ctx context.Context, running *manager.Manager) error {
	changes := running.Store().Subscribe()
	defer changes.Close()
	for {
		c := running.Store().View().Cluster()
		var err error
		if c != nil {
			err = m.lockOnce(c)
		}
		if err != nil {
			m.node.log.Error("encrypt this manager's keys anew; trying again", "err", err)
		} else if c != nil && m.oldKeys() {
			if err = m.dropOldKeys(ctx, running); err != nil {
				m.node.log.Info("bring all under the new data key; trying again", "err", err)
			}
		}
		if err != nil {
			if !cluster.Sleep(ctx, time.Second) {
				return nil
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changes.Ready():
			changes.Take()
		}
	}
}

func (m *member) lockOnce(c *cluster.Cluster) error {
	m.renewing.Lock()
	defer m.renewing.Unlock()
	if m.credentials.Identity().Role != swarm.NodeRoleManager {
		return nil
	}
	keys, changed := m.keys.WithLock(c.UnlockKey, c.Version, m.newDataKey)
	if !changed {
		return nil
	}
	if err := (ca.KeyFile{Path: m.node.files.keys()}).Save(keys); err != nil {
		return err
	}
	m.adoptKeys(keys)
	m.node.log.Info("encrypt this manager's keys anew", "locked", !keys.Lock.None())
	return nil
}

// oldKeys tells whether there are data keys of before.
func (m *member) oldKeys() bool {
	m.renewing.Lock()
	defer m.renewing.Unlock()
	return len(m.keys.DataKeys) > 1
}

// dropOldKeys brings all that lies on this node's disk under the present data key,
// and then drops the others: from the file first, which a crash leaves as it was or as
// it is to be.
func (m *member) dropOldKeys(ctx context.Context, running *manager.Manager) error {
	m.renewing.Lock()
	present := m.keys.DataKeys[0]
	m.renewing.Unlock()
	if err := running.Reencrypt(); err != nil {
		return err
	}
	if err := m.change(func(*record) {}); err != nil {
		return err
	}
	m.agent.Save()
	for tries := 0; ; tries++ {
		current, err := m.tasks.Current()
		if err != nil {
			return err
		}
		if current {
			break
		}
		if tries == saveTries || !cluster.Sleep(ctx, saveCheck) {
			return fmt.Errorf("bring the agent's record under the new key: %w", cluster.ErrUnavailable)
		}
	}
	m.renewing.Lock()
	defer m.renewing.Unlock()
	if m.keys.DataKeys[0] != present {
		return nil // It changed once more; then there is more to do.
	}
	keys := m.keys.WithoutOld()
	if err := (ca.KeyFile{Path: m.node.files.keys()}).Save(keys); err != nil {
		return err
	}
	m.keys = keys
	m.ring.Drop()
	m.node.log.Info("dropped the data keys of before: nothing is under them any more")
	return nil
}

// The agent writes its record a moment after it is asked to.
const (
	saveCheck = 100 * time.Millisecond
	saveTries = 50
)
