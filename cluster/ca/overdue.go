package ca

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// A cluster that was off for longer than its certificates are valid has nobody left who
// could prove anything: without an exception it would never have a leader again, nor
// anybody who renews. The exception is narrow. A certificate whose time is over, and
// nothing else is wrong with it, is heard over the protocols that electing a leader and
// renewing need, if whoever listens knows the node with this very key (Known).

// Known tells whether a certificate whose time is over may be heard: the error says why
// not. It must know the key as the node's, not the name only: whoever was removed, or has
// an old key of a node, stays out.
type Known func(id cluster.Identity, key cluster.KeyDigest) error

// Overdue makes a server, which was made by ServerTLS, hear certificates that are overdue
// over some protocols. Each of these needs a certificate. Who calls is to be asked from
// OverduePeer there, since Peer takes only what is valid.
func (c *Credentials) Overdue(ordinary *tls.Config, protocols map[string]Known) *tls.Config {
	config := ordinary.Clone()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		for _, offered := range hello.SupportedProtos {
			known, ok := protocols[offered]
			if !ok {
				continue
			}
			lenient := ordinary.Clone()
			// Nothing else can be agreed on over such a connection.
			lenient.NextProtos, lenient.GetConfigForClient = []string{offered}, nil
			lenient.ClientAuth, lenient.ClientCAs = tls.RequireAnyClientCert, nil
			lenient.VerifyConnection = func(state tls.ConnectionState) error {
				_, err := c.OverduePeer(state, known)
				return err
			}
			return lenient, nil
		}
		return ordinary.GetConfigForClient(hello)
	}
	return config
}

// OverdueTLS is ClientTLS for a server whose certificate may be overdue.
func (c *Credentials) OverdueTLS(want cluster.Identity, known Known, alpn ...string) *tls.Config {
	config := c.ClientTLS(want, alpn...)
	// VerifyConnection does all of it.
	config.InsecureSkipVerify = true
	config.VerifyConnection = func(state tls.ConnectionState) error {
		_, err := c.verify(state, want, x509.ExtKeyUsageServerAuth, known)
		return err
	}
	return config
}

// OverduePeer tells who is at the other end of a connection that Overdue let in, and
// checks it again.
func (c *Credentials) OverduePeer(state tls.ConnectionState, known Known) (cluster.Identity, error) {
	return c.verify(state, cluster.Identity{}, x509.ExtKeyUsageClientAuth, known)
}

// verify does what the standard library does for other connections, but for the leaf's
// end, which known may excuse.
func (c *Credentials) verify(state tls.ConnectionState, want cluster.Identity, usage x509.ExtKeyUsage, known Known) (cluster.Identity, error) {
	if len(state.PeerCertificates) == 0 {
		return cluster.Identity{}, errNoCertificate
	}
	leaf, now := state.PeerCertificates[0], c.now()
	at, overdue := now, now.After(leaf.NotAfter)
	if overdue {
		at = leaf.NotAfter
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: c.current.Load().pool, Intermediates: poolOf(state.PeerCertificates[1:]),
		CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return cluster.Identity{}, fmt.Errorf("verify certificate: %w: %w", err, cluster.ErrDenied)
	}
	if overdue && !validAbove(chains, now) {
		return cluster.Identity{}, fmt.Errorf("verify certificate: the time of the CA is over, too: %w", cluster.ErrDenied)
	}
	id, err := identify(leaf)
	if err != nil {
		return cluster.Identity{}, err
	}
	if err := c.check(id, want); err != nil {
		return cluster.Identity{}, err
	}
	if overdue {
		if err := known(id, keyDigest(leaf)); err != nil {
			return cluster.Identity{}, fmt.Errorf("certificate of node %s ended at %v: %w", id.NodeID, leaf.NotAfter, err)
		}
	}
	return id, nil
}

// validAbove tells whether there is a chain of which all but the leaf is valid at now.
func validAbove(chains [][]*x509.Certificate, now time.Time) bool {
	for _, chain := range chains {
		valid := true
		for _, cert := range chain[1:] {
			valid = valid && !now.Before(cert.NotBefore) && !now.After(cert.NotAfter)
		}
		if valid {
			return true
		}
	}
	return false
}

// Trouble says what is wrong with the time of the node's certificate: nil when it is
// valid now, by this machine's clock.
func (c *Credentials) Trouble() error {
	held, now := c.current.Load(), c.now().UTC().Truncate(time.Second)
	begins, ends := held.leaf.NotBefore, held.leaf.NotAfter
	switch {
	case now.Before(begins):
		return fmt.Errorf("this node's certificate is valid from %v on, and this machine's clock shows %v: set the clock", begins, now)
	case now.After(held.issuer.NotAfter):
		return fmt.Errorf("the cluster's root CA ended at %v, and this machine's clock shows %v: if the clock is right, set those of all machines back before that end, "+
			"change the root CA with \"swarm ca --rotate\", and set them right again", held.issuer.NotAfter, now)
	case now.After(ends):
		return fmt.Errorf("this node's certificate ended at %v, and this machine's clock shows %v", ends, now)
	}
	return nil
}

// Certificate is what the cluster keeps of the first certificate of a chain, PEM.
func Certificate(chain []byte) (cluster.Certificate, error) {
	certs, err := parseCerts(chain)
	if err != nil {
		return cluster.Certificate{}, err
	}
	return cluster.Certificate{Key: keyDigest(certs[0]), Ends: certs[0].NotAfter}, nil
}

// Key is the digest of the key in the node's present certificate.
func (c *Credentials) Key() cluster.KeyDigest { return keyDigest(c.Leaf()) }

// PeerKey is the digest of the key that the other end of a connection proved to have.
func PeerKey(state tls.ConnectionState) cluster.KeyDigest {
	if len(state.PeerCertificates) == 0 {
		return cluster.KeyDigest{}
	}
	return keyDigest(state.PeerCertificates[0])
}

// ManagerIn is Known by a list of managers, such as the one that a node keeps.
func ManagerIn(list []cluster.Peer) Known {
	return func(id cluster.Identity, key cluster.KeyDigest) error {
		if id.Role != swarm.NodeRoleManager {
			return fmt.Errorf("it is of a %s, and only a manager's counts after its end: %w", id.Role, cluster.ErrDenied)
		}
		for _, peer := range list {
			if peer.NodeID == id.NodeID && peer.Has(key) {
				return nil
			}
		}
		return fmt.Errorf("and no manager is known here by that name with that key: %w", cluster.ErrDenied)
	}
}

func keyDigest(cert *x509.Certificate) cluster.KeyDigest {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

var errNoCertificate = fmt.Errorf("no client certificate: this node hasn't joined the cluster: %w", cluster.ErrDenied)
