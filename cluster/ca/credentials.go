package ca

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync/atomic"
	"time"

	"skep/cluster"
)

// Credentials is what a node proves its identity with, and the roots by which it
// checks others. All methods may be called at any time from any goroutine.
type Credentials struct {
	now     func() time.Time
	current atomic.Pointer[held]
}

// held is one certificate with its key, and the roots that are trusted with it; it
// never changes.
type held struct {
	roots       roots
	pool        *x509.CertPool
	issuer      *x509.Certificate // a root, or one that a root certified
	certificate tls.Certificate
	leaf        *x509.Certificate
	id          cluster.Identity
}

// newCredentials takes a certificate chain as Issue made it, with its key. It
// checks everything but the date: a manager whose certificate has expired while
// it was off must be able to start, for it may be the only one that can issue a
// new one. Nobody talks to it before that; Leaf tells the date.
func newCredentials(trusted roots, certPEM, keyPEM []byte, now func() time.Time) (*Credentials, error) {
	next, err := hold(trusted, certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("take certificate: %w", err)
	}
	c := &Credentials{now: now}
	c.current.Store(next)
	return c, nil
}

// Replace puts a renewed certificate in place of the present one; handshakes that
// begin from now on use it. It must be of the same node and cluster, and valid now;
// the role may differ. The caller writes the key file first.
func (c *Credentials) Replace(certPEM, keyPEM []byte) error {
	return c.replace(c.current.Load().roots, certPEM, keyPEM)
}

func (c *Credentials) replace(trusted roots, certPEM, keyPEM []byte) error {
	next, err := hold(trusted, certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("replace certificate: %w", err)
	}
	id := c.Identity()
	if next.id.NodeID != id.NodeID || next.id.ClusterID != id.ClusterID {
		return fmt.Errorf("replace certificate of node %s: new one is of node %s, cluster %s: %w",
			id.NodeID, next.id.NodeID, next.id.ClusterID, cluster.ErrInvalid)
	}
	if now := c.now(); !next.leaf.Equal(c.Leaf()) && (now.Before(next.leaf.NotBefore) || now.After(next.leaf.NotAfter)) {
		return fmt.Errorf("replace certificate of node %s: new one is valid from %v to %v, and it is %v here: %w",
			id.NodeID, next.leaf.NotBefore, next.leaf.NotAfter, now.UTC(), cluster.ErrInvalid)
	}
	c.current.Store(next)
	return nil
}

// Identity is who the node is by its present certificate.
func (c *Credentials) Identity() cluster.Identity { return c.current.Load().id }

// Leaf is the present certificate; it must not be changed.
func (c *Credentials) Leaf() *x509.Certificate { return c.current.Load().leaf }

// RootEnds is when the first of the trusted roots ends.
func (c *Credentials) RootEnds() (ends time.Time) {
	for _, root := range c.current.Load().roots {
		if after := root.cert.NotAfter; ends.IsZero() || after.Before(ends) {
			ends = after
		}
	}
	return ends
}

func hold(trusted roots, certPEM, keyPEM []byte) (*held, error) {
	certs, err := parseCerts(certPEM)
	if err != nil {
		return nil, err
	}
	leaf := certs[0]
	id, err := identify(leaf)
	if err != nil {
		return nil, err
	}
	pool, between := trusted.pool(), intermediates(certs)
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots:         pool,
		Intermediates: poolOf(between),
		CurrentTime:   leaf.NotAfter,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, fmt.Errorf("certificate of node %s is not by this cluster's CA: %v: %w", id.NodeID, err, cluster.ErrInvalid)
	}
	if len(chains[0]) < 2 {
		return nil, fmt.Errorf("certificate of node %s is a root: %w", id.NodeID, cluster.ErrInvalid)
	}
	key, err := parseKey(keyPEM)
	if err != nil {
		return nil, err
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return nil, fmt.Errorf("key doesn't belong to the certificate of node %s: %w", id.NodeID, cluster.ErrInvalid)
	}
	next := &held{
		roots: trusted, pool: pool, issuer: chains[0][1],
		certificate: tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf},
		leaf:        leaf,
		id:          id,
	}
	for _, cert := range between {
		next.certificate.Certificate = append(next.certificate.Certificate, cert.Raw)
	}
	// The roots go along for joiners, who know the digest of one only.
	for _, root := range trusted {
		next.certificate.Certificate = append(next.certificate.Certificate, root.cert.Raw)
	}
	return next, nil
}
