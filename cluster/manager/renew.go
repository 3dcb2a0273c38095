package manager

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"

	"skep/cluster"
	"skep/store"
)

// RenewRequest asks for a new certificate, for the role that the store says:
// POST /v1/renew, of the leader, with the present certificate, over a connection for
// nothing else (cluster.ProtocolRenew): the certificate may have ended.
type RenewRequest struct {
	CSR []byte `cbor:"1,keyasint"`
	// Build is which skep the node runs.
	Build cluster.Build `cbor:"2,keyasint,omitzero"`
}

// knownNode is who may renew a certificate that has ended: a node with its own key. The
// leader's word counts; a follower sends the caller to it.
func (m *Manager) knownNode(id cluster.Identity, key cluster.KeyDigest) error {
	if node := m.store.View().Node(id.NodeID); node == nil || !node.Certificate.Has(key) {
		return cluster.Errorf(cluster.ErrDenied, "no node is known here by that name with that key")
	}
	return nil
}

// renewing is a connection for renewing a certificate, which may have ended: so it counts
// as a caller's for that alone. Others find no verified certificate there, and refuse.
type renewing struct {
	*tls.Conn
	renewer
}

// renewer is who asks for a new certificate, and the key of the present one.
type renewer struct {
	id  cluster.Identity
	key cluster.KeyDigest
}

// ConnectionState says what net/http serves.
func (r *renewing) ConnectionState() tls.ConnectionState {
	state := r.Conn.ConnectionState()
	state.NegotiatedProtocol = cluster.ProtocolHTTP
	return state
}

type renewerKey struct{}

func renewerContext(ctx context.Context, conn net.Conn) context.Context {
	if r, ok := conn.(*renewing); ok {
		return context.WithValue(ctx, renewerKey{}, r.renewer)
	}
	return ctx
}

// allowRenewal lets a request of a node through that came by a connection for renewing. Only
// the leader knows whether it still is one.
func (m *Manager) allowRenewal(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, ok := r.Context().Value(renewerKey{}).(renewer)
		err := cluster.Errorf(cluster.ErrDenied, "renew certificate: a connection by %s is needed", cluster.ProtocolRenew)
		if ok {
			err = m.unlessRemoved(r.Context(), from.id)
		}
		if err != nil {
			m.logRefusal(r, err)
			refuse(w, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, from.id)))
	})
}

// unlessRemoved refuses a node that isn't in the store. Whoever is told so gives up, so only
// a leader says it, and only when it certainly leads.
func (m *Manager) unlessRemoved(ctx context.Context, id cluster.Identity) error {
	if _, self, _, _ := m.leads(); !self || m.store.View().Node(id.NodeID) != nil {
		return nil
	}
	if err := m.ReadBarrier(ctx); err != nil {
		return err
	}
	return cluster.Errorf(cluster.ErrRemoved, "renew certificate: node %s is not part of the swarm any more", id.NodeID)
}

// renew certifies a node's new key.
func (m *Manager) renew(r *http.Request, request RenewRequest) (*Admission, error) {
	from, _ := r.Context().Value(renewerKey{}).(renewer)
	return m.certify(r.Context(), callerOf(r), from.key, request)
}

// certify certifies a node's new key, for the role that the store says, and keeps it
// beside the one that asked.
func (m *Manager) certify(ctx context.Context, id cluster.Identity, asked cluster.KeyDigest, request RenewRequest) (*Admission, error) {
	removed := cluster.Errorf(cluster.ErrRemoved, "renew certificate: node %s is not part of the swarm any more", id.NodeID)
	view := m.store.View()
	if view.Cluster() == nil {
		return nil, cluster.Errorf(cluster.ErrUnavailable, "renew certificate: this manager has no copy of the database yet")
	}
	node := view.Node(id.NodeID)
	if node == nil {
		return nil, removed
	}
	chain, issued, err := m.issue(view.Cluster(), request.CSR, node)
	if err != nil {
		return nil, err
	}
	issued.OldKey = asked
	err = m.store.Update(ctx, func(tx *store.Tx) error {
		present := tx.Node(id.NodeID)
		switch {
		case present == nil:
			return removed
		case present.Role != node.Role:
			return cluster.Errorf(cluster.ErrUnavailable, "renew certificate: the role of node %s has just changed", id.NodeID)
		}
		changed := *present
		changed.Certificate, changed.Build = issued, request.Build.Bounded()
		return tx.Put(&changed)
	})
	if err != nil {
		return nil, fmt.Errorf("renew certificate: %w", err)
	}
	m.log.Debug("renew certificate", "node", node.ID, "role", node.Role)
	return m.admission(node, chain), nil
}

// answerOwn answers what this manager's own node asks, without the network: a leader
// whose certificate has ended renews it so. ErrNotLeader says to ask others.
func (m *Manager) answerOwn(ctx context.Context, request any) (any, error) {
	if _, self, _, _ := m.leads(); !self {
		return nil, cluster.ErrNotLeader
	}
	id := m.cfg.Credentials.Identity()
	switch request := request.(type) {
	case RenewRequest:
		return m.certify(ctx, id, m.cfg.Credentials.Key(), request)
	case ReadyRequest:
		return m.take(ctx, id, request)
	case cluster.AttachRequest:
		return m.attachOf(ctx, id.NodeID, request)
	case cluster.DetachRequest:
		return m.detachOf(ctx, id.NodeID, request)
	}
	return nil, cluster.ErrNotLeader
}
