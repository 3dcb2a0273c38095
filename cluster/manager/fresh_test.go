package manager

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"skep/cluster"
	"skep/store"
)

// slowFSM applies nothing while its gate is held.
type slowFSM struct {
	raft.FSM
	gate chan struct{} // holds one when it may apply
}

func (f slowFSM) Apply(log *raft.Log) any {
	<-f.gate
	defer func() { f.gate <- struct{}{} }()
	return f.FSM.Apply(log)
}

// newPeers are managers that have nothing but raft and a database.
func newPeers(t *testing.T, names ...string) (peers map[string]*Manager, gates map[string]chan struct{}) {
	quiet := slog.New(slog.DiscardHandler)
	peers, gates = map[string]*Manager{}, map[string]chan struct{}{}
	transports := map[string]*raft.InmemTransport{}
	var group raft.Configuration
	for _, name := range names {
		addr, transport := raft.NewInmemTransport(raft.ServerAddress(name))
		transports[name] = transport
		group.Servers = append(group.Servers, raft.Server{ID: raft.ServerID(name), Address: addr})
	}
	for _, name := range names {
		for _, other := range names {
			transports[name].Connect(raft.ServerAddress(other), transports[other])
		}
		m := &Manager{
			cfg: Config{NodeID: name, Now: time.Now}, log: quiet, changed: make(chan struct{}), noticed: make(chan struct{}),
			store: store.New(store.Config{Log: quiet, Fatal: func(err error) { t.Errorf("store: %v", err) }}),
		}
		gates[name] = make(chan struct{}, 1)
		gates[name] <- struct{}{}
		config := raft.DefaultConfig()
		config.LocalID = raft.ServerID(name)
		config.Logger = hclog.New(&hclog.LoggerOptions{Output: io.Discard})
		disk := raft.NewInmemStore()
		if err := raft.BootstrapCluster(config, disk, disk, raft.NewInmemSnapshotStore(), transports[name], group); err != nil {
			t.Fatal(err)
		}
		var err error
		if m.raft, err = raft.NewRaft(config, slowFSM{m.store.FSM(), gates[name]}, disk, disk, raft.NewInmemSnapshotStore(), transports[name]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := m.raft.Shutdown().Error(); err != nil {
				t.Error(err)
			}
		})
		m.entries = newEntries(m.raft)
		m.confirm = func(context.Context, uint64) error { return m.raft.VerifyLeader().Error() }
		peers[name] = m
	}
	return peers, gates
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// takeOver hands leadership to m and, when works is set, has it take writes.
func (m *Manager) takeOver(t *testing.T, from *Manager, works bool) {
	t.Helper()
	eventually(t, m.cfg.NodeID+" leads", func() bool {
		if from != nil && from.leadsTerm() != 0 {
			_ = from.raft.LeadershipTransferToServer(raft.ServerID(m.cfg.NodeID), raft.ServerAddress(m.cfg.NodeID)).Error()
		}
		return m.leadsTerm() != 0
	})
	if !works {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = m.store.Lead(ctx, m.entries, nil)
	}()
	t.Cleanup(func() { cancel(); <-done })
	eventually(t, m.cfg.NodeID+" takes writes", func() bool {
		return m.store.Update(t.Context(), func(*store.Tx) error { return nil }) == nil
	})
	m.setEstablished(m.leadsTerm())
}

// whoLeads waits until one of them leads.
func whoLeads(t *testing.T, peers map[string]*Manager) (leader *Manager) {
	t.Helper()
	eventually(t, "somebody leads", func() bool {
		for _, m := range peers {
			if m.leadsTerm() != 0 {
				leader = m
			}
		}
		return leader != nil
	})
	return leader
}

// A leadership that was lost and regained isn't the one before, though the manager hasn't
// noticed yet that it was lost: what another leader wrote meanwhile may be yet to be applied.
func TestFresh_LostAndRegained(t *testing.T) {
	peers, gates := newPeers(t, "a", "b", "c")
	a := whoLeads(t, peers)
	a.takeOver(t, nil, true)
	if err := a.ReadBarrier(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := peers["a"]
	if b == a {
		b = peers["b"]
	}
	<-gates[a.cfg.NodeID]
	b.takeOver(t, a, true)
	secret := &cluster.Secret{ID: "s1", Spec: swarm.SecretSpec{Annotations: swarm.Annotations{Name: "s1"}}}
	if err := b.store.Update(t.Context(), func(tx *store.Tx) error { return tx.Put(secret) }); err != nil {
		t.Fatal(err)
	}
	a.takeOver(t, b, false)
	switch err := a.ReadBarrier(t.Context()); {
	case err == nil && a.store.View().Secret("s1") == nil:
		t.Error("a read is said to be current, and lacks what was acknowledged")
	case err != nil && !errors.Is(err, cluster.ErrNotLeader):
		t.Error(err)
	}
	gates[a.cfg.NodeID] <- struct{}{}
}

// A follower may have applied, and shown, what is committed and not yet applied on the leader.
func TestReadBarrier_WaitsForWhatIsCommitted(t *testing.T) {
	peers, gates := newPeers(t, "a", "b", "c")
	a := whoLeads(t, peers)
	a.takeOver(t, nil, true)
	<-gates[a.cfg.NodeID]
	secret := &cluster.Secret{ID: "s1", Spec: swarm.SecretSpec{Annotations: swarm.Annotations{Name: "s1"}}}
	wrote := make(chan error, 1)
	go func() { wrote <- a.store.Update(t.Context(), func(tx *store.Tx) error { return tx.Put(secret) }) }()
	eventually(t, "a follower shows it", func() bool {
		return slices.ContainsFunc(slices.Collect(maps.Values(peers)), func(m *Manager) bool { return m != a && m.store.View().Secret("s1") != nil })
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := a.ReadBarrier(ctx); err == nil {
		t.Error("the leader is said to be current, and lacks what a follower shows")
	}
	gates[a.cfg.NodeID] <- struct{}{}
	if err := a.ReadBarrier(t.Context()); err != nil || a.store.View().Secret("s1") == nil {
		t.Errorf("the leader has it: %v; %v", a.store.View().Secret("s1") != nil, err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
}
