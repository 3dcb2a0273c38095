package agenttest_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/fxamacker/cbor/v2"

	"skep/agent"
	"skep/agent/network"
	planes "skep/agent/network/simulate"
	"skep/agent/simulate"
	"skep/cluster"
)

// noting notes when the driver was told what.
type noting struct {
	*simulate.Driver
	stops     map[string]time.Time
	connected []string
}

func (e *noting) Stop(ctx context.Context, taskID string, grace time.Duration) (agent.Container, error) {
	if _, is := e.stops[taskID]; !is {
		e.stops[taskID] = time.Now()
	}
	return e.Driver.Stop(ctx, taskID, grace)
}

func (e *noting) Connect(ctx context.Context, a agent.Assignment) error {
	e.connected = append(e.connected, a.Task.ID)
	return e.Driver.Connect(ctx, a)
}

// networkBench is a bench whose node carries networks.
type networkBench struct {
	*bench
	plane  *planes.Plane
	engine *noting
}

func newNetworkBench(t *testing.T) *networkBench {
	b := &networkBench{bench: newBench(t), plane: planes.New()}
	b.bench.plane = b.plane
	b.driver = simulate.New(simulate.Config{Hostname: "host1", Bridges: b.plane})
	b.engine = &noting{Driver: b.driver, stops: map[string]time.Time{}}
	b.runs = b.engine
	t.Cleanup(func() {
		if faults := b.driver.Faults(); len(faults) > 0 {
			t.Errorf("the engine: %q", faults)
		}
	})
	return b
}

// told sends updates of networks, and assignments behind them.
func (m *manager) told(assignments *cluster.Assignments, updates ...*cluster.NetworkUpdate) {
	m.t.Helper()
	message := &cluster.FromManager{Assignments: assignments}
	for _, u := range updates {
		data, err := cluster.Encode(u)
		if err != nil {
			m.t.Fatal(err)
		}
		message.Networks = append(message.Networks, cbor.RawMessage(data))
	}
	m.send(message)
}

// nodesUpdate is the account of two nodes, of which this one is the first.
func nodesUpdate(to uint64) *cluster.NetworkUpdate {
	return &cluster.NetworkUpdate{Full: true, To: to, Settings: &cluster.NetworkSettings{}, Nodes: []cluster.NetworkNode{
		{ID: node, Index: 1, Addr: netip.MustParseAddr("192.0.2.1")}, {ID: "node2", Index: 2, Addr: netip.MustParseAddr("192.0.2.2")},
	}}
}

// networkUpdate is the whole account of a network with service s1 on it.
func networkUpdate(to uint64, id string, vni uint32, endpoints ...cluster.NetworkEndpoint) *cluster.NetworkUpdate {
	prefix := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(vni - 4096), 0}), 24)
	u := &cluster.NetworkUpdate{
		NetworkID: id, Full: true, To: to, Endpoints: endpoints, Services: []cluster.NetworkService{{ID: "s1", Name: "web", VirtualIP: 100}},
		Network: &cluster.Network{ID: id, VNI: vni, Subnets: []cluster.Subnet{{Prefix: prefix, Gateway: prefix.Addr().Next()}}},
	}
	if u.Network.Spec.Name = id; id == "ingress" {
		u.Network.Spec.Ingress = true
		u.Services = []cluster.NetworkService{{ID: "s1", Name: "web", Ports: []cluster.PublishedPort{{Protocol: "tcp", Published: 80, Target: 80}}}}
	}
	return u
}

// everything is the complete set of tasks as of index.
func everything(index uint64, tasks ...*cluster.Task) *cluster.Assignments {
	r := revision(nil)
	r.Spec.Networks = []swarm.NetworkAttachmentConfig{{Target: "b"}, {Target: "a"}}
	return &cluster.Assignments{Full: true, To: index, Tasks: tasks, Revisions: []*cluster.Revision{r}}
}

// on is a task with places in networks.
func on(t *cluster.Task, addresses ...cluster.Address) *cluster.Task {
	t.Addresses = addresses
	return t
}

