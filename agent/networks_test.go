package agent

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"skep/agent/network"
	"skep/agent/network/dns"
	"skep/cluster"
)

func testNetwork(id string, vni uint32, spec swarm.NetworkSpec) *cluster.Network {
	if spec.Name == "" {
		spec.Name = id
	}
	third := byte(vni - 4096)
	v4, v6 := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, third, 0}), 24), netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 7: third}), 64)
	return &cluster.Network{ID: id, VNI: vni, Spec: spec, Subnets: []cluster.Subnet{
		{Prefix: v4, Gateway: v4.Addr().Next()}, {Prefix: v6, Gateway: v6.Addr().Next()},
	}}
}

func addrs(texts ...string) (list []netip.Addr) {
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

// testFacts are those of node1, which has index 1: a service with a virtual IP and one without on a
// network, published, with tasks here and on node2.
func testFacts() *facts {
	web, ingress := testNetwork("web", 4097, swarm.NetworkSpec{}), testNetwork("in", 4098, swarm.NetworkSpec{Ingress: true})
	web.Spec.DriverConfiguration = &swarm.Driver{Options: map[string]string{"com.docker.network.driver.mtu": "1400"}}
	web.Spec.Internal = true
	return &facts{
		Cluster: "c", Node: "node1", MTU: 9000, Complete: true,
		Accounts: map[string]*account{
			"": {To: 5, Nodes: []cluster.NetworkNode{
				{ID: "node1", Index: 1, Addr: netip.MustParseAddr("192.0.2.1")}, {ID: "node2", Index: 2, Addr: netip.MustParseAddr("192.0.2.2")},
			}, Settings: cluster.NetworkSettings{Seed: 7}},
			"web": {To: 5, Network: web, Services: []cluster.NetworkService{
				{ID: "s1", Name: "Api", Aliases: []string{"back", "db"}, VirtualIP: 100, Affinity: true},
				{ID: "s2", Name: "db"},
			}, Endpoints: []cluster.NetworkEndpoint{
				{ID: "t1", Name: "Api.1.t1", ServiceID: "s1", Node: 1, Host: 2, Phase: cluster.EndpointServing},
				{ID: "t2", Name: "Api.2.t2", ServiceID: "s1", Node: 2, Host: 3, Phase: cluster.EndpointServing},
				{ID: "t3", Name: "Api.1.t3", ServiceID: "s1", Node: 2, Host: 4, Phase: cluster.EndpointKnown},
				{ID: "t4", Name: "db.1.t4", ServiceID: "s2", Node: 2, Host: 5, Phase: cluster.EndpointServing},
				{ID: "t5", Name: "db.2.t5", ServiceID: "s2", Node: 2, Host: 6, Phase: cluster.EndpointDraining},
				{ID: "t6", Name: "", ServiceID: "", Node: 1, Host: 7, Phase: cluster.EndpointServing},
			}},
			"in": {To: 5, Network: ingress, Services: []cluster.NetworkService{
				{ID: "s1", Name: "Api", Ports: []cluster.PublishedPort{{Protocol: "tcp", Published: 80, Target: 8080}}},
			}, Endpoints: []cluster.NetworkEndpoint{
				{ID: "t1", Name: "Api.1.t1", ServiceID: "s1", Node: 1, Host: 2, Phase: cluster.EndpointServing},
				{ID: "t2", Name: "Api.2.t2", ServiceID: "s1", Node: 2, Host: 3, Phase: cluster.EndpointServing},
			}},
			"old": {To: 5, Network: testNetwork("old", 4099, swarm.NetworkSpec{}), Dropped: true},
		},
		Tasks: []ownTask{{
			ID: "t1", Addresses: []cluster.Address{{VNI: 4097, Host: 2}, {VNI: 4098, Host: 2}}, Serves: true,
			Revision: &cluster.Revision{Spec: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{DNSConfig: &swarm.DNSConfig{Nameservers: []string{"9.9.9.9"}}}}},
		}},
	}
}

