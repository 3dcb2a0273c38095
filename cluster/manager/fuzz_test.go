package manager

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/cluster/ca"
	"skep/store"
)

// atOnce is a raft of one manager that commits at once.
type atOnce struct {
	fsm   raft.FSM
	mu    sync.Mutex // guards index
	index uint64
}

type committed struct {
	index    uint64
	response any
}

func (c committed) Error() error  { return nil }
func (c committed) Index() uint64 { return c.index }
func (c committed) Response() any { return c.response }

func (r *atOnce) Barrier(time.Duration) raft.Future { return committed{} }

func (r *atOnce) Apply(data []byte, _ time.Duration) raft.ApplyFuture {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index++
	return committed{r.index, r.fsm.Apply(&raft.Log{Index: r.index, Term: 1, Data: data})}
}

// answered is a network on which the holder of a key is found at one address.
type answered struct {
	addr   string
	config *tls.Config
}

func (a answered) Listen(addr string) (net.Listener, error) { return nil, net.ErrClosed }

func (a answered) Dial(_ context.Context, addr string) (net.Conn, error) {
	if addr != a.addr {
		return nil, syscall.ECONNREFUSED
	}
	near, far := net.Pipe()
	go func() {
		conn := tls.Server(far, a.config)
		_, _ = io.Copy(io.Discard, conn)
		far.Close()
	}()
	return near, nil
}