func place(vni uint32, host cluster.Host) cluster.Address {
	return cluster.Address{VNI: vni, Host: host}
}

func serving(id string, index uint16, host cluster.Host) cluster.NetworkEndpoint {
	return cluster.NetworkEndpoint{ID: id, Name: "web.1." + id, ServiceID: "s1", Node: index, Host: host, Phase: cluster.EndpointServing}
}

// has tells whether the plane has an object that is called so.
func (b *networkBench) has(object string) bool {
	b.t.Helper()
	existing, err := b.plane.Dump(b.t.Context(), "c")
	if err != nil {
		b.t.Fatal(err)
	}
	return slices.ContainsFunc(existing.Objects, func(o network.Object) bool { return o.String() == object })
}

func (b *networkBench) expect(object string, there bool) {
	b.t.Helper()
	if got := b.has(object); got != there {
		b.t.Errorf("%s: %v, want %v", object, got, there)
	}
}

// TestNetworks_TasksWaitForThem has a kernel refuse everything at first, then an engine be away: a
// task waits, and says for what, until both have its networks. Then its container is on them in the
// order of its revision, the ingress network last.
func TestNetworks_TasksWaitForThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newNetworkBench(t)
		b.start()
		m := b.accept()
		b.plane.Fail(errors.New("no buffer space available"))
		one := on(task("t1", 5, cluster.StateRunning), place(4097, 2), place(4098, 3), place(4099, 4))
		m.told(everything(5, one), nodesUpdate(5), networkUpdate(5, "ingress", 4097), networkUpdate(5, "a", 4098))
		m.beat(time.Second)
		m.expect("t1", cluster.StatePreparing, "preparing", "waiting for a manager to tell of the network with the number 4099")
		m.told(nil, networkUpdate(6, "b", 4099))
		m.beat(time.Second)
		m.expect("t1", cluster.StatePreparing, "preparing", "waiting for network ingress on this node: list the kernel's networks: no buffer space available")
		if len(b.driver.Networks()) > 0 {
			t.Errorf("the engine has %q", b.driver.Networks())
		}
		m.mu.Lock()
		warning := m.warning
		m.mu.Unlock()
		if !strings.Contains(warning, "no buffer space") {
			t.Errorf("the node says %q", warning)
		}
		b.driver.SetAway(true)
		b.plane.Fail(nil)
		m.beat(6 * time.Second)
		m.expect("t1", cluster.StatePreparing, "preparing", "waiting for network ingress on this node: cannot connect to the simulated engine")
		b.driver.SetAway(false)
		m.beat(11 * time.Second)
		m.expect("t1", cluster.StateRunning, "started", "")
		if got := b.driver.Networks(); !slices.Equal(got, []string{"a", "b", "ingress"}) {
			t.Errorf("the engine has %q", got)
		}
		var names []string
		for _, a := range b.driver.Places()["t1"] {
			names = append(names, a.Network.ID)
			if a.Host != cluster.AddressIn(one.Addresses, a.Network.VNI) {
				t.Errorf("attached at %+v", a)
			}
		}
		if !slices.Equal(names, []string{"b", "a", "ingress"}) {
			t.Errorf("it is on %q", names)
		}
		m.mu.Lock()
		warning = m.warning
		m.mu.Unlock()
		if warning != "" {
			t.Errorf("the node still says %q", warning)
		}
		b.stop()
	})
}

// TestNetworks_ANodeThatCarriesNone says so in its tasks, and in what it tells of itself.
func TestNetworks_ANodeThatCarriesNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start()
		m := b.accept()
		m.told(everything(5, on(task("t1", 5, cluster.StateRunning), place(4098, 2))), nodesUpdate(5), networkUpdate(5, "a", 4098))
		m.expect("t1", cluster.StatePreparing, "preparing", "waiting for network a on this node: the node carries no networks")
		overlay := swarm.PluginDescription{Type: "Network", Name: "overlay"}
		if slices.Contains(m.hello.Description.Engine.Plugins, overlay) {
			t.Error("it says that it carries networks")
		}
		b.stop()
		one := newNetworkBench(t)
		one.start()
		if m := one.accept(); !slices.Contains(m.hello.Description.Engine.Plugins, overlay) {
			t.Error("a node that carries networks doesn't say so")
		}
		one.stop()
	})
}