func TestWanted_IsWhatManagersTold(t *testing.T) {
	w := testFacts().wanted()
	if w.Cluster != "c" || w.Self != (network.Node{Index: 1, Addr: netip.MustParseAddr("192.0.2.1")}) || w.DataPort != 4789 || w.Seed != 7 ||
		w.Marks != (network.Marks{Peer: 0x3ff00000, LocalClient: 0x40000000}) || !slices.Equal(w.Nodes, []network.Node{{Index: 2, Addr: netip.MustParseAddr("192.0.2.2")}}) {
		t.Errorf("the node: %+v", w)
	}
	if len(w.Networks) != 3 {
		t.Fatalf("networks: %+v", w.Networks)
	}
	in, web, old := w.Networks[0], w.Networks[1], w.Networks[2]
	if !in.Ingress || in.MTU != 8950 || web.Ingress || !web.Internal || web.MTU != 1400 {
		t.Errorf("the networks: %+v", w.Networks)
	}
	if old.ID != "old" || len(old.Subnets) != 2 || old.Bridge() != "skb1003" {
		t.Errorf("the bridge of a network that isn't needed any more has gone before the engine's network: %+v", old)
	}
	if want := (network.Endpoint{Node: 2, Addrs: addrs("10.0.1.4", "fd00:0:0:1::4")}); len(web.Endpoints) != 6 || !reflect.DeepEqual(web.Endpoints[2], want) {
		t.Errorf("endpoints: %+v", web.Endpoints)
	}
	if want := []network.Service{
		{VIP: netip.MustParseAddr("10.0.1.100"), Backends: addrs("10.0.1.2", "10.0.1.3"), Affinity: true},
		{VIP: netip.MustParseAddr("fd00:0:0:1::64"), Backends: addrs("fd00:0:0:1::2", "fd00:0:0:1::3"), Affinity: true},
	}; !reflect.DeepEqual(web.Services, want) {
		t.Errorf("services: %+v", web.Services)
	}
	if want := []network.Port{{Protocol: "tcp", Published: 80, Target: 8080, Backends: addrs("10.0.2.2", "10.0.2.3", "fd00:0:0:2::2", "fd00:0:0:2::3")}}; !reflect.DeepEqual(w.Ports, want) {
		t.Errorf("ports: %+v", w.Ports)
	}
}

// TestWanted_OwnTasksAreKnownFirst takes a task out of everything as soon as the node itself
// knows that it stops.
func TestWanted_OwnTasksAreKnownFirst(t *testing.T) {
	f := testFacts()
	f.Tasks[0].Serves = false
	w := f.wanted()
	if got := w.Networks[1].Services[0].Backends; !slices.Equal(got, addrs("10.0.1.3")) {
		t.Errorf("backends: %v", got)
	}
	if got := w.Ports[0].Backends; !slices.Equal(got, addrs("10.0.2.3", "fd00:0:0:2::3")) {
		t.Errorf("backends of the port: %v", got)
	}
	if got := f.names().Networks["web"].Names["tasks.api"].Addrs; !slices.Equal(got, addrs("10.0.1.3", "fd00:0:0:1::3")) {
		t.Errorf("names: %v", got)
	}
}

// TestWanted_WhoIsMissedHasNothingLedToIt leads clients elsewhere when gossip misses a node, as long as
// there is an elsewhere. How to reach the node stays.
func TestWanted_WhoIsMissedHasNothingLedToIt(t *testing.T) {
	f := testFacts()
	f.Away = map[string]bool{"node2": true, "node9": true}
	w := f.wanted()
	if got := w.Networks[1].Services[0].Backends; !slices.Equal(got, addrs("10.0.1.2")) {
		t.Errorf("backends: %v", got)
	}
	if got := w.Ports[0].Backends; !slices.Equal(got, addrs("10.0.2.2", "fd00:0:0:2::2")) {
		t.Errorf("backends of the port: %v", got)
	}
	names := f.names().Networks["web"].Names
	if got := names["tasks.api"].Addrs; !slices.Equal(got, addrs("10.0.1.2", "fd00:0:0:1::2")) {
		t.Errorf("tasks.api: %v", got)
	}
	if got := names["db"].Addrs; !slices.Contains(got, addrs("10.0.1.5")[0]) {
		t.Errorf("the only task of db isn't in %v", got)
	}
	if len(w.Networks[1].Endpoints) != 6 || len(w.Nodes) != 1 {
		t.Errorf("endpoints %v of nodes %v", w.Networks[1].Endpoints, w.Nodes)
	}
}

