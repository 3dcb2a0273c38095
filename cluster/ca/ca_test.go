package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

const (
	clusterID = "cluster1"
	worker    = swarm.NodeRoleWorker
	manager   = swarm.NodeRoleManager
)

// start is when all test clusters begin.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(now time.Time) func() time.Time { return func() time.Time { return now } }

func newRoot(t testing.TB, id string) *Root {
	t.Helper()
	root, err := NewRoot(rand.Reader, start, id)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// issue makes a key and a certificate, at start and for the default time.
func issue(t testing.TB, root *Root, id cluster.Identity) (certPEM, keyPEM []byte) {
	t.Helper()
	keyPEM, request, err := NewRequest(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, err = root.Issue(rand.Reader, request, id, start, 0)
	if err != nil {
		t.Fatal(err)
	}
	return certPEM, keyPEM
}

func credentials(t testing.TB, root *Root, id cluster.Identity, now func() time.Time) *Credentials {
	t.Helper()
	certPEM, keyPEM := issue(t, root, id)
	c, err := newCredentials(roots{root}, certPEM, keyPEM, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func node(id string, role swarm.NodeRole) cluster.Identity {
	return cluster.Identity{NodeID: id, Role: role, ClusterID: clusterID}
}

func TestRoot_RoundTrip(t *testing.T) {
	root := newRoot(t, clusterID)
	keyPEM, err := root.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseRoot(root.CertPEM(), keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	issue(t, again, node("n1", worker))
	if root.Digest() != again.Digest() || len(root.Digest()) != 50 {
		t.Errorf("digests %s and %s", root.Digest(), again.Digest())
	}
	if _, err := cluster.ParseJoinToken(cluster.NewJoinToken(root.Digest(), rand.Reader).String()); err != nil {
		t.Error(err)
	}
	if cert := root.Cert(); cert.Subject.CommonName != "swarm-ca" || !cert.IsCA || cert.NotAfter != start.AddDate(20, 0, 0) || cert.SerialNumber.BitLen() > 128 {
		t.Errorf("root %v until %v", cert.Subject, cert.NotAfter)
	}
	info := root.TLSInfo()
	if info.TrustRoot != string(root.CertPEM()) || string(info.CertIssuerSubject) != string(root.cert.RawSubject) || string(info.CertIssuerPublicKey) != string(root.cert.RawSubjectPublicKeyInfo) {
		t.Errorf("TLS info %+v", info)
	}

	public, err := ParseRoot(root.CertPEM(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if public.key != nil || again.key == nil {
		t.Error("a root has a key that it wasn't given, or lost its own")
	}
	if _, err := public.KeyPEM(); err == nil {
		t.Error("gave a key it hasn't")
	}
	if _, err := public.Issue(rand.Reader, nil, node("n1", worker), start, 0); err == nil {
		t.Error("issued without a key")
	}
}

func TestDigest_IsPadded(t *testing.T) {
	for range 200 {
		var bits [8]byte
		rand.Read(bits[:])
		if d := digest(bits[:]); len(d) != 50 {
			t.Fatalf("digest %s of %x", d, bits)
		}
	}
}

func TestParseRoot_Refuses(t *testing.T) {
	root, other := newRoot(t, clusterID), newRoot(t, clusterID)
	otherKey, _ := other.KeyPEM()
	leaf, leafKey := issue(t, root, node("n1", manager))
	for name, try := range map[string]struct{ cert, key []byte }{
		"nothing":          {nil, nil},
		"noise":            {[]byte("noise"), nil},
		"two certificates": {append(root.CertPEM(), other.CertPEM()...), nil},
		"a leaf":           {leaf[:len(leaf)-len(root.CertPEM())], leafKey},
		"another's key":    {root.CertPEM(), otherKey},
		"no key":           {root.CertPEM(), []byte("noise")},
		"text before":      {append([]byte("x\n"), root.CertPEM()...), nil},
	} {
		if _, err := ParseRoot(try.cert, try.key); !errors.Is(err, cluster.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIssue_SaysWhatTheStoreSays(t *testing.T) {
	root := newRoot(t, clusterID)
	serials := map[string]bool{}
	for _, id := range []cluster.Identity{node("n1", worker), node("n2", manager)} {
		certPEM, _ := issue(t, root, id)
		certs, err := parseCerts(certPEM)
		if err != nil || len(certs) != 2 || !certs[1].Equal(root.cert) {
			t.Fatalf("chain of %d: %v", len(certs), err)
		}
		leaf := certs[0]
		if got, err := identify(leaf); err != nil || got != id {
			t.Errorf("identity %v, %v", got, err)
		}
		unit, _ := roleUnit(id.Role)
		if !slices.Equal(leaf.DNSNames, []string{id.NodeID, unit, "skep"}) || len(leaf.IPAddresses)+len(leaf.EmailAddresses)+len(leaf.URIs) > 0 {
			t.Errorf("names %v", leaf.DNSNames)
		}
		if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}) {
			t.Errorf("usage %v %v", leaf.KeyUsage, leaf.ExtKeyUsage)
		}
		if leaf.NotBefore != start.Add(-time.Hour) || leaf.NotAfter != start.Add(90*24*time.Hour) {
			t.Errorf("valid from %v to %v", leaf.NotBefore, leaf.NotAfter)
		}
		if n := leaf.SerialNumber; n.BitLen() < 64 || n.BitLen() > 128 || serials[n.String()] {
			t.Errorf("serial number %v", n)
		}
		serials[leaf.SerialNumber.String()] = true
	}
}

func TestIssue_RefusesBadIdentityAndTime(t *testing.T) {
	root := newRoot(t, clusterID)
	_, request, _ := NewRequest(rand.Reader)
	for _, id := range []cluster.Identity{
		{}, node("", worker), node("n1", ""), node("n1", "admin"), node("swarm-manager", worker), node("skep", worker),
		node("N1", worker), node("a.b", worker), node("a b", worker), node("-a", worker), node(strings.Repeat("a", 64), worker), node("n\x00", worker),
		{NodeID: "n1", Role: worker}, {NodeID: "n1", Role: worker, ClusterID: "a,O=b"},
	} {
		if _, err := root.Issue(rand.Reader, request, id, start, 0); !errors.Is(err, cluster.ErrInvalid) {
			t.Errorf("%+v: %v", id, err)
		}
	}
	if _, err := root.Issue(rand.Reader, request, node("n1", worker), start, time.Hour-1); !errors.Is(err, cluster.ErrInvalid) {
		t.Errorf("short validity: %v", err)
	}
	if _, err := root.Issue(rand.Reader, request, node("n1", worker), start.AddDate(21, 0, 0), 0); !errors.Is(err, cluster.ErrPrecondition) {
		t.Errorf("expired root: %v", err)
	}
	certPEM, err := root.Issue(rand.Reader, request, node("n1", worker), start, 30*365*24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if certs, _ := parseCerts(certPEM); certs[0].NotAfter != root.cert.NotAfter {
		t.Errorf("leaf outlives its root: %v", certs[0].NotAfter)
	}
}

// greedy is a request that asks for all it shouldn't get.
func greedy(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	uri, _ := url.Parse("spiffe://cluster/manager")
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:        pkix.Name{CommonName: "evil", OrganizationalUnit: []string{"swarm-manager"}, Organization: []string{"evil"}},
		DNSNames:       []string{"evil.example", "swarm-manager"},
		IPAddresses:    []net.IP{net.IPv4(6, 6, 6, 6)},
		EmailAddresses: []string{"evil@example"},
		URIs:           []*url.URL{uri, uri},
		ExtraExtensions: []pkix.Extension{
			{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}}, // CA: true
			{Id: []int{1, 2, 3, 4, 5}, Value: []byte("evil")},
		},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: requestBlock, Bytes: der})
}

func TestIssue_TakesOnlyTheKey(t *testing.T) {
	root := newRoot(t, clusterID)
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	certPEM, err := root.Issue(rand.Reader, greedy(t, key), node("n1", worker), start, 0)
	if err != nil {
		t.Fatal(err)
	}
	leaks(t, root, certPEM)
	if certs, _ := parseCerts(certPEM); !key.PublicKey.Equal(certs[0].PublicKey) {
		t.Error("another key")
	}
}

// leaks fails the test when a certificate for n1, a worker, differs from a plain one
// in anything but key, serial number and signature.
func leaks(t testing.TB, root *Root, certPEM []byte) {
	t.Helper()
	plainPEM, _ := issue(t, root, node("n1", worker))
	got, err := parseCerts(certPEM)
	if err != nil || len(got) != 2 {
		t.Fatalf("chain of %d: %v", len(got), err)
	}
	plain, _ := parseCerts(plainPEM)
	if string(got[0].RawSubject) != string(plain[0].RawSubject) || got[0].IsCA || !got[0].NotAfter.Equal(plain[0].NotAfter) {
		t.Errorf("subject %v", got[0].Subject)
	}
	if len(got[0].Extensions) != len(plain[0].Extensions) {
		t.Fatalf("%d extensions, want %d", len(got[0].Extensions), len(plain[0].Extensions))
	}
	for i, e := range got[0].Extensions {
		if p := plain[0].Extensions[i]; !e.Id.Equal(p.Id) || string(e.Value) != string(p.Value) {
			t.Errorf("extension %v: %x, want %x", e.Id, e.Value, p.Value)
		}
	}
}

func TestIssue_RefusesBadRequests(t *testing.T) {
	root := newRoot(t, clusterID)
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	good := greedy(t, p256)
	block, _ := pem.Decode(good)
	tampered := slices.Clone(block.Bytes)
	tampered[len(tampered)-1] ^= 1
	renamed := slices.Clone(block.Bytes)
	renamed[strings.Index(string(renamed), "evil")] = 'w'
	encode := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	certPEM, _ := issue(t, root, node("n1", worker))
	for name, request := range map[string][]byte{
		"nothing":           nil,
		"noise":             []byte("noise"),
		"P-384":             greedy(t, p384),
		"RSA":               greedy(t, rsaKey),
		"Ed25519":           greedy(t, edKey),
		"broken signature":  encode(requestBlock, tampered),
		"changed name":      encode(requestBlock, renamed),
		"another PEM type":  encode("NEW CERTIFICATE REQUEST", block.Bytes),
		"a certificate":     certPEM,
		"two of them":       append(slices.Clone(good), good...),
		"text after":        append(slices.Clone(good), "more"...),
		"trailing bytes":    encode(requestBlock, append(slices.Clone(block.Bytes), 0)),
		"too large":         append(slices.Clone(good), make([]byte, maxRequest)...),
		"headers":           pem.EncodeToMemory(&pem.Block{Type: requestBlock, Bytes: block.Bytes, Headers: map[string]string{"A": "b"}}),
		"truncated request": encode(requestBlock, block.Bytes[:len(block.Bytes)/2]),
	} {
		if _, err := root.Issue(rand.Reader, request, node("n1", worker), start, 0); !errors.Is(err, cluster.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzIssue: whatever is sent, there is no panic, and a certificate says nothing
// that the store didn't say.
func FuzzIssue(f *testing.F) {
	root := newRoot(f, clusterID)
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, plain, _ := NewRequest(rand.Reader)
	for _, seed := range [][]byte{plain, greedy(f, key), root.CertPEM()} {
		block, _ := pem.Decode(seed)
		f.Add(seed, block.Bytes)
	}
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\n"), []byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, text, der []byte) {
		for _, request := range [][]byte{text, pem.EncodeToMemory(&pem.Block{Type: requestBlock, Bytes: der})} {
			certPEM, err := root.Issue(rand.Reader, request, node("n1", worker), start, 0)
			if err == nil {
				leaks(t, root, certPEM)
			}
		}
	})
}

func TestNewCredentials_Refuses(t *testing.T) {
	root, other := newRoot(t, clusterID), newRoot(t, clusterID)
	certPEM, keyPEM := issue(t, root, node("n1", worker))
	foreignPEM, foreignKey := issue(t, other, node("n1", worker))
	rootKey, _ := root.KeyPEM()
	for name, try := range map[string]struct{ cert, key []byte }{
		"another CA":    {foreignPEM, foreignKey},
		"another's key": {certPEM, foreignKey},
		"the root":      {root.CertPEM(), rootKey},
		"nothing":       {nil, nil},
		"no key":        {certPEM, nil},
	} {
		if _, err := newCredentials(roots{root}, try.cert, try.key, at(start)); err == nil {
			t.Errorf("took %s", name)
		} else if strings.Contains(err.Error(), string(keyPEM[40:60])) {
			t.Errorf("%s: key in error", name)
		}
	}
}

func TestReplace_Refuses(t *testing.T) {
	root := newRoot(t, clusterID)
	now := start
	c := credentials(t, root, node("n1", worker), func() time.Time { return now })
	other := cluster.Identity{NodeID: "n1", Role: worker, ClusterID: "cluster2"}
	for _, id := range []cluster.Identity{node("n2", worker), other} {
		if err := c.Replace(issue(t, root, id)); !errors.Is(err, cluster.ErrInvalid) {
			t.Errorf("became %v: %v", id, err)
		}
	}
	certPEM, keyPEM := issue(t, root, node("n1", manager))
	for _, now = range []time.Time{start.Add(-2 * time.Hour), start.Add(91 * 24 * time.Hour)} {
		if err := c.Replace(certPEM, keyPEM); !errors.Is(err, cluster.ErrInvalid) {
			t.Errorf("took a certificate that isn't valid at %v: %v", now, err)
		}
	}
	if c.Identity().Role != worker {
		t.Error("a refused certificate was taken")
	}
	now = start
	if err := c.Replace(certPEM, keyPEM); err != nil || c.Identity().Role != manager {
		t.Errorf("promotion: %v, %v", c.Identity(), err)
	}
}

func TestRenewAt_WithinWindow(t *testing.T) {
	root := newRoot(t, clusterID)
	_, request, _ := NewRequest(rand.Reader)
	for _, validity := range []time.Duration{time.Hour, 24 * time.Hour, DefaultValidity} {
		certPEM, err := root.Issue(rand.Reader, request, node("n1", worker), start, validity)
		if err != nil {
			t.Fatal(err)
		}
		certs, _ := parseCerts(certPEM)
		var least, most float64 = 1, 0
		for range 2000 {
			share := float64(RenewAt(certs[0], rand.Reader).Sub(start)) / float64(validity)
			least, most = min(least, share), max(most, share)
		}
		if least < 0.5 || most > 0.8 || least > 0.51 || most < 0.79 {
			t.Errorf("%v: renewed between %.3f and %.3f of its life", validity, least, most)
		}
	}
	// Not by us, and shorter than we backdate.
	short := &x509.Certificate{NotBefore: start, NotAfter: start.Add(10 * time.Minute), SerialNumber: big.NewInt(1)}
	if got := RenewAt(short, rand.Reader).Sub(start); got < 5*time.Minute || got > 8*time.Minute {
		t.Errorf("renewed after %v of 10m", got)
	}
}
