package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"skep/cluster"
)

// outcome is how a connection ended on both sides. A server's refusal reaches a TLS
// 1.3 client with its first read, so each side reads a byte of the other's.
type outcome struct {
	server, client error
	peer           cluster.Identity // as the server sees the client
	peerErr        error
	protocol       string
	resumed        bool
	leaf           *x509.Certificate // that the server showed
}

func dial(server, client *tls.Config) outcome {
	left, right := pipe()
	defer left.Close()
	defer right.Close()
	var out outcome
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer left.Close()
		conn := tls.Server(left, server)
		if out.server = conn.HandshakeContext(context.Background()); out.server != nil {
			return
		}
		out.peer, out.peerErr = Peer(conn.ConnectionState())
		if _, out.server = conn.Write([]byte("s")); out.server != nil {
			return
		}
		_, out.server = io.ReadFull(conn, make([]byte, 1))
	}()
	conn := tls.Client(right, client)
	out.client = conn.Handshake()
	if out.client == nil {
		state := conn.ConnectionState()
		out.protocol, out.resumed, out.leaf = state.NegotiatedProtocol, state.DidResume, state.PeerCertificates[0]
		_, out.client = io.ReadFull(conn, make([]byte, 1))
	}
	if out.client == nil {
		_, out.client = conn.Write([]byte("c"))
	}
	right.Close()
	<-done
	return out
}

func (o outcome) ok() bool { return o.server == nil && o.client == nil }