// TestWanted_WhoIsDeadIsntThere leads nobody to a machine that is dead, also where there is no elsewhere, and has who
// sends there be refused.
func TestWanted_WhoIsDeadIsntThere(t *testing.T) {
	f := testFacts()
	f.Away = map[string]bool{"node2": true}
	f.Gone = f.Away
	w := f.wanted()
	for _, e := range slices.Concat(w.Networks[0].Endpoints, w.Networks[1].Endpoints) {
		if e.Gone != (e.Node == 2) {
			t.Errorf("endpoint: %+v", e)
		}
	}
	if got := w.Ports[0].Backends; !slices.Equal(got, addrs("10.0.2.2", "fd00:0:0:2::2")) || len(w.Nodes) != 1 {
		t.Errorf("backends of the port: %v; nodes: %v", got, w.Nodes)
	}
	names := f.names().Networks["web"].Names
	for name, want := range map[string][]netip.Addr{"tasks.api": addrs("10.0.1.2", "fd00:0:0:1::2"), "api.2": nil, "db.1.t4": nil} {
		if record, known := names[name]; !known || !slices.Equal(record.Addrs, want) {
			t.Errorf("%s: %v (%v), want %v", name, record.Addrs, known, want)
		}
	}
}

// TestWarning_OfSlowEncryption is said while the node has an encrypted network, beside what else is wrong.
func TestWarning_OfSlowEncryption(t *testing.T) {
	const slow, said = "no WireGuard", "encrypted networks are slow here: no WireGuard"
	n := newNetworkSet(&remembered{Networks: []*account{{Network: testNetwork("web", 4097, swarm.NetworkSpec{})}}})
	if got := n.warning(slow); got != "" {
		t.Errorf("without an encrypted network: %q", got)
	}
	safe := swarm.NetworkSpec{DriverConfiguration: &swarm.Driver{Options: map[string]string{"encrypted": ""}}}
	n.accounts["safe"] = &account{Network: testNetwork("safe", 4098, safe)}
	if got := n.warning(slow); got != said {
		t.Errorf("with one: %q", got)
	}
	if got := n.warning(""); got != "" {
		t.Errorf("where it isn't slow: %q", got)
	}
	n.problem = "a step failed"
	if got := n.warning(slow); got != "networks: a step failed; "+said {
		t.Errorf("with another problem: %q", got)
	}
	n.problem = ""
	n.drop("safe", 9)
	if got := n.warning(slow); got != "" {
		t.Errorf("after it was dropped: %q", got)
	}
}

func TestWanted_PublishedWhereItWasAsked(t *testing.T) {
	all, here := addrs("10.0.2.2", "10.0.2.3"), addrs("10.0.2.2")
	for _, c := range []struct {
		local      cluster.PublishLocality
		hereServes bool
		want       []netip.Addr
	}{
		{cluster.PublishAnywhere, true, all}, {cluster.PublishPreferLocal, true, here}, {cluster.PublishLocal, true, here},
		{cluster.PublishAnywhere, false, addrs("10.0.2.3")}, {cluster.PublishPreferLocal, false, addrs("10.0.2.3")}, {cluster.PublishLocal, false, nil},
	} {
		f := testFacts()
		f.Tasks[0].Serves = c.hereServes
		s := &f.Accounts["in"].Services[0]
		s.Local, s.Affinity, s.Ports[0].HostIP = c.local, true, netip.MustParseAddr("192.0.2.1")
		p := f.wanted().Ports[0]
		if got := slices.DeleteFunc(p.Backends, netip.Addr.Is6); !slices.Equal(got, c.want) || !p.Affinity || p.HostIP != s.Ports[0].HostIP {
			t.Errorf("locality %d, served here %v: %+v", c.local, c.hereServes, p)
		}
	}
}

func TestWanted_OnlyWhoIsToldThatItCarries(t *testing.T) {
	f := testFacts()
	f.Node = "node3"
	if w := f.wanted(); w != nil {
		t.Errorf("a node that carries no networks wants %+v", w)
	}
	delete(f.Accounts, "")
	if w := f.wanted(); w != nil {
		t.Errorf("a node that knows no nodes wants %+v", w)
	}
}

