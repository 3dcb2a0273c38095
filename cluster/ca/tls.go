package ca

import (
	"crypto/tls"
	"fmt"

	"skep/cluster"
)

// ServerTLS is the configuration of the control port. A client may come without
// a certificate, since a joining node has none yet; if it shows one, it must be
// by this cluster's root, of this cluster and valid now, or the handshake fails.
// What a client may do is for the routes to decide, by Peer.
func (c *Credentials) ServerTLS(alpn ...string) *tls.Config {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       c.now,
		NextProtos: alpn,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &c.current.Load().certificate, nil
		},
		ClientAuth: tls.VerifyClientCertIfGiven,
		ClientCAs:  c.current.Load().pool,
		VerifyConnection: func(state tls.ConnectionState) error {
			if len(state.PeerCertificates) == 0 {
				return nil
			}
			return c.checkPeer(state, cluster.Identity{})
		},
		// A resumed session would skip the check of a certificate that has expired or
		// been replaced since.
		SessionTicketsDisabled: true,
	}
	// The roots may change while it serves.
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := config.Clone()
		now.GetConfigForClient, now.ClientCAs = nil, c.current.Load().pool
		return now, nil
	}
	return config
}

// ClientTLS is the configuration for a connection to another node of the cluster.
// The fields of want that are set are required of it: a role, or one node's ID. Its
// cluster is always this one. Names and addresses of hosts don't matter.
func (c *Credentials) ClientTLS(want cluster.Identity, alpn ...string) *tls.Config {
	name := anyNode
	if unit, ok := roleUnit(want.Role); ok {
		name = unit
	}
	if want.NodeID != "" {
		name = want.NodeID
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       c.now,
		NextProtos: alpn,
		ServerName: name, // one of the DNS names in certificates by Issue
		RootCAs:    c.current.Load().pool,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &c.current.Load().certificate, nil
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			return c.checkPeer(state, want)
		},
		SessionTicketsDisabled: true,
	}
}

// checkPeer holds a verified peer against the cluster and against want.
func (c *Credentials) checkPeer(state tls.ConnectionState, want cluster.Identity) error {
	id, err := Peer(state)
	if err != nil {
		return err
	}
	return c.check(id, want)
}

func (c *Credentials) check(id, want cluster.Identity) error {
	own := c.Identity().ClusterID
	switch {
	case id.ClusterID != own:
		return fmt.Errorf("node %s is of cluster %s, not of %s: %w", id.NodeID, id.ClusterID, own, cluster.ErrDenied)
	case want.NodeID != "" && id.NodeID != want.NodeID:
		return fmt.Errorf("node %s answers where %s should: %w", id.NodeID, want.NodeID, cluster.ErrDenied)
	case want.Role != "" && id.Role != want.Role:
		return fmt.Errorf("node %s is a %s, not a %s: %w", id.NodeID, id.Role, want.Role, cluster.ErrDenied)
	}
	return nil
}

// Peer tells who is at the other end of a connection by ServerTLS or ClientTLS.
// The error, for a client without a certificate, wraps cluster.ErrDenied.
func Peer(state tls.ConnectionState) (cluster.Identity, error) {
	if len(state.PeerCertificates) == 0 {
		return cluster.Identity{}, errNoCertificate
	}
	// Without a verified chain the certificate is just a claim.
	if len(state.VerifiedChains) == 0 {
		return cluster.Identity{}, fmt.Errorf("certificate was not verified: %w", cluster.ErrDenied)
	}
	return identify(state.PeerCertificates[0])
}