func TestTLS_ServerMatrix(t *testing.T) {
	root, foreign := newRoot(t, clusterID), newRoot(t, clusterID)
	now := start
	clock := func() time.Time { return now }
	server := credentials(t, root, node("m1", manager), clock)

	expiredAt := start.Add(DefaultValidity + time.Minute)
	later := func() *Credentials { // a server that renewed in time
		keyPEM, request, _ := NewRequest(rand.Reader)
		certPEM, err := root.Issue(rand.Reader, request, node("m1", manager), expiredAt, 0)
		if err != nil {
			t.Fatal(err)
		}
		c, err := newCredentials(roots{root}, certPEM, keyPEM, at(expiredAt))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}()

	// Without knowing what is wrong: a client that accepts any server and shows this.
	show := func(certPEM, keyPEM []byte) *tls.Config {
		config := &tls.Config{InsecureSkipVerify: true, Time: clock}
		if certPEM != nil {
			pair, err := tls.X509KeyPair(certPEM, keyPEM)
			if err != nil {
				t.Fatal(err)
			}
			// Whatever the server says it wants.
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		return config
	}
	otherOrg := cluster.Identity{NodeID: "n1", Role: manager, ClusterID: "cluster2"}
	forged, forgedKey := forge(t, root, "n1")

	for name, try := range map[string]struct {
		server    *Credentials
		client    *tls.Config
		handshake bool
		peer      cluster.Identity
	}{
		"no certificate":              {server, show(nil, nil), true, cluster.Identity{}},
		"worker":                      {server, show(issue(t, root, node("n1", worker))), true, node("n1", worker)},
		"manager":                     {server, show(issue(t, root, node("n1", manager))), true, node("n1", manager)},
		"same names by another CA":    {server, show(issue(t, foreign, node("n1", manager))), false, cluster.Identity{}},
		"another cluster, same CA":    {server, show(issue(t, root, otherOrg)), false, cluster.Identity{}},
		"expired":                     {later, show(issue(t, root, node("n1", manager))), false, cluster.Identity{}},
		"signed by a node, not by CA": {server, show(forged, forgedKey), false, cluster.Identity{}},
		"the root itself":             {server, show(rootPair(t, root)), false, cluster.Identity{}},
		"self-signed":                 {server, show(selfMade(t, node("n1", manager), nil, nil)), false, cluster.Identity{}},
	} {
		t.Run(name, func(t *testing.T) {
			out := dial(try.server.ServerTLS(), try.client)
			if out.ok() != try.handshake {
				t.Fatalf("server: %v, client: %v", out.server, out.client)
			}
			if out.peer != try.peer {
				t.Errorf("peer %+v, want %+v", out.peer, try.peer)
			}
			if try.handshake && (try.peer == cluster.Identity{}) {
				if !errors.Is(out.peerErr, cluster.ErrDenied) || !strings.Contains(out.peerErr.Error(), "no client certificate") {
					t.Errorf("peer: %v", out.peerErr)
				}
			}
		})
	}
}

func TestTLS_ClientMatrix(t *testing.T) {
	root, foreign := newRoot(t, clusterID), newRoot(t, clusterID)
	client := credentials(t, root, node("n9", worker), at(start))
	pair := func(certPEM, keyPEM []byte) *tls.Config {
		pair, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{Certificates: []tls.Certificate{pair}}
	}
	m1 := credentials(t, root, node("m1", manager), at(start)).ServerTLS()
	w1 := credentials(t, root, node("w1", worker), at(start)).ServerTLS()
	old := pair(issue(t, root, node("m1", manager)))
	otherOrg := cluster.Identity{NodeID: "m1", Role: manager, ClusterID: "cluster2"}
	for name, try := range map[string]struct {
		server *tls.Config
		client *tls.Config
		ok     bool
	}{
		"any node":             {w1, client.ClientTLS(cluster.Identity{}), true},
		"a manager":            {m1, client.ClientTLS(cluster.Identity{Role: manager}), true},
		"this manager":         {m1, client.ClientTLS(cluster.Identity{NodeID: "m1", Role: manager}), true},
		"this node":            {m1, client.ClientTLS(cluster.Identity{NodeID: "m1"}), true},
		"worker, not manager":  {w1, client.ClientTLS(cluster.Identity{Role: manager}), false},
		"that node, no manger": {w1, client.ClientTLS(cluster.Identity{NodeID: "w1", Role: manager}), false},
		"another node":         {m1, client.ClientTLS(cluster.Identity{NodeID: "m2"}), false},
		"another CA":           {pair(issue(t, foreign, node("m1", manager))), client.ClientTLS(cluster.Identity{}), false},
		"another cluster":      {pair(issue(t, root, otherOrg)), client.ClientTLS(cluster.Identity{}), false},
		"expired":              {old, credentials(t, root, node("n9", worker), at(start.Add(DefaultValidity+time.Minute))).ClientTLS(cluster.Identity{}), false},
		"not yet valid":        {old, credentials(t, root, node("n9", worker), at(start.Add(-2*time.Hour))).ClientTLS(cluster.Identity{}), false},
		"within backdating":    {old, credentials(t, root, node("n9", worker), at(start.Add(-50*time.Minute))).ClientTLS(cluster.Identity{}), true},
		"forged by a node":     {pair(forge(t, root, "m1")), client.ClientTLS(cluster.Identity{}), false},
	} {
		t.Run(name, func(t *testing.T) {
			if out := dial(try.server, try.client); out.ok() != try.ok {
				t.Errorf("server: %v, client: %v", out.server, out.client)
			}
		})
	}
}

func TestTLS_OnlyVersion13(t *testing.T) {
	root := newRoot(t, clusterID)
	c := credentials(t, root, node("m1", manager), at(start))
	old := &tls.Config{MaxVersion: tls.VersionTLS12, InsecureSkipVerify: true}
	if out := dial(c.ServerTLS(), old); out.ok() {
		t.Error("server speaks TLS 1.2")
	}
	old = c.ServerTLS()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if out := dial(old, c.ClientTLS(cluster.Identity{})); out.ok() {
		t.Error("client speaks TLS 1.2")
	}
	join, _ := JoinTLS(root.Digest(), at(start))
	if out := dial(old, join); out.ok() {
		t.Error("joiner speaks TLS 1.2")
	}
}

func TestTLS_Protocols(t *testing.T) {
	c := credentials(t, newRoot(t, clusterID), node("m1", manager), at(start))
	server := c.ServerTLS(cluster.ProtocolRaft, cluster.ProtocolSession, cluster.ProtocolHTTP)
	for _, p := range []string{cluster.ProtocolRaft, cluster.ProtocolSession, cluster.ProtocolHTTP} {
		if out := dial(server, c.ClientTLS(cluster.Identity{}, p)); !out.ok() || out.protocol != p {
			t.Errorf("%s: got %q, %v, %v", p, out.protocol, out.server, out.client)
		}
	}
	if out := dial(server, c.ClientTLS(cluster.Identity{}, "h2")); out.ok() {
		t.Error("unknown protocol accepted")
	}
}

// TestTLS_NoResumption: a client that keeps sessions must be checked anew, or an
// expired certificate would go on being good.
func TestTLS_NoResumption(t *testing.T) {
	root := newRoot(t, clusterID)
	now := start
	clock := func() time.Time { return now }
	server := credentials(t, root, node("m1", manager), clock)
	client := credentials(t, root, node("n1", worker), clock).ClientTLS(cluster.Identity{})
	client.SessionTicketsDisabled = false
	client.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	for range 3 {
		if out := dial(server.ServerTLS(), client); !out.ok() || out.resumed {
			t.Fatalf("resumed %v, %v, %v", out.resumed, out.server, out.client)
		}
	}
}

func TestReplace_UsedByNextHandshake(t *testing.T) {
	root := newRoot(t, clusterID)
	server := credentials(t, root, node("m1", manager), at(start))
	client := credentials(t, root, node("n1", worker), at(start))
	// The configurations are made once, before the renewal, as listeners have them.
	serverTLS, clientTLS := server.ServerTLS(), client.ClientTLS(cluster.Identity{Role: manager})
	before := dial(serverTLS, clientTLS)
	if !before.ok() || before.peer != node("n1", worker) {
		t.Fatalf("peer %v: %v, %v", before.peer, before.server, before.client)
	}
	if err := client.Replace(issue(t, root, node("n1", manager))); err != nil {
		t.Fatal(err)
	}
	if err := server.Replace(issue(t, root, node("m1", manager))); err != nil {
		t.Fatal(err)
	}
	after := dial(serverTLS, clientTLS)
	if !after.ok() || after.peer != node("n1", manager) {
		t.Errorf("peer %v: %v, %v", after.peer, after.server, after.client)
	}
	if after.leaf.Equal(before.leaf) || !after.leaf.Equal(server.Leaf()) {
		t.Error("server shows its old certificate")
	}
}

// TestRenewal_KeepsNodeGoing plays a year in fake time: both sides renew at
// RenewAt, and every connection in between works; without renewal none does in
// the end.
func TestRenewal_KeepsNodeGoing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root, err := NewRoot(rand.Reader, time.Now(), clusterID)
		if err != nil {
			t.Fatal(err)
		}
		fresh := func(id cluster.Identity) (certPEM, keyPEM []byte) {
			keyPEM, request, err := NewRequest(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			certPEM, err = root.Issue(rand.Reader, request, id, time.Now(), 0)
			if err != nil {
				t.Fatal(err)
			}
			return certPEM, keyPEM
		}
		hold := func(id cluster.Identity) *Credentials {
			certPEM, keyPEM := fresh(id)
			c, err := newCredentials(roots{root}, certPEM, keyPEM, time.Now)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		server, client, lazy := hold(node("m1", manager)), hold(node("n1", worker)), hold(node("n2", worker))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		renewals := make(chan string, 100)
		for _, c := range []*Credentials{server, client} {
			go func() {
				for {
					timer := time.NewTimer(time.Until(RenewAt(c.Leaf(), rand.Reader)))
					select {
					case <-timer.C:
						if err := c.Replace(fresh(c.Identity())); err != nil {
							t.Error(err)
						}
						renewals <- c.Identity().NodeID
					case <-ctx.Done():
						timer.Stop()
						return
					}
				}
			}()
		}
		serverTLS := server.ServerTLS()
		for day := range 365 {
			time.Sleep(24 * time.Hour)
			if out := dial(serverTLS, client.ClientTLS(cluster.Identity{Role: manager})); !out.ok() {
				t.Fatalf("day %d: %v, %v", day, out.server, out.client)
			}
			if out := dial(serverTLS, lazy.ClientTLS(cluster.Identity{})); out.ok() != (day < 90) {
				t.Fatalf("day %d without renewal: %v, %v", day, out.server, out.client)
			}
		}
		cancel()
		synctest.Wait()
		// A life of 90 days is renewed after 45 to 72.
		if n := len(renewals); n < 2*5 || n > 2*8 {
			t.Errorf("%d renewals in a year", n)
		}
	})
}