// TestNetworks_WaitForAnotherToGo has a network of the cluster that the database doesn't have any more be on the machine,
// where another node removes it: the one that gets its addresses is made within a second after.
func TestNetworks_WaitForAnotherToGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newNetworkBench(t)
		b.driver.SetAddressUses(cluster.AddressUse{Prefix: netip.MustParsePrefix("10.0.2.0/24"), By: "network gone of its engine", Engine: true, NetworkID: "gone"})
		b.start()
		m := b.accept()
		m.told(everything(5, on(task("t1", 5, cluster.StateRunning), place(4098, 2))), nodesUpdate(5), networkUpdate(5, "a", 4098, serving("t1", 1, 2)))
		m.beat(3500 * time.Millisecond)
		m.expect("t1", cluster.StatePreparing, "preparing", "waiting for network a on this node: its subnet 10.0.2.0/24 overlaps 10.0.2.0/24, which network gone of its engine has here")
		b.driver.SetAddressUses()
		m.beat(1500 * time.Millisecond)
		m.expect("t1", cluster.StateRunning, "started", "")
		b.stop()
	})
}

// TestNetworks_AnotherNodeOfTheEngine carries them: the task doesn't wait for a plane of its own
// node, which does nothing.
func TestNetworks_AnotherNodeOfTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newNetworkBench(t)
		b.start()
		m := b.accept()
		nodes := nodesUpdate(5)
		nodes.Nodes = nodes.Nodes[1:]
		update := networkUpdate(5, "a", 4098)
		_ = b.plane.Apply(t.Context(), []network.Step{{Do: network.Add, Object: network.Bridge{Name: "skb1002"}}})
		_, _ = b.driver.KeepNetworks(t.Context(), "node2", []*cluster.Network{update.Network}) // as the other does
		m.told(everything(5, on(task("t1", 5, cluster.StateRunning), place(4098, 2))), nodes, update)
		m.expect("t1", cluster.StatePreparing, "preparing", "waiting for network a on this node: the node carries no networks")
		m.told(nil, &cluster.NetworkUpdate{NetworkID: "a", From: 5, To: 6, Endpoints: []cluster.NetworkEndpoint{{ID: "t1", Node: 2, Host: 2}}})
		m.beat(100 * time.Millisecond)
		m.expect("t1", cluster.StateRunning, "started", "")
		if existing, _ := b.plane.Dump(t.Context(), "c"); len(existing.Objects) != 1 {
			t.Errorf("the plane has %v", existing.Objects)
		}
		b.stop()
	})
}

