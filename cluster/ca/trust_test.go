package ca

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"skep/cluster"
)

// crossed issues a certificate by next that those who trust old accept as well.
func crossed(t testing.TB, old, next *Root, id cluster.Identity) (certPEM, keyPEM []byte) {
	t.Helper()
	cross, err := old.Cross(rand.Reader, next, start)
	if err != nil {
		t.Fatal(err)
	}
	certPEM, keyPEM = issue(t, next, id)
	return append(certPEM, cross...), keyPEM
}

// TestRotation_EachSideOfEachStep connects nodes at every step of a change of the
// root with nodes at every other: all that may meet must get on, and who trusts only
// the new root must refuse a certificate by the old one.
func TestRotation_EachSideOfEachStep(t *testing.T) {
	old, next, foreign := newRoot(t, clusterID), newRoot(t, clusterID), newRoot(t, clusterID)
	credentials := func(id cluster.Identity, roots []byte, certPEM, keyPEM []byte) *Credentials {
		t.Helper()
		file := KeyFile{Path: filepath.Join(t.TempDir(), "keys")}
		keys := Keys{CertPEM: certPEM, KeyPEM: keyPEM, RootPEM: roots, DataKeys: [][32]byte{{1}}}
		if err := file.Save(keys); err != nil {
			t.Fatal(err)
		}
		got, err := file.Load()
		if err != nil || !bytes.Equal(got.RootPEM, roots) {
			t.Fatal(err)
		}
		if err := file.Save(got); err != nil {
			t.Fatal(err)
		}
		if again, err := file.Load(); err != nil || !cmp.Equal(again, got) {
			t.Fatalf("saved again: %v", err)
		}
		c, err := got.Credentials(at(start))
		if err != nil || c.Identity() != id {
			t.Fatal(err)
		}
		return c
	}
	step := func(name string, number int) *Credentials {
		id := node(name, manager)
		both := append(old.CertPEM(), next.CertPEM()...)
		switch number {
		case 0: // before
			certPEM, keyPEM := issue(t, old, id)
			return credentials(id, old.CertPEM(), certPEM, keyPEM)
		case 1: // trusts both
			certPEM, keyPEM := issue(t, old, id)
			return credentials(id, both, certPEM, keyPEM)
		case 2: // has its new certificate
			certPEM, keyPEM := crossed(t, old, next, id)
			return credentials(id, both, certPEM, keyPEM)
		case 3: // after
			certPEM, keyPEM := crossed(t, old, next, id)
			return credentials(id, next.CertPEM(), certPEM, keyPEM)
		}
		certPEM, keyPEM := issue(t, foreign, id)
		return credentials(id, foreign.CertPEM(), certPEM, keyPEM)
	}
	for a := range 5 {
		for b := range 5 {
			server, client := step("m1", a), step("m2", b)
			err := meet(server.ServerTLS("x"), client.ClientTLS(cluster.Identity{Role: manager}, "x"))
			// Those before have certificates by the old root, which those after don't trust.
			early := func(n int) bool { return n < 2 }
			want := (a == 4) == (b == 4) && !(a == 3 && early(b)) && !(b == 3 && early(a))
			if (err == nil) != want {
				t.Errorf("step %d meets step %d: %v", a, b, err)
			}
		}
	}
	// A joiner with a token of either root gets in while there are both.
	for _, root := range []*Root{old, next} {
		config, trusted := JoinTLS(root.Digest(), at(start), "x")
		if err := meet(step("m1", 2).ServerTLS("x"), config); err != nil || trusted.Root().Digest() != root.Digest() {
			t.Errorf("join in the middle: %v", err)
		}
	}
	config, _ := JoinTLS(old.Digest(), at(start), "x")
	if err := meet(step("m1", 3).ServerTLS("x"), config); !errors.Is(err, cluster.ErrDenied) {
		t.Errorf("join with an old token after the rotation: %v", err)
	}

	// A server that runs takes new roots in, without being configured anew.
	server := step("m1", 0)
	running := server.ServerTLS("x")
	certPEM, keyPEM := issue(t, next, node("m2", manager)) // without the cross certificate
	plain := credentials(node("m2", manager), append(next.CertPEM(), old.CertPEM()...), certPEM, keyPEM)
	if err := meet(running, plain.ClientTLS(cluster.Identity{}, "x")); err == nil {
		t.Error("a root that isn't known is trusted")
	}
	newCert, newKey := crossed(t, old, next, node("m1", manager))
	keys := Keys{CertPEM: newCert, KeyPEM: newKey, RootPEM: append(old.CertPEM(), next.CertPEM()...)}
	if server.IssuedBy(next.CertPEM()) || !server.IssuedBy(old.CertPEM()) {
		t.Error("who issued the first certificate is mistaken")
	}
	if err := server.Take(keys); err != nil {
		t.Fatal(err)
	}
	if !server.IssuedBy(next.CertPEM()) || server.IssuedBy(old.CertPEM()) {
		t.Error("who issued the second certificate is mistaken")
	}
	if err := meet(running, plain.ClientTLS(cluster.Identity{}, "x")); err != nil {
		t.Errorf("after it took both roots: %v", err)
	}
	if info := server.TLSInfo(); info.TrustRoot != string(keys.RootPEM) || !bytes.Equal(info.CertIssuerPublicKey, next.TLSInfo().CertIssuerPublicKey) {
		t.Error("it describes itself wrongly")
	}
	if err := server.Take(Keys{CertPEM: newCert, KeyPEM: newKey, RootPEM: foreign.CertPEM()}); err == nil {
		t.Error("took roots that its own certificate isn't by")
	}
	if _, err := old.Cross(rand.Reader, old, start); !errors.Is(err, cluster.ErrInvalid) {
		t.Errorf("a root as its own successor: %v", err)
	}
	if err := trust(next.Cert()).Successor(start); !errors.Is(err, cluster.ErrInvalid) {
		t.Errorf("a successor without its key: %v", err)
	}
	if err := next.Successor(start); err != nil {
		t.Error(err)
	}
	if err := next.Successor(start.AddDate(20, 0, 0)); !errors.Is(err, cluster.ErrInvalid) {
		t.Errorf("a successor that ends soon: %v", err)
	}
}

// meet connects the two.
func meet(server, client *tls.Config) error {
	out := dial(server, client)
	return errors.Join(out.server, out.client)
}