func TestJoin_Matrix(t *testing.T) {
	root, foreign := newRoot(t, clusterID), newRoot(t, clusterID)
	m1 := credentials(t, root, node("m1", manager), at(start))
	w1 := credentials(t, root, node("w1", worker), at(start))
	stranger := credentials(t, foreign, node("m1", manager), at(start))
	// Shows a certificate of its own making, along with the real root.
	forgedPEM, forgedKey := forge(t, root, "m1")
	forgedPair, err := tls.X509KeyPair(append(forgedPEM, root.CertPEM()...), forgedKey)
	if err != nil {
		t.Fatal(err)
	}
	foreignPEM, foreignKey := issue(t, foreign, node("m1", manager))
	withRoot, err := tls.X509KeyPair(append(foreignPEM, root.CertPEM()...), foreignKey)
	if err != nil {
		t.Fatal(err)
	}
	leafOnly := m1.current.Load().certificate
	leafOnly.Certificate = leafOnly.Certificate[:1]

	for name, try := range map[string]struct {
		server *tls.Config
		now    time.Time
		want   string
	}{
		"manager":              {m1.ServerTLS(), start, ""},
		"worker":               {w1.ServerTLS(), start, "not a manager"},
		"another CA":           {stranger.ServerTLS(), start, "remote CA does not match fingerprint"},
		"another CA, our root": {&tls.Config{Certificates: []tls.Certificate{withRoot}}, start, "not by the CA of the join token"},
		"forged":               {&tls.Config{Certificates: []tls.Certificate{forgedPair}}, start, "not by the CA of the join token"},
		"no root shown":        {&tls.Config{Certificates: []tls.Certificate{leafOnly}}, start, "remote CA does not match fingerprint"},
		"expired":              {m1.ServerTLS(), start.Add(DefaultValidity + time.Minute), "valid from"},
	} {
		t.Run(name, func(t *testing.T) {
			config, trusted := JoinTLS(root.Digest(), at(try.now))
			if trusted.Root() != nil || (trusted.Manager() != cluster.Identity{}) {
				t.Fatal("trusts before it asked")
			}
			out := dial(try.server, config)
			if try.want != "" {
				if out.client == nil || !strings.Contains(out.client.Error(), try.want) || !errors.Is(out.client, cluster.ErrDenied) {
					t.Errorf("client: %v, want %q", out.client, try.want)
				}
				if trusted.Root() != nil {
					t.Error("trusts what it refused")
				}
				return
			}
			if !out.ok() {
				t.Fatalf("server: %v, client: %v", out.server, out.client)
			}
			if trusted.Root().Digest() != root.Digest() || trusted.Manager() != node("m1", manager) {
				t.Errorf("trusts %v of %v", trusted.Root(), trusted.Manager())
			}
			if !errors.Is(out.peerErr, cluster.ErrDenied) {
				t.Errorf("joiner has an identity: %v", out.peer)
			}
			// And with what it learned it becomes a node.
			c, err := newCredentials(roots{trusted.Root()}, m1PEM(t, root), nil, at(start))
			if err == nil || c != nil {
				t.Error("credentials without a key")
			}
		})
	}
}

