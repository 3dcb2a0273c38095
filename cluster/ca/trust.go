package ca

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// roots are the roots a node trusts: one, or two while one takes the place of the
// other.
type roots []*Root

// maxRoots is how many roots a node can trust.
const maxRoots = 2

// parseRoots reads one root or two, PEM.
func parseRoots(text []byte) (roots, error) {
	certs, err := parseCerts(text)
	if err != nil {
		return nil, fmt.Errorf("parse root CAs: %w", err)
	}
	if len(certs) > maxRoots {
		return nil, fmt.Errorf("parse root CAs: %d certificates, want at most %d: %w", len(certs), maxRoots, cluster.ErrInvalid)
	}
	var all roots
	for _, cert := range certs {
		if !selfSigned(cert) {
			return nil, fmt.Errorf("parse root CAs: not a self-signed CA certificate: %w", cluster.ErrInvalid)
		}
		all = append(all, trust(cert))
	}
	return all, nil
}

func (rs roots) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, r := range rs {
		pool.AddCert(r.cert)
	}
	return pool
}

func (rs roots) pem() []byte {
	var text []byte
	for _, r := range rs {
		text = append(text, r.pem...)
	}
	return text
}

// intermediates are the certificates of a chain that are neither its leaf nor
// roots: a root certified by the one before it.
func intermediates(chain []*x509.Certificate) []*x509.Certificate {
	var between []*x509.Certificate
	for _, cert := range chain[1:] {
		if !selfSigned(cert) {
			between = append(between, cert)
		}
	}
	return between
}

func poolOf(certs []*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, cert := range certs {
		pool.AddCert(cert)
	}
	return pool
}

// Cross certifies next under r, PEM: those who trust r alone then trust what next
// issues, if they are shown this along with it.
func (r *Root) Cross(random io.Reader, next *Root, now time.Time) ([]byte, error) {
	if r.key == nil {
		return nil, fmt.Errorf("certify the next root CA: key of root CA: %w", errNoKey)
	}
	if bytes.Equal(r.cert.RawSubjectPublicKeyInfo, next.cert.RawSubjectPublicKeyInfo) {
		return nil, fmt.Errorf("certify the next root CA: it has the key of the present one: %w", cluster.ErrInvalid)
	}
	serial, err := newSerial(random)
	if err != nil {
		return nil, fmt.Errorf("certify the next root CA: %w", err)
	}
	end := r.cert.NotAfter
	if next.cert.NotAfter.Before(end) {
		end = next.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber: serial, RawSubject: next.cert.RawSubject, Subject: pkix.Name{CommonName: rootName},
		SubjectKeyId: next.cert.SubjectKeyId,
		NotBefore:    now.Add(-Backdate), NotAfter: end,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(random, template, r.cert, next.cert.PublicKey, r.key)
	if err != nil {
		return nil, fmt.Errorf("certify the next root CA: %w", err)
	}
	cross, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("certify the next root CA: %w", err)
	}
	if _, err := cross.Verify(x509.VerifyOptions{Roots: r.pool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return nil, fmt.Errorf("certify the next root CA: the present one doesn't allow it: %v: %w", err, cluster.ErrInvalid)
	}
	if err := next.try(random, now); err != nil {
		return nil, fmt.Errorf("certify the next root CA: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der}), nil
}

// try issues a certificate and verifies it as nodes do: a root may have constraints on
// names or uses.
func (r *Root) try(random io.Reader, now time.Time) error {
	_, csr, err := NewRequest(random)
	if err != nil {
		return err
	}
	chain, err := r.Issue(random, csr, cluster.Identity{NodeID: "n1", Role: swarm.NodeRoleManager, ClusterID: "c1"}, now, 0)
	if err != nil {
		return err
	}
	certs, err := parseCerts(chain)
	if err != nil {
		return err
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := certs[0].Verify(x509.VerifyOptions{Roots: r.pool(), CurrentTime: now, DNSName: managerUnit, KeyUsages: []x509.ExtKeyUsage{use}})
		if err != nil {
			return fmt.Errorf("nodes' certificates by it would be refused: %v: %w", err, cluster.ErrInvalid)
		}
	}
	return nil
}

// Successor checks that the root can take the place of another at now: it has its
// key, is valid, and can be followed by a successor of its own.
func (r *Root) Successor(now time.Time) error {
	switch {
	case r.key == nil:
		return fmt.Errorf("check root CA: its key is needed: %w", cluster.ErrInvalid)
	case now.Before(r.cert.NotBefore) || now.AddDate(0, 1, 0).After(r.cert.NotAfter):
		return fmt.Errorf("check root CA: it is valid from %v to %v; it must be valid now and for a month: %w", r.cert.NotBefore, r.cert.NotAfter, cluster.ErrInvalid)
	case r.cert.MaxPathLen == 0 && r.cert.MaxPathLenZero:
		return fmt.Errorf("check root CA: it allows no intermediate certificate (pathlen:0), so that it couldn't be replaced: %w", cluster.ErrInvalid)
	case r.cert.KeyUsage != 0 && r.cert.KeyUsage&x509.KeyUsageCertSign == 0: // absent means any use, RFC 5280
		return fmt.Errorf("check root CA: its key usage lacks certificate signing: %w", cluster.ErrInvalid)
	}
	return nil
}

// TLSInfo is what the node's description says: what it trusts, and who issued its
// certificate.
func (c *Credentials) TLSInfo() swarm.TLSInfo {
	now := c.current.Load()
	return swarm.TLSInfo{
		TrustRoot:           string(now.roots.pem()),
		CertIssuerSubject:   bytes.Clone(now.issuer.RawSubject),
		CertIssuerPublicKey: bytes.Clone(now.issuer.RawSubjectPublicKeyInfo),
	}
}

// IssuedBy tells whether the present certificate is by the root, PEM.
func (c *Credentials) IssuedBy(rootPEM []byte) bool {
	root, err := ParseRoot(rootPEM, nil)
	return err == nil && bytes.Equal(root.cert.RawSubjectPublicKeyInfo, c.current.Load().issuer.RawSubjectPublicKeyInfo)
}

// Take puts certificate and roots of keys in place of the present ones; handshakes
// that begin from now on use them. Otherwise it is as Replace.
func (c *Credentials) Take(keys Keys) error {
	trusted, err := parseRoots(keys.RootPEM)
	if err != nil {
		return fmt.Errorf("replace certificate: %w", err)
	}
	return c.replace(trusted, keys.CertPEM, keys.KeyPEM)
}
