package clustertest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/cluster/ca"
)

func (m *Machine) rotateRoot() error {
	return m.updateSwarm("", func(s *swarm.Spec) { s.CAConfig.ForceRotate++ })
}

// rotatedRoot tells, as `swarm ca --rotate` does, why the rotation isn't over.
func (m *Machine) rotatedRoot() error {
	var of swarm.Swarm
	var nodes []swarm.Node
	if err := errors.Join(m.Try(http.MethodGet, "/swarm", nil, &of), m.Try(http.MethodGet, "/nodes", nil, &nodes)); err != nil {
		return err
	}
	if of.RootRotationInProgress {
		return errors.New("it is in progress")
	}
	for _, n := range nodes {
		got, want := n.Description.TLSInfo, of.TLSInfo
		if got.TrustRoot != want.TrustRoot || !bytes.Equal(got.CertIssuerPublicKey, want.CertIssuerPublicKey) || !bytes.Equal(got.CertIssuerSubject, want.CertIssuerSubject) {
			return fmt.Errorf("%s isn't there yet", n.Description.Hostname)
		}
	}
	return nil
}

// onlyRoot checks that all machines trust the cluster's root and no other, and have
// certificates by it, also on disk.
func (c *Cluster) onlyRoot(old []byte) {
	c.t.Helper()
	root := c.record().RootCert
	if bytes.Equal(root, old) {
		c.t.Error("the root is what it was")
	}
	for _, m := range c.Alive() {
		keys, err := m.keyFile().Load()
		if err != nil || !bytes.Equal(keys.RootPEM, root) {
			c.t.Errorf("%s trusts another root: %v", m.Name, err)
			continue
		}
		credentials, err := keys.Credentials(time.Now)
		if err != nil || !credentials.IssuedBy(root) {
			c.t.Errorf("%s has a certificate by another root: %v", m.Name, err)
		}
	}
}

// TestRootRotation_WithFaults rotates the root CA twice. The first time the leader
// crashes in the middle and a worker is down: it comes back when all others have
// long been certified anew.
func TestRootRotation_WithFaults(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 3, Options{SnapshotEntries: 50})
		id := c.Machines[0].Create(Spec("web", "app:1", 10))
		c.Runs(10*time.Second, id, "app:1", 10)
		before := c.record()
		sleeper, leader := c.Machines[5], c.Leader()
		sleeper.Crash()
		asked := c.Machines[0]
		if asked == leader {
			asked = c.Machines[1]
		}
		if err := asked.rotateRoot(); err != nil {
			t.Fatal(err)
		}
		if err := asked.rotatedRoot(); err == nil || !strings.Contains(err.Error(), "in progress") {
			t.Errorf("right after the order: %v", err)
		}
		if err := asked.rotateRoot(); err == nil || !strings.Contains(err.Error(), "a rotation is under way") {
			t.Errorf("a second one at once: %v", err)
		}
		time.Sleep(300 * time.Millisecond)
		leader.Crash()
		c.Leader()
		time.Sleep(10 * time.Second)
		leader.Restart()
		time.Sleep(time.Minute)
		if err := asked.rotatedRoot(); err == nil || !strings.Contains(err.Error(), "in progress") {
			t.Errorf("while a node is down: %v", err)
		}
		// Who joins in the middle has a certificate by the new root from the beginning.
		c.add(7).Join(asked, false)
		sleeper.Restart()
		c.Eventually(30*time.Second, "the rotation is over", asked.rotatedRoot)
		c.ready()
		c.onlyRoot(before.RootCert)
		c.Runs(10*time.Second, id, "app:1", 10)
		after := c.record()
		if after.WorkerToken == before.WorkerToken || after.ManagerToken == before.ManagerToken || bytes.Equal(after.RootKey, before.RootKey) {
			t.Error("tokens or key are what they were")
		}

		// The old token and the old root's certificates are worth nothing any more.
		stranger := c.add(8)
		join := func(token string) error {
			return stranger.Try(http.MethodPost, "/swarm/join", swarm.JoinRequest{ListenAddr: stranger.IP, AdvertiseAddr: stranger.IP, RemoteAddrs: []string{asked.IP}, JoinToken: token}, nil)
		}
		if err := join(before.WorkerToken); err == nil || !strings.Contains(err.Error(), "remote CA does not match fingerprint") {
			t.Errorf("join with an old token: %v", err)
		}
		oldRoot, err := ca.ParseRoot(before.RootCert, before.RootKey)
		if err != nil {
			t.Fatal(err)
		}
		forged := issued(t, oldRoot, cluster.Identity{NodeID: nodeID(asked), Role: swarm.NodeRoleManager, ClusterID: before.ID}, time.Now())
		if _, err := call(c.Leader(), forged, cluster.ProtocolHTTP, http.MethodGet, "/v1/health"); err == nil {
			t.Error("a certificate by the old root gets through the handshake")
		}
		if err := join(after.ManagerToken); err != nil {
			t.Errorf("join with a new token: %v", err)
		}

		// Once more, to a root of the user's own; all restart in the middle, and a node
		// that doesn't come back is removed.
		own, err := ca.NewRoot(rand.Reader, time.Now(), "users-own")
		if err != nil {
			t.Fatal(err)
		}
		ownKey, err := own.KeyPEM()
		if err != nil {
			t.Fatal(err)
		}
		give := func(cert, key []byte) error {
			return asked.updateSwarm("", func(s *swarm.Spec) { s.CAConfig.SigningCACert, s.CAConfig.SigningCAKey = string(cert), string(key) })
		}
		for what, err := range map[string]error{
			"certificate alone": give(own.CertPEM(), nil), "key of another": give(own.CertPEM(), after.RootKey), "rubbish": give([]byte("x"), []byte("y")),
			"the present one": give(after.RootCert, after.RootKey),
		} {
			if err == nil || !strings.Contains(err.Error(), ": 400 ") || strings.Contains(err.Error(), string(ownKey[40:80])) {
				t.Errorf("%s: %v", what, err)
			}
		}
		gone := c.Machines[4]
		gone.Crash()
		if err := give(own.CertPEM(), ownKey); err != nil {
			t.Fatal(err)
		}
		for _, m := range c.Alive() {
			m.Crash()
			m.Restart()
		}
		c.Leader()
		time.Sleep(30 * time.Second)
		asked.Do(http.MethodDelete, "/nodes/"+nodeID(gone)+"?force=1", nil, nil)
		c.Eventually(time.Minute, "the second rotation is over", asked.rotatedRoot)
		c.ready()
		c.onlyRoot(after.RootCert)
		var of swarm.Swarm
		asked.Do(http.MethodGet, "/swarm", nil, &of)
		if of.TLSInfo.TrustRoot != string(own.CertPEM()) || of.Spec.CAConfig.SigningCAKey != "" || of.Spec.CAConfig.SigningCACert != "" {
			t.Errorf("not the user's root, or its key is shown: %+v", of.ClusterInfo)
		}
		c.Same()
	})
}