func m1PEM(t *testing.T, root *Root) []byte {
	certPEM, _ := issue(t, root, node("m1", manager))
	return certPEM
}

// TestPeer_RefusesUnverified: a config that doesn't verify can't yield an identity.
func TestPeer_RefusesUnverified(t *testing.T) {
	c := credentials(t, newRoot(t, clusterID), node("m1", manager), at(start))
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.Leaf()}}
	if id, err := Peer(state); !errors.Is(err, cluster.ErrDenied) {
		t.Errorf("peer %v: %v", id, err)
	}
}

func TestErrors_SayWhatIsWrong(t *testing.T) {
	root := newRoot(t, clusterID)
	server := credentials(t, root, node("w1", worker), at(start)).ServerTLS()
	client := credentials(t, root, node("n1", worker), at(start))
	out := dial(server, client.ClientTLS(cluster.Identity{NodeID: "w1", Role: manager}))
	if !errors.Is(out.client, cluster.ErrDenied) || !strings.Contains(out.client.Error(), "node w1 is a worker, not a manager") {
		t.Errorf("%v", out.client)
	}
	other := cluster.Identity{NodeID: "n1", Role: worker, ClusterID: "cluster2"}
	out = dial(server, credentials(t, root, other, at(start)).ClientTLS(cluster.Identity{}))
	if out.client == nil || !strings.Contains(out.client.Error(), "node w1 is of cluster cluster1, not of cluster2") {
		t.Errorf("%v", out.client)
	}
}

