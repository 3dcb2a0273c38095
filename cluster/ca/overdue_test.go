package ca

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// TestOverdue_OnlyTheLeafsEndIsExcused holds certificates against the rule: who is
// known may be late, and nothing else.
func TestOverdue_OnlyTheLeafsEndIsExcused(t *testing.T) {
	was := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	now := was
	root, err := NewRoot(rand.Reader, was, "c1")
	if err != nil {
		t.Fatal(err)
	}
	leaf := func(by *Root, id cluster.Identity, at time.Time) (*x509.Certificate, []byte, []byte) {
		key, csr, err := NewRequest(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := by.Issue(rand.Reader, csr, id, at, 0)
		if err != nil {
			t.Fatal(err)
		}
		certs, err := parseCerts(chain)
		if err != nil {
			t.Fatal(err)
		}
		return certs[0], chain, key
	}
	manager := cluster.Identity{NodeID: "n1", Role: swarm.NodeRoleManager, ClusterID: "c1"}
	_, chain, key := leaf(root, manager, was)
	credentials, err := newCredentials(roots{root}, chain, key, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewRoot(rand.Reader, was, "c1")
	if err != nil {
		t.Fatal(err)
	}
	peer := cluster.Identity{NodeID: "n2", Role: swarm.NodeRoleManager, ClusterID: "c1"}
	good, goodChain, _ := leaf(root, peer, was)
	worker, _, _ := leaf(root, cluster.Identity{NodeID: "n2", Role: swarm.NodeRoleWorker, ClusterID: "c1"}, was)
	elsewhere, _, _ := leaf(root, cluster.Identity{NodeID: "n2", Role: swarm.NodeRoleManager, ClusterID: "c2"}, was)
	foreign, _, _ := leaf(other, peer, was)
	another, _, _ := leaf(root, peer, was)
	issued, err := Certificate(goodChain)
	if err != nil || !issued.Ends.Equal(good.NotAfter) || issued.Key != keyDigest(good) {
		t.Fatalf("the cluster keeps %+v, %v", issued, err)
	}
	known := ManagerIn([]cluster.Peer{{NodeID: "n2", Key: issued.Key}, {NodeID: "n3", Key: keyDigest(another)}, {NodeID: "n2"}})
	later := was.AddDate(0, 0, 100)
	for _, test := range []struct {
		name string
		cert *x509.Certificate
		at   time.Time
		want string // of the error; empty for none
	}{
		{"in time", good, was, ""},
		{"in time, though nobody knows its key", another, was, ""},
		{"ended", good, later, ""},
		{"ended, key of another node", another, later, "no manager is known"},
		{"ended, of a worker", worker, later, "of a worker"},
		{"ended, of another cluster", elsewhere, later, "is of cluster c2"},
		{"ended, by another root", foreign, later, "unknown authority"},
		{"in time, by another root", foreign, was, "unknown authority"},
		{"not begun", good, was.Add(-2 * Backdate), "not yet valid"},
		{"ended, as has the root", good, was.AddDate(21, 0, 0), "the time of the CA is over"},
	} {
		now = test.at
		id, err := credentials.OverduePeer(tls.ConnectionState{PeerCertificates: []*x509.Certificate{test.cert}}, known)
		switch {
		case test.want == "" && (err != nil || id.NodeID != "n2"):
			t.Errorf("%s: %v, %v", test.name, id, err)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v; want %q", test.name, err, test.want)
		}
	}
	if _, err := credentials.OverduePeer(tls.ConnectionState{}, known); err == nil {
		t.Error("no certificate is heard")
	}
	for at, want := range map[time.Time]string{
		was: "", later: "ended at 2030-04-01", was.AddDate(21, 0, 0): "root CA ended at 2050-01-01", time.Unix(0, 0): "set the clock",
	} {
		now = at
		if err := credentials.Trouble(); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("at %v: %v; want %q", at, err, want)
		}
	}
}