// TestNetworks_AStopWaitsUntilNobodyIsLedThere has tasks stop that a virtual IP or a port leads to, a
// second after the agent heard of it, and others at once.
func TestNetworks_AStopWaitsUntilNobodyIsLedThere(t *testing.T) {
	update := func(change func(*cluster.NetworkService)) *cluster.NetworkUpdate {
		u := networkUpdate(5, "a", 4098, serving("t1", 1, 2))
		change(&u.Services[0])
		return u
	}
	for what, c := range map[string]struct {
		update *cluster.NetworkUpdate
		stop   func(b *networkBench, m *manager)
		job    bool
		labels map[string]string
		wait   time.Duration
	}{
		"virtual IP": {update: update(func(*cluster.NetworkService) {}), wait: time.Second},
		"port": {update: update(func(s *cluster.NetworkService) {
			s.VirtualIP, s.Ports = 0, []cluster.PublishedPort{{Protocol: "tcp", Published: 80, Target: 80}}
		}), wait: time.Second},
		"neither": {update: update(func(s *cluster.NetworkService) { s.VirtualIP = 0 })},
		"a job":   {update: update(func(*cluster.NetworkService) {}), job: true},
		"fenced, with a lease that ends before": {update: update(func(*cluster.NetworkService) {}), labels: map[string]string{"skep.fence": "true"}, wait: 500 * time.Millisecond,
			stop: func(_ *networkBench, m *manager) {
				m.beat(time.Second) // firstLease is over half a second later.
				m.diff(5, 6, nil, on(task("t1", 6, cluster.StateShutdown), place(4098, 2)))
			}},
		"the record is gone": {update: update(func(*cluster.NetworkService) {}), stop: func(_ *networkBench, m *manager) { m.diff(5, 6, []string{"t1"}) }},
		"dead for managers": {update: update(func(*cluster.NetworkService) {}), stop: func(_ *networkBench, m *manager) {
			dead := on(task("t1", 6, cluster.StateRunning), place(4098, 2))
			dead.Status.State = cluster.StateOrphaned
			m.diff(5, 6, nil, dead)
		}},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newNetworkBench(t)
				b.start()
				m := b.accept()
				set := everything(5, on(task("t1", 5, cluster.StateRunning), place(4098, 2)))
				set.Revisions[0].Job, set.Revisions[0].ServiceLabels = c.job, c.labels
				m.told(set, nodesUpdate(5), c.update)
				m.beat(100 * time.Millisecond)
				m.expect("t1", cluster.StateRunning, "started", "")
				if c.update.Services[0].VirtualIP != 0 {
					b.expect("chain ip v-1002-10.0.2.100 to 10.0.2.2", true)
				}
				heard := time.Now()
				if c.stop != nil {
					c.stop(b, m)
					heard = time.Now()
				} else {
					m.diff(5, 6, nil, on(task("t1", 6, cluster.StateShutdown), place(4098, 2)))
				}
				time.Sleep(50 * time.Millisecond)
				synctest.Wait()
				if c.update.Services[0].VirtualIP != 0 && what != "the record is gone" { // That has gone from the account, too.
					b.expect("chain ip v-1002-10.0.2.100 reject", true) // The node itself knows at once.
				}
				m.beat(2 * time.Second)
				if got, stopped := b.engine.stops["t1"]; !stopped || got.Sub(heard).Round(100*time.Millisecond) != c.wait {
					t.Errorf("stopped %v (%v) after it was heard of, want %v", got.Sub(heard), stopped, c.wait)
				}
				b.stop()
			})
		})
	}
}

// listening is an engine whose programs listen some time after the first look at them.
type listening struct {
	*noting
	after time.Duration
	began atomic.Pointer[time.Time]
	looks atomic.Int64
}

func (e *listening) Listens(_ int, ports []cluster.PublishedPort) bool {
	now := time.Now()
	e.began.CompareAndSwap(nil, &now)
	e.looks.Add(1)
	return len(ports) == 1 && ports[0].Target == 80 && now.Sub(*e.began.Load()) >= e.after
}