func TestNames(t *testing.T) {
	names := testFacts().names()
	web := names.Networks["web"]
	vip, served := addrs("10.0.1.100", "fd00:0:0:1::64"), addrs("10.0.1.2", "fd00:0:0:1::2", "10.0.1.3", "fd00:0:0:1::3")
	db := addrs("10.0.1.5", "fd00:0:0:1::5")
	for name, want := range map[string]dns.Record{
		"api": {Addrs: vip}, "back": {Addrs: vip}, "tasks.api": {Addrs: served, Shuffle: true}, "tasks.back": {Addrs: served, Shuffle: true},
		"db":       {Addrs: append(slices.Clone(vip), db...), Shuffle: true}, // and another's alias
		"tasks.db": {Addrs: append(slices.Clone(served), db...), Shuffle: true},
		"api.1.t1": {Addrs: served[:2]}, "api.2.t2": {Addrs: served[2:]}, "api.1.t3": {}, "db.2.t5": {},
		"api.1": {Addrs: served[:2]}, "api.2": {Addrs: served[2:]}, "db.2": {},
		"db.1": {Addrs: db}, "db.1.t4": {Addrs: db},
	} {
		if got, known := web.Names[name]; !known || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is %+v, want %+v", name, got, want)
		}
		delete(web.Names, name)
	}
	if len(web.Names) > 0 {
		t.Errorf("other names: %+v", web.Names)
	}
	for addr, want := range map[string]string{"10.0.1.100": "Api", "10.0.1.4": "Api.1.t3", "fd00:0:0:1::5": "db.1.t4", "10.0.1.7": ""} {
		if got := web.Addresses[netip.MustParseAddr(addr)]; got != want {
			t.Errorf("%s is called %q, want %q", addr, got, want)
		}
	}
	if len(names.Networks) != 1 || len(web.Subnets) != 2 || !names.Complete {
		t.Errorf("%+v", names)
	}
	at := map[string]string{}
	for _, l := range names.Listen {
		at[l.Addr.String()] = l.Bridge + " " + l.From.String()
	}
	if len(at) != 4 || at["10.0.1.1:27053"] != fmt.Sprintf("skb%x 10.0.1.0/24", testFacts().Accounts["web"].Network.VNI) || at["[fd00:0:0:1::1]:27053"] == "" {
		t.Errorf("it is asked at %v", at)
	}
	// The task of this node asks by each of its addresses, and another container that it carries.
	one := names.Askers[netip.MustParseAddr("10.0.1.2")]
	if one == nil || !slices.Equal(one.Networks, []string{"web"}) || !slices.Equal(one.Resolvers, []netip.AddrPort{netip.MustParseAddrPort("9.9.9.9:53")}) {
		t.Errorf("it asks as %+v", one)
	}
	for _, addr := range addrs("fd00:0:0:1::2", "10.0.2.2", "fd00:0:0:2::2") {
		if names.Askers[addr] != one {
			t.Errorf("from %s it asks as %+v", addr, names.Askers[addr])
		}
	}
	if other := names.Askers[netip.MustParseAddr("10.0.1.7")]; other == nil || !slices.Equal(other.Networks, []string{"web"}) || len(names.Askers) != 6 {
		t.Errorf("who asks: %v", names.Askers)
	}
}

