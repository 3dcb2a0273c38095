package manager

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/store"
)

// NewRoot begins a change of the root CA: to the root given, with its key, PEM, or
// to a fresh one when there is none. Nothing is written.
func (m *Manager) NewRoot(c *cluster.Cluster, certPEM, keyPEM []byte) (*cluster.RootRotation, error) {
	if c.Rotation != nil {
		return nil, cluster.Errorf(cluster.ErrPrecondition, "rotate root CA: a rotation is under way; it ends when every node has its new certificate, so remove nodes that are gone for good (\"node rm --force\")")
	}
	now := m.cfg.Now()
	old, err := ca.ParseRoot(c.RootCert, c.RootKey)
	if err != nil {
		return nil, fmt.Errorf("read root CA: %w", err)
	}
	var next *ca.Root
	if len(certPEM) == 0 && len(keyPEM) == 0 {
		next, err = ca.NewRoot(m.cfg.Random, now, c.ID)
	} else if next, err = ca.GivenRoot(certPEM, keyPEM); err == nil {
		err = next.Successor(now)
	}
	if err != nil {
		return nil, fmt.Errorf("rotate root CA: %w", err)
	}
	cross, err := old.Cross(m.cfg.Random, next, now)
	if err != nil {
		return nil, fmt.Errorf("rotate root CA: %w", err)
	}
	rotation := &cluster.RootRotation{Cert: next.CertPEM(), Cross: cross}
	rotation.Key, err = next.KeyPEM()
	return rotation, err
}

// pendingNodes names a node whose certificate isn't by the new root yet, and tells
// how many there are.
func pendingNodes(view store.View, issuer []byte) (count int, name string) {
	for node := range view.Nodes() {
		if !bytes.Equal(node.Description.TLSInfo.CertIssuerPublicKey, issuer) {
			count, name = count+1, node.ID
		}
	}
	return count, name
}

// finishRoot ends the change of the root CA that is under way, if any, when all
// nodes have certificates by the new root. It reads all from the store, so that a
// new leader goes on with it.
func (m *Manager) finishRoot(ctx context.Context) error {
	return m.keepUp(ctx, "finish the rotation of the root CA; trying again", func() (time.Duration, error) { return 0, m.stepRoot(ctx) })
}

func (m *Manager) stepRoot(ctx context.Context) error {
	c := m.store.View().Cluster()
	if c == nil || c.Rotation == nil {
		return nil
	}
	root, err := ca.ParseRoot(c.Rotation.Cert, c.Rotation.Key)
	if err != nil {
		return fmt.Errorf("read the new root CA: %w", err)
	}
	issuer := root.TLSInfo().CertIssuerPublicKey
	if count, name := pendingNodes(m.store.View(), issuer); count > 0 {
		m.log.Debug("rotate root CA", "pending", count, "node", name)
		return nil
	}
	finished := false
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		old := tx.Cluster()
		if old.Rotation == nil || !bytes.Equal(old.Rotation.Cert, c.Rotation.Cert) {
			return nil
		}
		if count, _ := pendingNodes(tx.View, issuer); count > 0 {
			return nil
		}
		next := *old
		next.RootCert, next.RootKey, next.Rotation = old.Rotation.Cert, old.Rotation.Key, nil
		next.WorkerToken = cluster.NewJoinToken(root.Digest(), m.cfg.Random).String()
		next.ManagerToken = cluster.NewJoinToken(root.Digest(), m.cfg.Random).String()
		next.Tokens = nil // They have the old root's digest in them, and nobody knows their secrets.
		finished = true
		return tx.Put(&next)
	})
	if err != nil {
		return fmt.Errorf("write the new root CA: %w", err)
	}
	if finished {
		m.log.Info("the root CA was rotated", "node", m.cfg.NodeID)
	}
	return nil
}