// TestNetworks_NobodyIsLedToAProgramThatDoesNotListen: a task behind a published port runs when its program listens
// there, or after five seconds; it can be stopped meanwhile.
func TestNetworks_NobodyIsLedToAProgramThatDoesNotListen(t *testing.T) {
	for what, c := range map[string]struct {
		after  time.Duration
		change func(*cluster.NetworkService)
		want   time.Duration
		looks  int64
		job    bool
		stop   bool
	}{
		"it is a job":          {after: time.Hour, job: true},
		"it listens soon":      {after: time.Second, want: time.Second, looks: 25},
		"it never does":        {after: time.Hour, want: 5 * time.Second, looks: 110},
		"nothing is published": {after: time.Hour, change: func(s *cluster.NetworkService) { s.Ports = nil }},
		"it is to stop":        {after: time.Hour, stop: true, looks: 20},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newNetworkBench(t)
				engine := &listening{noting: b.engine, after: c.after}
				b.runs = engine
				b.start()
				m := b.accept()
				ingress := networkUpdate(5, "ingress", 4097, cluster.NetworkEndpoint{ID: "t1", Name: "web.1.t1", ServiceID: "s1", Node: 1, Host: 2})
				if c.change != nil {
					c.change(&ingress.Services[0])
				}
				began := time.Now()
				set := everything(5, on(task("t1", 5, cluster.StateRunning), place(4097, 2)))
				set.Revisions[0].Job = c.job
				m.told(set, nodesUpdate(5), ingress)
				if c.want > 0 || c.stop {
					m.beat(500 * time.Millisecond)
					m.expect("t1", cluster.StateStarting, "started, waiting until it listens at a published port", "")
					if m.reported("t1").PID == 0 {
						t.Error("its log can't be read meanwhile")
					}
				}
				if c.stop {
					m.diff(5, 6, nil, on(task("t1", 6, cluster.StateShutdown), place(4097, 2)))
					m.beat(100 * time.Millisecond)
					m.expect("t1", cluster.StateShutdown, "shutdown", "")
				} else {
					m.beat(8 * time.Second)
					m.expect("t1", cluster.StateRunning, "started", "")
					if got := m.reported("t1").Since.Std().Sub(began).Round(200 * time.Millisecond); got != c.want {
						t.Errorf("it ran after %v, want %v", got, c.want)
					}
				}
				if looks := engine.looks.Load(); looks > c.looks || c.looks > 0 && looks < c.looks/2 {
					t.Errorf("it was looked at %d times, want %d at most, and half as often at least", looks, c.looks)
				}
				b.stop()
			})
		})
	}
}

// TestNetworks_WhatEndsWhileItDrains isn't waited for.
func TestNetworks_WhatEndsWhileItDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newNetworkBench(t)
		b.start()
		m := b.accept()
		m.told(everything(5, on(task("t1", 5, cluster.StateRunning), place(4098, 2))), nodesUpdate(5), networkUpdate(5, "a", 4098, serving("t1", 1, 2)))
		m.beat(100 * time.Millisecond)
		m.diff(5, 6, nil, on(task("t1", 6, cluster.StateShutdown), place(4098, 2)))
		time.Sleep(100 * time.Millisecond)
		m.expect("t1", cluster.StateRunning, "started", "")
		b.driver.Kill("t1", 3)
		synctest.Wait()
		m.expect("t1", cluster.StateShutdown, "shutdown", "")
		b.stop()
	})
}

// TestNetworks_ALaterPortReplacesNoTask connects a container that runs when its task gets an address
// in the ingress network, and takes it off when it has none any more; once each, over a restart.
func TestNetworks_ALaterPortReplacesNoTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newNetworkBench(t)
		b.start()
		m := b.accept()
		m.told(everything(5, on(task("t1", 5, cluster.StateRunning), place(4098, 2))), nodesUpdate(5), networkUpdate(5, "a", 4098), networkUpdate(5, "ingress", 4097))
		m.beat(100 * time.Millisecond)
		m.expect("t1", cluster.StateRunning, "started", "")
		id := m.reported("t1").ContainerID
		b.driver.SetAway(true)
		m.diff(5, 6, nil, on(task("t1", 6, cluster.StateRunning), place(4097, 9), place(4098, 2)))
		m.beat(time.Second)
		m.expect("t1", cluster.StateRunning, "started", "cannot connect to the simulated engine")
		b.driver.SetAway(false)
		m.beat(11 * time.Second)
		m.expect("t1", cluster.StateRunning, "started", "")
		if got := b.driver.Places()["t1"]; len(got) != 2 || got[1].Network.ID != "ingress" || got[1].Host != 9 || m.reported("t1").ContainerID != id {
			t.Errorf("attached: %+v", got)
		}
		b.crash()
		b.engine.connected = nil
		b.start()
		m = b.accept()
		m.told(everything(7, on(task("t1", 6, cluster.StateRunning), place(4097, 9), place(4098, 2))), nodesUpdate(7), networkUpdate(7, "a", 4098), networkUpdate(7, "ingress", 4097))
		m.beat(time.Second)
		if len(b.engine.connected) > 0 {
			t.Error("connected again after a restart")
		}
		m.diff(7, 8, nil, on(task("t1", 8, cluster.StateRunning), place(4098, 2)))
		if got := b.driver.Places()["t1"]; len(got) != 1 || got[0].Network.ID != "a" || !slices.Equal(b.engine.connected, []string{"t1"}) {
			t.Errorf("attached: %+v by %q", got, b.engine.connected)
		}
		b.stop()
	})
}