// TestNetworkSet_IsTheLastThatAManagerHad lets managers, some of them behind, tell of a network in
// whole or by differences, over several sessions: what is held is what some manager had, and never
// goes back.
func TestNetworkSet_IsTheLastThatAManagerHad(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		network := testNetwork("web", 4097, swarm.NetworkSpec{})
		// The truth, by index from 1: endpoints by ID.
		truth := []map[string]cluster.NetworkEndpoint{{}, {}}
		n := newNetworkSet(&remembered{})
		sent, last, staged := uint64(0), uint64(0), false
		diff := func(from, to uint64) *cluster.NetworkUpdate {
			u := &cluster.NetworkUpdate{NetworkID: "web", From: from, To: to}
			for id, e := range truth[to] {
				if was, is := truth[from][id]; !is || !reflect.DeepEqual(was, e) {
					u.Endpoints = append(u.Endpoints, e)
				}
			}
			for id := range truth[from] {
				if _, is := truth[to][id]; !is {
					u.Gone = append(u.Gone, id)
				}
			}
			return u
		}
		t.Repeat(map[string]func(*rapid.T){
			"change": func(t *rapid.T) {
				next := map[string]cluster.NetworkEndpoint{}
				for id, e := range truth[len(truth)-1] {
					next[id] = e
				}
				id := fmt.Sprint("t", rapid.IntRange(0, 5).Draw(t, "which"))
				if _, is := next[id]; is && rapid.Bool().Draw(t, "gone") {
					delete(next, id)
				} else {
					next[id] = cluster.NetworkEndpoint{ID: id, Host: cluster.Host(rapid.IntRange(2, 9).Draw(t, "host"))}
				}
				truth = append(truth, next)
			},
			"session": func(t *rapid.T) {
				n.begin()
				sent = uint64(rapid.IntRange(1, len(truth)-1).Draw(t, "as of"))
				u := diff(0, sent)
				u.Full, u.From, u.Network, u.Gone = true, 0, network, nil
				rest := u.Endpoints
				u.Endpoints, u.More = nil, len(rest) > 0
				if err := n.take(u); err != nil {
					t.Fatal(err)
				}
				for i := range rest { // In as many parts as there are endpoints: nothing is done before the last.
					before := n.accounts["web"]
					part := &cluster.NetworkUpdate{NetworkID: "web", From: sent, To: sent, Endpoints: rest[i : i+1], More: i+1 < len(rest)}
					if err := n.take(part); err != nil {
						t.Fatal(err)
					}
					if part.More && n.accounts["web"] != before {
						t.Fatal("a part of an account was taken for all of it")
					}
				}
			},
			"difference": func(t *rapid.T) {
				if sent == 0 {
					return
				}
				to := uint64(rapid.IntRange(int(sent), len(truth)-1).Draw(t, "to"))
				if err := n.take(diff(sent, to)); err != nil {
					t.Fatal(err)
				}
				sent = to
			},
			"gap": func(t *rapid.T) {
				from := uint64(rapid.IntRange(0, len(truth)-1).Draw(t, "from"))
				if from == sent {
					return
				}
				before := n.accounts["web"]
				if err := n.take(&cluster.NetworkUpdate{NetworkID: "web", From: from, To: from + 1}); !errors.Is(err, errGap) {
					t.Fatalf("from %d after %d: %v", from, sent, err)
				}
				if n.accounts["web"] != before {
					t.Fatal("what is out of sequence was taken in")
				}
			},
			"": func(t *rapid.T) {
				a := n.accounts["web"]
				if a == nil {
					return
				}
				if a.To < last {
					t.Fatalf("back from %d to %d", last, a.To)
				}
				last, staged = a.To, n.behind()
				if staged != (sent < last) {
					t.Fatalf("it is behind: %v, at %d of %d", staged, sent, last)
				}
				got := map[string]cluster.NetworkEndpoint{}
				for _, e := range a.Endpoints {
					got[e.ID] = e
				}
				if !reflect.DeepEqual(got, truth[a.To]) || !slices.IsSortedFunc(a.Endpoints, func(a, b cluster.NetworkEndpoint) int { return int(a.ID[1]) - int(b.ID[1]) }) {
					t.Fatalf("at %d there is %v, want %v", a.To, a.Endpoints, truth[a.To])
				}
			},
		})
	})
}

// TestRevised_IsWhatAMapWouldHave compares with what a map has after the same, in the order of keys.
func TestRevised_IsWhatAMapWouldHave(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type entry struct{ key, value int }
		entries := rapid.Custom(func(t *rapid.T) entry {
			return entry{rapid.IntRange(0, 9).Draw(t, "key"), rapid.Int().Draw(t, "value")}
		})
		have, list := map[int]entry{}, []entry(nil)
		for range rapid.IntRange(1, 5).Draw(t, "updates") {
			gone := rapid.SliceOfN(rapid.IntRange(0, 9), 0, 3).Draw(t, "gone")
			news := rapid.SliceOfN(entries, 0, 5).Draw(t, "news")
			for _, k := range gone {
				delete(have, k)
			}
			for _, e := range news {
				have[e.key] = e
			}
			before := slices.Clone(list)
			next := revised(list, news, gone, func(e *entry) int { return e.key })
			if !slices.Equal(list, before) {
				t.Fatalf("%v became %v: whoever works with it takes its time", before, list)
			}
			list = next
			var want []entry
			for _, k := range slices.Sorted(maps.Keys(have)) {
				want = append(want, have[k])
			}
			if !slices.Equal(list, want) {
				t.Fatalf("%v, want %v, after %v and %v on %v", list, want, gone, news, before)
			}
		}
	})
}
