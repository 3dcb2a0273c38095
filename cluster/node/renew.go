package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/ca"
)

const (
	// renewLook is how often the clock is looked at: no timer sees the time in which the
	// machine was suspended, nor a clock that is set.
	renewLook = time.Minute
	// renewFirst to renewLast are the pauses after an attempt that failed, doubling;
	// renewUrgent is the longest one when the certificate has ended or the role has changed.
	renewFirst, renewLast = time.Second, time.Hour
	renewUrgent           = 5 * time.Second
	// renewPatience is how long it may fail, or a certificate that has ended may stay,
	// before that is said: nodes that were off together need a moment.
	renewPatience = 20 * time.Second
)

// renew replaces the certificate in good time, and at once when the cluster gives
// the node another role.
func (m *member) renew(ctx context.Context) error {
	at := ca.RenewAt(m.credentials.Leaf(), m.node.cfg.Random)
	retry, again := renewFirst, time.Time{} // again is when to try again after one that failed
	invalid := cluster.Complaint{Log: m.node.log, Level: slog.LevelError, Patience: renewPatience, Now: m.node.cfg.Now}
	failing := cluster.Complaint{Log: m.node.log, Patience: renewPatience, Now: m.node.cfg.Now}
	var refused time.Time // when a refusal last made it ask
	for {
		peers, now := m.currentRecord().Peers, m.node.cfg.Now()
		role := peers.Role
		invalid.About(m.credentials.Trouble(), "this node can't prove who it is", "this node can prove again who it is")
		if err := m.trust(peers.Trust); err != nil {
			m.node.log.Error("trust the cluster's root CA; trying again", "err", err)
			// A certificate that the new roots don't know is replaced together with them.
			if m.credentials.IssuedBy(peers.Trust.Issuer) {
				if !cluster.Sleep(ctx, time.Second) {
					return ctx.Err()
				}
				continue
			}
		}
		if within := peers.Trust.Within; len(peers.Trust.Issuer) > 0 && !m.credentials.IssuedBy(peers.Trust.Issuer) {
			// All nodes are to have another issuer: each asks at a moment of its own.
			if at.Sub(now) > within {
				at = now.Add(ca.Part(within, m.node.cfg.Random))
			}
		}
		if m.gone() != nil {
			if !cluster.Sleep(ctx, removedEvery) {
				return ctx.Err()
			}
			if err := m.renewOnce(ctx); err != nil {
				m.node.log.Debug("ask whether this node is part of the cluster again", "err", err)
			}
			continue
		}
		due := max(at.Sub(now), again.Sub(now))
		if now.After(m.credentials.Leaf().NotAfter) || role != m.credentials.Identity().Role {
			due = min(again.Sub(now), renewUrgent)
		}
		if due > 0 {
			timer := time.NewTimer(min(due, renewLook))
			select {
			case <-ctx.Done():
				timer.Stop()
				return ctx.Err()
			case <-timer.C:
			case <-m.wake:
			case <-m.refused:
				if now := m.node.cfg.Now(); now.Sub(refused) >= refusedEvery {
					refused = now
					if err := m.renewOnce(ctx); err != nil {
						m.node.log.Debug("ask whether this node is part of the cluster", "err", err)
					}
				}
			}
			timer.Stop()
			continue
		}
		if err := m.renewOnce(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			m.setUnrenewed(err)
			wait := retry/2 + ca.Part(retry, m.node.cfg.Random)
			again = m.node.cfg.Now().Add(wait)
			failing.About(err, "this node's certificate can't be renewed; trying again", "")
			m.node.log.Debug("renew certificate; trying again", "err", err, "wait", wait)
			retry = min(2*retry, renewLast)
			continue
		}
		m.setUnrenewed(nil)
		failing.Forget()
		m.node.log.Info("this node has a new certificate", "role", m.credentials.Identity().Role, "until", m.credentials.Leaf().NotAfter)
		at, retry, again = ca.RenewAt(m.credentials.Leaf(), m.node.cfg.Random), renewFirst, time.Time{}
		if m.credentials.Identity().Role != role && !cluster.Sleep(ctx, 100*time.Millisecond) {
			return ctx.Err() // asked before the store said so
		}
	}
}

func (m *member) setUnrenewed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unrenewed = err
}

// trouble says what is wrong with the node's certificate, and why it wasn't replaced.
func (m *member) trouble() error {
	trouble := m.credentials.Trouble()
	m.mu.Lock()
	defer m.mu.Unlock()
	var refused *net.OpError
	if trouble != nil && errors.As(m.unrenewed, &refused) && refused.Op == "remote error" {
		return fmt.Errorf("%w; the managers refuse it (%w): the node was removed while it was off, or its key file is an older one: "+
			"leave with \"swarm leave --force\" and join again", trouble, m.unrenewed)
	}
	if trouble != nil && m.unrenewed != nil {
		return fmt.Errorf("%w; asking for another one: %w", trouble, m.unrenewed)
	}
	return trouble
}

// knownManager is who counts as a manager though the certificate has ended: see ca.Known.
func (m *member) knownManager(id cluster.Identity, key cluster.KeyDigest) error {
	if id == m.credentials.Identity() && key == m.credentials.Key() {
		return nil
	}
	return ca.ManagerIn(m.currentRecord().Peers.Managers)(id, key)
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
	admission, err := m.control().Renew(ctx, csr)
	if err == nil || errors.Is(err, cluster.ErrRemoved) {
		m.setGone(err)
	}
	if err != nil {
		return err
	}
	m.takeManagers(admission.Peers)
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
	if admission.Role == swarm.NodeRoleManager && !m.currentRecord().Database {
		m.keep(func(r *record) { r.Lineage = admission.Lineage })
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
	m.adoptKeys(keys)
	cluster.Notify(m.certified)
	m.agent.Describe()
	return nil
}

// removedEvery is how often a node that was removed asks whether it is a member again, as
// after a restore of a backup.
const removedEvery = time.Minute

// refusedEvery is how often a refusal of the agent makes the node ask the leader.
const refusedEvery = 30 * time.Second

// setGone notes that this node was removed from the cluster, or with nil that it wasn't.
func (m *member) setGone(err error) {
	if err != nil {
		err = fmt.Errorf("%w: \"docker swarm leave\" clears what is left of it here; join it again if it is to be a member", cluster.ErrRemoved)
	}
	m.mu.Lock()
	changed := (m.removed == nil) != (err == nil)
	m.removed = err
	m.mu.Unlock()
	if !changed {
		return
	}
	if err != nil {
		m.node.log.Error("stop being a member of the cluster", "node", m.credentials.Identity().NodeID, "err", err)
	}
	cluster.Notify(m.certified)
	cluster.Notify(m.wake)
}

// gone is why this node isn't part of the cluster any more; nil while it is.
func (m *member) gone() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.removed
}

// takeManagers notes who the managers are, as the leader said in an answer, until a session
// says it: what comes by those is in order, and an answer may come late.
func (m *member) takeManagers(peers cluster.Peers) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told = peers.Managers
}

// managers are those that this node was last told of, in sessions and since.
func (m *member) managers() []cluster.Peer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append(slices.Clone(m.record.Peers.Managers), m.told...)
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
	m.adoptKeys(keys)
	m.agent.Describe()
	return nil
}