// TestNetworks_ARestartKeepsThem starts the agent anew without managers: the plane stays as it is, and
// nothing is told of names; then a manager tells of another set, and what it doesn't tell of goes, the
// engine's network before the bridge.
func TestNetworks_ARestartKeepsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newNetworkBench(t)
		b.start()
		m := b.accept()
		one := on(task("t1", 5, cluster.StateRunning), place(4098, 2))
		set := everything(5, one)
		set.Revisions[0].ServiceLabels = map[string]string{"skep.simulate.stop-delay": "1s"}
		m.told(set, nodesUpdate(5), networkUpdate(5, "a", 4098, serving("t1", 1, 2), serving("t2", 2, 3)), networkUpdate(5, "b", 4099))
		m.beat(3 * time.Second)
		chain := "chain ip v-1002-10.0.2.100 to 10.0.2.2 10.0.2.3"
		b.expect(chain, true)
		if names := b.names.Load(); names == nil || !names.Complete || len(names.Networks) != 2 || names.Askers[netip.MustParseAddr("10.0.2.2")] == nil {
			t.Errorf("names: %+v", names)
		}
		b.crash()
		b.names.Store(nil)
		// Somebody removes an object meanwhile; and the kernel knows of t3, which the record lacks.
		gone := "fdb 02:42:0a:00:02:03 dev skx1002 dst 192.0.2.2 self permanent"
		existing, _ := b.plane.Dump(t.Context(), "c")
		for _, o := range existing.Objects {
			if o.String() == gone {
				_ = b.plane.Apply(t.Context(), []network.Step{{Do: network.Remove, Object: o}})
			}
		}
		newer := network.Chain{Name: "v-1002-10.0.2.100", Backends: "10.0.2.2 10.0.2.3 10.0.2.4"}
		_ = b.plane.Apply(t.Context(), []network.Step{{Do: network.Replace, Object: newer, Was: newer}})
		b.refused.Store(true)
		b.start()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.expect(gone, true)
		b.expect(newer.String(), true)
		if b.driver.Count(node) != 1 || b.names.Load() != nil {
			t.Errorf("%d containers run, names %+v", b.driver.Count(node), b.names.Load())
		}
		b.refused.Store(false)
		m = b.accept()
		// A second session's set without the network b.
		m.told(everything(9, one), nodesUpdate(9), networkUpdate(9, "a", 4098, serving("t1", 1, 2)))
		m.beat(time.Second)
		b.expect("chain ip v-1002-10.0.2.100 to 10.0.2.2", true)
		b.expect(gone, false)
		if got := b.driver.Networks(); !slices.Equal(got, []string{"a"}) || b.plane.HasBridge("skb1003") || !b.plane.HasBridge("skb1002") {
			t.Errorf("the engine has %q", got)
		}
		// Dropped while a container is on it: the bridge stays until that has ended.
		slow := on(task("t1", 10, cluster.StateShutdown), place(4098, 2))
		m.told(&cluster.Assignments{From: 9, To: 10, Tasks: []*cluster.Task{slow}}, &cluster.NetworkUpdate{NetworkID: "a", From: 9, To: 10, Dropped: true})
		m.beat(500 * time.Millisecond)
		if got := b.driver.Networks(); !slices.Equal(got, []string{"a"}) || !b.plane.HasBridge("skb1002") {
			t.Error("the bridge has gone below a container")
		}
		m.beat(3 * time.Second)
		if got := b.driver.Networks(); len(got) > 0 || b.plane.HasBridge("skb1002") {
			t.Errorf("the engine has %q", got)
		}
		b.stop()
	})
}

