package node

import (
	"bytes"
	"context"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/ca"
)

// renew replaces the certificate in good time, and at once when the cluster gives
// the node another role.
func (m *member) renew(ctx context.Context) error {
	at := ca.RenewAt(m.credentials.Leaf(), m.node.cfg.Random)
	retry := time.Second
	for {
		peers := m.known().Peers
		role := peers.Role
		if err := m.trust(peers.Trust); err != nil {
			m.node.log.Error("trust the cluster's root CA; trying again", "err", err)
			// A certificate that the new roots don't know is replaced together with them.
			if m.credentials.IssuedBy(peers.Trust.Issuer) {
				if !sleep(ctx, time.Second) {
					return ctx.Err()
				}
				continue
			}
		}
		if within := peers.Trust.Within; len(peers.Trust.Issuer) > 0 && !m.credentials.IssuedBy(peers.Trust.Issuer) {
			// All nodes are to have another issuer: each asks at a moment of its own.
			if now := m.node.cfg.Now(); at.Sub(now) > within {
				at = now.Add(ca.Part(within, m.node.cfg.Random))
			}
		}
		due := at.Sub(m.node.cfg.Now())
		if due > 0 && role == m.credentials.Identity().Role {
			timer := time.NewTimer(due)
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-timer.C:
			case <-m.wake:
			}
			timer.Stop()
			continue
		}
		if err := m.renewOnce(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			m.node.log.Warn("renew certificate; trying again", "err", err, "wait", retry)
			if !sleep(ctx, retry/2+ca.Part(retry, m.node.cfg.Random)) {
				return ctx.Err()
			}
			retry = min(2*retry, time.Hour)
			continue
		}
		at, retry = ca.RenewAt(m.credentials.Leaf(), m.node.cfg.Random), time.Second
		if m.credentials.Identity().Role != role && !sleep(ctx, 100*time.Millisecond) {
			return ctx.Err() // asked before the store said so
		}
	}
}

// renewLimit bounds one attempt at a new certificate.
const renewLimit = 15 * time.Second

func (m *member) renewOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewLimit)
	defer cancel()
	select {
	case m.asking <- struct{}{}:
		defer func() { <-m.asking }()
	case <-ctx.Done():
		return ctx.Err()
	}
	keyPEM, csr, err := ca.NewRequest(m.node.cfg.Random)
	if err != nil {
		return err
	}
	admission, err := m.asker().Renew(ctx, csr)
	if err != nil {
		return err
	}
	m.renewing.Lock()
	defer m.renewing.Unlock()
	keys := m.keys
	keys.CertPEM, keys.KeyPEM = admission.Certificate, keyPEM
	if trust := admission.Peers.Trust; len(trust.Roots) > 0 {
		m.keep(func(r *record) {
			if r.Peers.Trust.Version <= trust.Version {
				r.Peers.Trust = trust
			}
		})
		keys.RootPEM = trust.Roots
	}
	// A new manager is locked from its first moment, a former one opened: workers
	// start by themselves.
	keys, _ = keys.WithLock(admission.UnlockKey, admission.UnlockVersion, m.newDataKey)
	if admission.Role != swarm.NodeRoleManager {
		keys.Lock, keys.LockVersion = cluster.UnlockKey{}, 0
	}
	if err := (ca.KeyFile{Path: m.node.files.keys()}).Save(keys); err != nil {
		return err
	}
	if err := m.credentials.Take(keys); err != nil {
		return err
	}
	m.took(keys)
	signal(m.certified)
	m.agent.Describe()
	return nil
}

// trust takes in which roots the cluster has, before any certificate by them.
func (m *member) trust(trust cluster.Trust) error {
	m.renewing.Lock()
	defer m.renewing.Unlock()
	if len(trust.Roots) == 0 || bytes.Equal(trust.Roots, m.keys.RootPEM) {
		return nil
	}
	keys := m.keys
	keys.RootPEM = trust.Roots
	if err := (ca.KeyFile{Path: m.node.files.keys()}).Save(keys); err != nil {
		return err
	}
	if err := m.credentials.Take(keys); err != nil {
		return err
	}
	m.took(keys)
	m.agent.Describe()
	return nil
}
