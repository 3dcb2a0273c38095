package ca

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// Trusted is what a joining node learns from the first manager it meets.
type Trusted struct {
	found atomic.Pointer[found]
}

type found struct {
	root *Root
	id   cluster.Identity
}

// Root is the cluster's root, nil before a handshake has succeeded.
func (t *Trusted) Root() *Root {
	if f := t.found.Load(); f != nil {
		return f.root
	}
	return nil
}

// Manager is the manager that answered, with the cluster's ID; empty before a
// handshake has succeeded.
func (t *Trusted) Manager() cluster.Identity {
	if f := t.found.Load(); f != nil {
		return f.id
	}
	return cluster.Identity{}
}

// JoinTLS is the configuration for a node that has a join token and nothing else:
// it shows no certificate, and accepts only a manager whose certificate is by the
// root with the token's digest, valid now. The token's secret is sent only after
// that, so a stranger at the manager's address doesn't learn it.
func JoinTLS(digest string, now func() time.Time, alpn ...string) (*tls.Config, *Trusted) {
	trusted := &Trusted{}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       now,
		NextProtos: alpn,
		ServerName: managerUnit,
		// There is no root to verify by until the peer has shown one;
		// VerifyConnection does the whole check.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			f, err := find(digest, state.PeerCertificates, now())
			if err != nil {
				return err
			}
			trusted.found.Store(f)
			return nil
		},
		SessionTicketsDisabled: true,
	}
	return config, trusted
}

// find looks for the root with that digest among the certificates a server sent,
// and verifies the server by it and by it alone.
func find(digest string, certs []*x509.Certificate, now time.Time) (*found, error) {
	var root *Root
	for _, cert := range certs {
		if candidate := trust(cert); selfSigned(cert) && candidate.Digest() == digest {
			root = candidate
			break
		}
	}
	if root == nil {
		return nil, fmt.Errorf("remote CA does not match fingerprint in the join token: %w", cluster.ErrDenied)
	}
	id, err := identify(certs[0])
	if err != nil {
		return nil, err
	}
	if id.Role != swarm.NodeRoleManager {
		return nil, fmt.Errorf("node %s is not a manager: %w", id.NodeID, cluster.ErrDenied)
	}
	if _, err := certs[0].Verify(x509.VerifyOptions{
		Roots:         root.pool(),
		Intermediates: poolOf(intermediates(certs)),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}); err != nil {
		if expired := (x509.CertificateInvalidError{}); errors.As(err, &expired) && expired.Reason == x509.Expired {
			return nil, fmt.Errorf("certificate of manager %s is valid from %v to %v, and it is %v here: %w",
				id.NodeID, certs[0].NotBefore, certs[0].NotAfter, now.UTC(), cluster.ErrDenied)
		}
		return nil, fmt.Errorf("certificate of manager %s is not by the CA of the join token: %v: %w", id.NodeID, err, cluster.ErrDenied)
	}
	return &found{root: root, id: id}, nil
}