// TestNetworks_AnotherTakesThePlace has a network be removed, and another one get its addresses or its
// office while a container is still on it, or its number, which it gets later: the bridge stays below the
// engine's network, and the other one waits for what it can't share.
func TestNetworks_AnotherTakesThePlace(t *testing.T) {
	for what, c := range map[string]struct {
		id     string
		vni    uint32
		subnet string
		waits  bool
	}{
		"its addresses": {"b", 4099, "10.0.2.0/24", true},
		"some of them":  {"b", 4099, "10.0.0.0/16", true},
		"its number":    {"b", 4098, "10.0.9.0/24", false},
		"its office":    {"b", 4099, "10.0.9.0/24", false},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newNetworkBench(t)
				b.start()
				m := b.accept()
				old := networkUpdate(5, "a", 4098, serving("t1", 1, 2))
				old.Network.Spec.Ingress = true
				set := everything(5, on(task("t1", 5, cluster.StateRunning), place(4098, 2)))
				set.Revisions[0].ServiceLabels = map[string]string{"skep.simulate.stop-delay": "2s"}
				m.told(set, nodesUpdate(5), old)
				m.beat(time.Second)
				m.expect("t1", cluster.StateRunning, "started", "")
				last := on(task("t1", 6, cluster.StateShutdown), place(4098, 2))
				if c.vni == 4098 {
					m.diff(5, 6, nil, last)
					m.beat(4 * time.Second)
					m.diff(6, 7, []string{"t1"})
				} else {
					m.diff(5, 7, nil)
				}

				next := networkUpdate(6, c.id, c.vni)
				next.Network.Spec.Ingress = true
				prefix := netip.MustParsePrefix(c.subnet)
				next.Network.Subnets = []cluster.Subnet{{Prefix: prefix, Gateway: prefix.Addr().Next()}}
				m.told(nil, next) // It comes before the other one goes.
				m.beat(100 * time.Millisecond)
				tasks := []*cluster.Task{on(task("t2", 8, cluster.StateRunning), place(c.vni, 7))}
				if c.vni != 4098 {
					tasks = append(tasks, last)
				}
				m.told(&cluster.Assignments{From: 7, To: 8, Tasks: tasks}, &cluster.NetworkUpdate{NetworkID: "a", From: 5, To: 8, Dropped: true})
				m.beat(time.Second)
				if !b.plane.HasBridge("skb1002") {
					t.Error("the bridge has gone below a container")
				}
				if c.waits {
					m.expect("t2", cluster.StatePreparing, "preparing", "waiting for network b on this node: the engine has yet to forget network a (a)")
				} else {
					m.expect("t2", cluster.StateRunning, "started", "")
				}
				m.beat(4 * time.Second)
				m.expect("t2", cluster.StateRunning, "started", "")
				if got := b.driver.Networks(); !slices.Equal(got, []string{"b"}) || b.plane.HasBridge("skb1002") != (c.vni == 4098) {
					t.Errorf("the engine has %q", got)
				}
				b.stop()
			})
		})
	}
}