// TestSystemRoots_AreNotTrusted gives the process a system-wide CA, as public ones
// are, and shows certificates by it with all the right names.
func TestSystemRoots_AreNotTrusted(t *testing.T) {
	if dir := os.Getenv("SKEP_TEST_PUBLIC_CA"); dir != "" {
		publicCA(t, dir)
		return
	}
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Public CA"},
		NotBefore: start, NotAfter: start.AddDate(1, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, public, public, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	public, _ = x509.ParseCertificate(der)
	certPEM, keyPEM := selfMade(t, node("m1", manager), public, key)
	for name, content := range map[string][]byte{"ca.pem": pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der}), "cert.pem": certPEM, "key.pem": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// In a process of its own, since the system's roots are read once.
	again := exec.Command(os.Args[0], "-test.run=^TestSystemRoots_AreNotTrusted$", "-test.v")
	again.Env = append(os.Environ(), "SKEP_TEST_PUBLIC_CA="+dir, "SSL_CERT_FILE="+filepath.Join(dir, "ca.pem"), "SSL_CERT_DIR="+t.TempDir())
	if output, err := again.CombinedOutput(); err != nil || !strings.Contains(string(output), "as expected") {
		t.Errorf("%v\n%s", err, output)
	}
}

func publicCA(t *testing.T, dir string) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	root := newRoot(t, clusterID)
	c := credentials(t, root, node("n1", worker), at(start))
	join, _ := JoinTLS(root.Digest(), at(start))
	server := &tls.Config{Certificates: []tls.Certificate{pair}}
	// First the test of the test: anybody who trusts the system's roots is taken in.
	if out := dial(server, &tls.Config{ServerName: "m1", Time: at(start)}); !out.ok() {
		t.Fatalf("not a system root: %v, %v", out.server, out.client)
	}
	if out := dial(server, c.ClientTLS(cluster.Identity{})); out.ok() {
		t.Error("client trusts a system root")
	}
	if out := dial(server, join); out.ok() {
		t.Error("joiner trusts a system root")
	}
	client := &tls.Config{InsecureSkipVerify: true, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }}
	if out := dial(c.ServerTLS(), client); out.ok() {
		t.Error("server trusts a system root")
	}
	fmt.Println("as expected")
}

// forge makes a manager's certificate signed by an ordinary node's key.
func forge(t *testing.T, root *Root, id string) (certPEM, keyPEM []byte) {
	t.Helper()
	chain, signerKey := issue(t, root, node("w1", worker))
	signer, err := parseCerts(chain)
	if err != nil {
		t.Fatal(err)
	}
	key, err := parseKey(signerKey)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM = selfMade(t, node(id, manager), signer[0], key)
	return append(certPEM, chain...), keyPEM
}

// selfMade makes a certificate with the right names, signed by whomever; by itself
// when signer is nil.
func selfMade(t *testing.T, id cluster.Identity, signer *x509.Certificate, signerKey *ecdsa.PrivateKey) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	unit, _ := roleUnit(id.Role)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(7),
		Subject:      pkix.Name{CommonName: id.NodeID, OrganizationalUnit: []string{unit}, Organization: []string{id.ClusterID}},
		NotBefore:    start, NotAfter: start.AddDate(0, 1, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{id.NodeID, unit, anyNode},
	}
	if signer == nil {
		signer, signerKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, key.Public(), signerKey)
	if err != nil {
		t.Fatal(err)
	}
	keyPEM, err = marshalKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der}), keyPEM
}

func rootPair(t *testing.T, root *Root) (certPEM, keyPEM []byte) {
	t.Helper()
	keyPEM, err := root.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	return root.CertPEM(), keyPEM
}
