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
var errLocked = cluster.Say(cluster.ErrLocked, "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.")

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
	done, err := n.order(ctx)
	if err != nil {
		return err
	}
	defer done()
	switch {
	case n.current() != nil:
		return cluster.Say(cluster.ErrNotLocked, "swarm is not locked")
	case n.locked() == nil:
		return cluster.Say(cluster.ErrUnavailable, "This node is not part of a swarm")
	}
	member, err := n.load(key)
	if errors.Is(err, cluster.ErrWrongKey) {
		return cluster.Say(cluster.ErrWrongKey, "swarm could not be unlocked: invalid key provided")
	}
	if err != nil {
		return fmt.Errorf("unlock: %w", err)
	}
	n.setLocked(nil)
	// As after a restart: whatever keeps it from going on ends the daemon.
	member.arrive()
	n.begin(member)
	n.log.Info("unlocked", "node", member.credentials.Identity().NodeID)
	select {
	case <-member.opened:
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

// took makes keys, which are in the file, the ones in use. The caller holds
// renewing.
func (m *member) took(keys ca.Keys) {
	if keys.DataKeys[0] != m.keys.DataKeys[0] {
		m.ring.Rotate(seal.Key(keys.DataKeys[0]))
	}
	m.keys = keys
}

// lockKeys keeps the key file encrypted as this manager's copy of the database
// says, for as long as it is a manager.
func (m *member) lockKeys(ctx context.Context, running *manager.Manager) error {
	changes := running.Store().Subscribe()
	defer changes.Close()
	for {
		if c := running.Store().View().Cluster(); c != nil {
			if err := m.lockOnce(c); err != nil {
				m.node.log.Error("encrypt this manager's keys anew; trying again", "err", err)
				if !sleep(ctx, time.Second) {
					return nil
				}
				continue
			}
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
	m.took(keys)
	m.node.log.Info("encrypt this manager's keys anew", "locked", !keys.Lock.None())
	return nil
}