// newLeader is a manager that leads a cluster of itself, n1, and a worker, n2. It has
// no network and no disk.
func newLeader(t testing.TB) *Manager {
	quiet := slog.New(slog.DiscardHandler)
	m := &Manager{
		cfg: Config{NodeID: "n1", ClusterID: "c1", Now: time.Now, Random: rand.Reader},
		log: quiet, changed: make(chan struct{}), leader: leader{term: 1},
		store: store.New(store.Config{Log: quiet, Fatal: func(err error) { t.Errorf("store: %v", err) }}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	led := make(chan error, 1)
	go func() { led <- m.store.Lead(ctx, &atOnce{fsm: m.store.FSM()}, nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-led; err != nil {
			t.Errorf("lead: %v", err)
		}
	})
	root, err := ca.NewRoot(rand.Reader, time.Now(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	own, csr, err := ca.NewRequest(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := root.Issue(rand.Reader, csr, cluster.Identity{NodeID: "n1", Role: swarm.NodeRoleManager, ClusterID: "c1"}, time.Now(), 0)
	if err != nil {
		t.Fatal(err)
	}
	keys := ca.Keys{CertPEM: chain, KeyPEM: own, RootPEM: root.CertPEM()}
	if m.cfg.Credentials, err = keys.Credentials(time.Now); err != nil {
		t.Fatal(err)
	}
	key, err := root.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	record := &cluster.Cluster{ID: "c1", RootCert: root.CertPEM(), RootKey: key, GossipKeys: [][]byte{make([]byte, 32)}, UnlockKey: cluster.NewUnlockKey(rand.Reader)}
	record.WorkerToken = cluster.JoinToken{Digest: root.Digest(), Secret: strings.Repeat("w", 25)}.String()
	record.ManagerToken = cluster.JoinToken{Digest: root.Digest(), Secret: strings.Repeat("m", 25)}.String()
	first := &cluster.Node{ID: "n1", Role: swarm.NodeRoleManager, ManagerAddr: "127.0.1.1:2377", Spec: swarm.NodeSpec{Role: swarm.NodeRoleManager}}
	second := &cluster.Node{ID: "n2", Role: swarm.NodeRoleWorker, Spec: swarm.NodeSpec{Role: swarm.NodeRoleWorker}}
	for _, object := range []any{record, first, second} {
		for err = cluster.ErrNotLeader; err != nil && ctx.Err() == nil; time.Sleep(time.Millisecond) {
			err = m.store.Update(ctx, func(tx *store.Tx) error { return tx.Put(object) })
		}
	}
	return m
}

// FuzzControl sends a body to what the control port's routes do: any bytes, and a
// request to join of any content, by somebody who has a token or not. What is refused
// has a reason that is the caller's, and has changed nothing; whoever is let in had a
// token, and gets the role of that token and no other, nor anybody's name.
func FuzzControl(f *testing.F) {
	m := newLeader(f)
	keyPEM, csr, err := ca.NewRequest(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	config, err := ca.AnswerTLS(rand.Reader, keyPEM, time.Now, cluster.ProtocolHTTP)
	if err != nil {
		f.Fatal(err)
	}
	m.cfg.Network = answered{"10.0.0.3:2377", config}
	secrets := []string{"", m.store.View().Cluster().WorkerToken, m.store.View().Cluster().ManagerToken}
	for i, seed := range []any{
		JoinRequest{Token: secrets[1], CSR: csr, Hostname: "n3", Addr: "10.0.0.3", Availability: "drain"},
		RenewRequest{CSR: csr}, ReadyRequest{Addr: "127.0.1.2:2377"}, struct{}{}, ReadyRequest{Addr: "[::1]:0"},
	} {
		data, err := cluster.Encode(seed)
		if err != nil {
			f.Fatal(err)
		}
		for caller := range uint8(3) {
			f.Add(uint8(i), caller, data, uint8(i), "", csr, "host", "10.0.0.3", "active")
		}
	}
	block, _ := pem.Decode(csr)
	f.Add(uint8(0), uint8(0), []byte{0xff}, uint8(2), "x", block.Bytes, strings.Repeat("h", 254), "0.0.0.0", "busy")
	f.Add(uint8(0), uint8(0), []byte{0xa1, 1, 0x61, 0xff}, uint8(1), "", csr, "\xff", "::1", "")
	f.Fuzz(func(t *testing.T, which, caller uint8, raw []byte, token uint8, more string, csr []byte, hostname, addr, availability string) {
		if !bytes.Contains(csr, []byte("BEGIN")) {
			csr = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})
		}
		id := cluster.Identity{NodeID: []string{"n1", "n2", "n9"}[caller%3], Role: swarm.NodeRoleWorker, ClusterID: "c1"}
		request := JoinRequest{
			Token: secrets[int(token)%len(secrets)] + more, CSR: csr, Hostname: hostname, Addr: addr, Availability: swarm.NodeAvailability(availability),
			Control: net.JoinHostPort(addr, "2377"),
		}
		handlers := []http.Handler{onLeader(m, m.admit), onLeader(m, m.renew), onLeader(m, m.ready), onLeader(m, m.leave)}
		m.send(t, handlers[int(which)%len(handlers)], id, "", raw)
		joining, err := cluster.Encode(request)
		if err != nil {
			return // It can't be said.
		}
		m.send(t, handlers[0], id, request.Token, joining)
	})
}

// send sends a body in the name of id; token is the one in it, if known.
func (m *Manager) send(t *testing.T, handler http.Handler, id cluster.Identity, token string, body []byte) {
	before := m.store.View()
	r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, id)))
	after := m.store.View()
	// All is to be as it was for the next one: so many wrong tokens would be too many.
	m.joins = joins{}
	defer m.store.Update(t.Context(), func(tx *store.Tx) error {
		for node := range after.Nodes() {
			old, kept := before.Node(node.ID), *node
			if old == nil {
				tx.Delete(node)
			} else if old != node {
				kept = *old
				if err := tx.Put(&kept); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if w.Code != http.StatusOK {
		var refusal struct{ Message string }
		switch {
		case w.Code != http.StatusBadRequest && w.Code != http.StatusForbidden && w.Code != http.StatusGone && w.Code != http.StatusConflict:
			t.Fatalf("%d %s", w.Code, w.Body)
		case json.Unmarshal(w.Body.Bytes(), &refusal) != nil || refusal.Message == "":
			t.Fatalf("refused without a reason: %s", w.Body)
		case after.Index() != before.Index():
			t.Fatalf("refused, and something changed: %s", w.Body)
		}
		return
	}
	var admission Admission
	if err := cluster.Decode(w.Body.Bytes(), &admission); err != nil {
		t.Fatal(err)
	}
	node := after.Node(admission.NodeID)
	joined := before.Node(admission.NodeID) == nil
	switch {
	case node == nil && admission.NodeID == id.NodeID: // It leaves, and is gone already.
		return
	case node == nil || !joined && admission.NodeID != id.NodeID:
		t.Fatalf("%s is told that it is %+v", id.NodeID, admission)
	}
	record := before.Cluster()
	want := map[string]swarm.NodeRole{record.WorkerToken: swarm.NodeRoleWorker, record.ManagerToken: swarm.NodeRoleManager}[token]
	if joined && token != "" && node.Role != want || after.NodeCount() > before.NodeCount()+1 {
		t.Fatalf("with %q it became %+v", token, node)
	}
	if admission.Role == swarm.NodeRoleWorker && !admission.UnlockKey.None() {
		t.Fatal("a worker is told the unlock key")
	}
	if len(admission.Certificate) == 0 {
		return
	}
	block, _ := pem.Decode(admission.Certificate)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(record.RootCert)
	chains, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		t.Fatal(err)
	}
	got, err := ca.Peer(tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: chains})
	if want := (cluster.Identity{NodeID: node.ID, Role: node.Role, ClusterID: "c1"}); err != nil || got != want {
		t.Fatalf("%+v has a certificate for %+v: %v", node, got, err)
	}
}