// TestNetworks_AContainerThatNobodyKnows is on a network that isn't needed any more: the engine keeps
// that, so its bridge stays, and others come and go.
func TestNetworks_AContainerThatNobodyKnows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newNetworkBench(t)
		b.start()
		m := b.accept()
		old := networkUpdate(5, "a", 4098)
		m.told(everything(5), nodesUpdate(5), old)
		m.beat(time.Second)
		if err := b.driver.Run("guest", agent.Attachment{Network: old.Network, Host: 9}); err != nil {
			t.Fatal(err)
		}
		m.told(&cluster.Assignments{From: 5, To: 6, Tasks: []*cluster.Task{on(task("t1", 6, cluster.StateRunning), place(4099, 2))}},
			networkUpdate(6, "b", 4099), &cluster.NetworkUpdate{NetworkID: "a", From: 5, To: 6, Dropped: true})
		m.beat(15 * time.Second)
		if got := b.driver.Networks(); !slices.Equal(got, []string{"a", "b"}) || !b.plane.HasBridge("skb1002") || b.driver.Count(node) != 1 {
			t.Errorf("the engine has %q, bridge: %v", got, b.plane.HasBridge("skb1002"))
		}
		b.crash()
		b.record = &memory{}
		b.start()
		m = b.accept()
		m.told(everything(7), nodesUpdate(7))
		m.beat(15 * time.Second)
		if got := b.driver.Networks(); !slices.Equal(got, []string{"a"}) || !b.plane.HasBridge("skb1002") {
			t.Errorf("the engine has %q, bridge: %v", got, b.plane.HasBridge("skb1002"))
		}
		b.driver.Discard("guest")
		m.beat(15 * time.Second)
		if got := b.driver.Networks(); len(got) > 0 || b.plane.HasBridge("skb1002") || b.plane.HasBridge("skb1003") {
			t.Errorf("the engine has %q", got)
		}
		b.stop()
	})
}

// TestNetworks_ARecordOlderThanTheEngine knows nothing of a network that the engine has. Its bridge stays
// below that, while the engine is away, and all else is done.
func TestNetworks_ARecordOlderThanTheEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newNetworkBench(t)
		b.start()
		m := b.accept()
		m.told(everything(5), nodesUpdate(5), networkUpdate(5, "a", 4098, serving("t2", 2, 3)))
		m.beat(3 * time.Second)
		old := b.record.now()
		m.told(nil, networkUpdate(6, "b", 4099))
		m.beat(time.Second)
		if got := b.driver.Networks(); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("the engine has %q", got)
		}
		b.crash()
		b.record = &memory{data: old} // The disk was full.
		b.driver.SetAway(true)
		b.start()
		m = b.accept()
		m.told(everything(9), nodesUpdate(9), networkUpdate(9, "a", 4098))
		m.beat(time.Second)
		b.expect("chain ip v-1002-10.0.2.100 reject", true)
		if !b.plane.HasBridge("skb1003") {
			t.Error("the bridge has gone below the engine's network")
		}
		b.driver.SetAway(false)
		m.beat(12 * time.Second)
		if got := b.driver.Networks(); !slices.Equal(got, []string{"a"}) || b.plane.HasBridge("skb1003") {
			t.Errorf("the engine has %q", got)
		}
		b.stop()
	})
}

// TestNetworks_OutOfSequence ends the session, as a manager does that is behind for too long.
func TestNetworks_OutOfSequence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newNetworkBench(t)
		b.start()
		m := b.accept()
		m.told(everything(5), nodesUpdate(5), networkUpdate(5, "a", 4098, serving("t2", 2, 3)))
		m.beat(100 * time.Millisecond)
		b.expect("neigh 10.0.2.3 lladdr 02:42:0a:00:02:03 dev skb1002", true)
		m.told(nil, &cluster.NetworkUpdate{NetworkID: "a", From: 4, To: 6, Gone: []string{"t2"}})
		if !m.over() {
			t.Fatal("the session goes on")
		}
		b.expect("neigh 10.0.2.3 lladdr 02:42:0a:00:02:03 dev skb1002", true)
		m = b.accept()
		m.told(everything(5), nodesUpdate(5), networkUpdate(4, "a", 4098))
		m.beat(time.Second)
		b.expect("neigh 10.0.2.3 lladdr 02:42:0a:00:02:03 dev skb1002", true) // It is behind.
		m.told(nil, &cluster.NetworkUpdate{NetworkID: "a", From: 4, To: 7})
		m.beat(3 * time.Second)
		b.expect("neigh 10.0.2.3 lladdr 02:42:0a:00:02:03 dev skb1002", false)
		if m.over() {
			t.Fatal("a manager that has caught up is left")
		}
		m.told(nil, networkUpdate(6, "a", 4098))
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if !m.over() {
			t.Fatal("a manager that stays behind is kept")
		}
		b.stop()
	})
}
