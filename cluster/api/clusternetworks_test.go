package api

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// overlay is a network as docker's command asks for it.
func overlay(name string, change ...func(*network.CreateRequest)) network.CreateRequest {
	no := false
	asked := network.CreateRequest{Name: name, CreateOptions: network.CreateOptions{
		Driver: "overlay", EnableIPv6: &no, IPAM: &network.IPAM{Driver: "default", Options: map[string]string{}, Config: []network.IPAMConfig{}},
		Options: map[string]string{}, Labels: map[string]string{},
	}}
	for _, c := range change {
		c(&asked)
	}
	return asked
}

func subnets(configs ...network.IPAMConfig) func(*network.CreateRequest) {
	return func(asked *network.CreateRequest) { asked.IPAM.Config = configs }
}

func withIPv6(asked *network.CreateRequest) {
	yes := true
	asked.EnableIPv6 = &yes
}

func (b *bench) createNetwork(asked network.CreateRequest) string {
	b.t.Helper()
	var made network.CreateResponse
	b.do("POST", "/networks/create", asked).want(b.t, 201, "").into(b.t, &made)
	return made.ID
}

func (b *bench) inspectNetwork(ref string) network.Inspect {
	b.t.Helper()
	var shown network.Inspect
	b.do("GET", "/networks/"+ref, nil).want(b.t, 200, "").into(b.t, &shown)
	return shown
}

func (b *bench) networkNames(filters string) string {
	b.t.Helper()
	var list []network.Summary
	b.do("GET", "/networks?filters="+filters, nil).want(b.t, 200, "").into(b.t, &list)
	var names []string
	for _, n := range list {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// TestCreateNetwork: what docker's flags ask for is stored, and shown again in Docker's form.
func TestCreateNetwork(t *testing.T) {
	b, _ := newEngineBench(t)
	plain := b.createNetwork(overlay("plain"))
	if got := b.inspectNetwork("plain"); got.ID != plain || len(got.ID) != 25 || got.Scope != "swarm" || got.Driver != "overlay" || got.Created.IsZero() || !got.EnableIPv4 || got.EnableIPv6 ||
		got.Attachable || got.Internal || got.Ingress || got.IPAM.Driver != "default" || len(got.IPAM.Config) != 1 || got.IPAM.Config[0].Subnet != "10.0.0.0/24" || got.IPAM.Config[0].Gateway != "10.0.0.1" {
		t.Errorf("%+v", got)
	}
	b.createNetwork(overlay("rich", withIPv6, func(asked *network.CreateRequest) {
		asked.Attachable, asked.Internal, asked.Labels, asked.Options = true, true, map[string]string{"a": "b"}, map[string]string{"com.docker.network.driver.mtu": "1400", "encrypted": "false"}
		asked.IPAM.Config = []network.IPAMConfig{
			{Subnet: "fd00:1::/64"}, {Subnet: "10.9.0.0/16", IPRange: "10.9.8.0/24", Gateway: "10.9.255.254", AuxAddress: map[string]string{"router": "10.9.8.1"}},
		}
	}))
	rich := b.inspectNetwork("rich")
	want := []network.IPAMConfig{
		{Subnet: "10.9.0.0/16", IPRange: "10.9.8.0/24", Gateway: "10.9.255.254", AuxAddress: map[string]string{"router": "10.9.8.1"}}, {Subnet: "fd00:1::/64", Gateway: "fd00:1::1"},
	}
	if fmt.Sprint(rich.IPAM.Config) != fmt.Sprint(want) || !rich.Attachable || !rich.Internal || !rich.EnableIPv6 || rich.Labels["a"] != "b" || rich.Options["com.docker.network.driver.mtu"] != "1400" {
		t.Errorf("%+v", rich)
	}
	stored := b.view().NetworkNamed("rich")
	if got := fmt.Sprint(stored.VNI); rich.Options[optionVNI] != got || stored.VNI < cluster.FirstVNI || b.view().NetworkOfVNI(stored.VNI) != stored {
		t.Errorf("VXLAN identifier %s, shown %s", got, rich.Options[optionVNI])
	}
	if stored.Subnets[0].Aux["router"] != netip.MustParseAddr("10.9.8.1") || stored.Spec.IPAMOptions == nil || stored.Spec.Scope != "swarm" {
		t.Errorf("%+v", stored)
	}
	// IPv6 of its own, which nobody else has, and which hangs on the ID.
	b.createNetwork(overlay("six", withIPv6))
	six := b.view().NetworkNamed("six").Subnets
	if len(six) != 2 || six[0].Prefix.String() != "10.0.1.0/24" || six[1].Prefix.Bits() != 64 || !netip.MustParsePrefix("fd00::/8").Contains(six[1].Prefix.Addr()) || six[1].Gateway != six[1].Addr(1) {
		t.Errorf("%+v", six)
	}
	// As stacks send it.
	b.do("POST", "/networks/create", map[string]any{"Name": "st_front", "Driver": "overlay", "IPAM": nil, "Labels": map[string]string{"com.docker.stack.namespace": "st"}}).want(t, 201, `"Warning":""`)
	if got := b.networkNames(`{"label":{"com.docker.stack.namespace=st":true}}`); got != "st_front" {
		t.Errorf("networks of the stack: %s", got)
	}
}

// TestCreateNetwork_AllEncrypted: where the cluster wants it, those that are made are encrypted as if each user had
// said so, and none is to be in clear.
func TestCreateNetwork_AllEncrypted(t *testing.T) {
	b, _ := newEngineBench(t)
	with := func(value string) func(*network.CreateRequest) {
		return func(asked *network.CreateRequest) { asked.Options = map[string]string{"encrypted": value} }
	}
	encrypted := func(name string) (value string, is bool) {
		value, is = b.inspectNetwork(name).Options["encrypted"]
		return value, is && b.view().NetworkNamed(name).Encrypted()
	}
	b.createNetwork(overlay("before"))
	b.setLabel("skep.encrypt-networks", "yes").want(t, 400, `\"yes\" won't do, it takes true or false`)
	b.setLabel("skep.encrypt-networks", "true").want(t, 200, "")
	b.createNetwork(overlay("plain"))
	b.createNetwork(overlay("asked", with("true")))
	b.createNetwork(overlay("in", func(asked *network.CreateRequest) { asked.Ingress, asked.Options = true, nil }))
	for name, want := range map[string]string{"plain": "", "asked": "true", "in": ""} {
		if got, is := encrypted(name); !is || got != want {
			t.Errorf("%s has the option %q, is encrypted: %v", name, got, is)
		}
	}
	if _, is := encrypted("before"); is {
		t.Error("one that was there before is encrypted")
	}
	b.do("POST", "/networks/create", overlay("clear", with("false"))).want(t, 400, "skep cluster update --encrypt-networks=false")
	b.do("POST", "/networks/create", map[string]any{"Name": "each", "Driver": "macvlan", "Scope": "swarm"}).want(t, 201, "")
	if got := b.inspectNetwork("each").Options; len(got) > 0 {
		t.Errorf("one that engines make by themselves has options %v", got)
	}
	b.setLabel("skep.encrypt-networks", "false").want(t, 200, "")
	b.createNetwork(overlay("later"))
	if _, is := encrypted("later"); is {
		t.Error("the setting was taken back, and the next one is encrypted")
	}
}

// TestRefuseNetwork: what can't be is refused, with what to do.
func TestRefuseNetwork(t *testing.T) {
	b, e := newEngineBench(t)
	e.networks = []network.Inspect{
		{ID: "e1", Name: "bridge", Scope: "local", IPAM: network.IPAM{Config: []network.IPAMConfig{{Subnet: "172.17.0.0/16"}}}}, {ID: "e2", Name: "here", Scope: "local"},
		{ID: "e3", Name: "part", Scope: "local", Labels: map[string]string{cluster.EngineLabelNetwork: "gone"}, IPAM: network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.77.0.0/24"}}}},
	}
	b.createNetwork(overlay("old", subnets(network.IPAMConfig{Subnet: "10.50.0.0/24"})))
	ingress := b.createNetwork(overlay("in", func(asked *network.CreateRequest) { asked.Ingress = true }))
	option := func(name, value string) func(*network.CreateRequest) {
		return func(asked *network.CreateRequest) { asked.Options = map[string]string{name: value} }
	}
	subnet := func(text string) func(*network.CreateRequest) { return subnets(network.IPAMConfig{Subnet: text}) }
	for _, c := range []struct {
		name   string
		status int
		says   string
		change func(*network.CreateRequest)
	}{
		{"", 400, "name must be provided", nil},
		{"a b", 400, "name must be valid as a DNS name component", nil},
		{strings.Repeat("n", 64), 400, "name must be 63 characters or fewer", nil},
		{"host", 403, "operation is not permitted on predefined host network", nil},
		{"default", 403, "operation is not permitted on predefined default network", nil},
		{"old", 409, "network with name old already exists", nil},
		{"OLD", 409, "already exists", nil},
		{"here", 409, "network with name here already exists", nil},
		{"n", 409, "ingress network (" + ingress + ") is already present", func(asked *network.CreateRequest) { asked.Ingress = true }},
		{"n", 400, "ingress network cannot be attachable", func(asked *network.CreateRequest) { asked.Ingress, asked.Attachable = true, true }},
		{"n", 400, "ingress network cannot be internal", func(asked *network.CreateRequest) { asked.Ingress, asked.Internal = true, true }},
		{"n", 501, "only overlay driver", func(asked *network.CreateRequest) { asked.Ingress, asked.Driver = true, "bridge" }},
		{"n", 400, "leave --scope out", func(asked *network.CreateRequest) { asked.Scope = "local" }},
		{"n", 501, "give its own settings", func(asked *network.CreateRequest) { asked.ConfigOnly = true }},
		{"n", 501, "give its own settings", func(asked *network.CreateRequest) { asked.ConfigFrom = &network.ConfigReference{Network: "x"} }},
		{"n", 501, "leave --ipv4=false out", func(asked *network.CreateRequest) { asked.EnableIPv4 = new(bool) }},
		{"n", 403, "cannot be applied by users", func(asked *network.CreateRequest) { asked.Labels = map[string]string{cluster.LabelPredefined: "true"} }},
		{"n", 400, "must be true or false", option("encrypted", "maybe")},
		{"n", 400, "must be a number from 576 to 65535", option("com.docker.network.driver.mtu", "575")},
		{"n", 400, "must be a number", option("com.docker.network.driver.mtu", "large")},
		{"n", 400, "from 1280", func(asked *network.CreateRequest) {
			withIPv6(asked)
			option("com.docker.network.driver.mtu", "1279")(asked)
		}},
		{"n", 501, "VXLAN identifiers are chosen", option(optionVNI, "4097")},
		{"n", 501, "leave it out", option("foo", "bar")},
		{"n", 501, "leave --ipam-driver out", func(asked *network.CreateRequest) { asked.IPAM.Driver = "infoblox" }},
		{"n", 501, "leave --ipam-opt out", func(asked *network.CreateRequest) { asked.IPAM.Options = map[string]string{"a": "b"} }},
		{"n", 400, "here 10.48.0.0/13: invalid pool request: Pool overlaps with other one on this address space: subnet 10.48.0.0/13 overlaps 10.50.0.0/24 of network old", subnets(network.IPAMConfig{Subnet: "10.49.0.0/24"}, network.IPAMConfig{Subnet: "10.52.0.0/24"})},
		{"n", 400, "closer together, such as 10.9.0.0/24 and 10.9.1.0/24", subnets(network.IPAMConfig{Subnet: "10.60.0.0/24"}, network.IPAMConfig{Subnet: "192.168.0.0/24"})},
		{"n", 400, "subnets 10.60.0.0/24 and 10.60.0.128/25 of one network overlap", subnets(network.IPAMConfig{Subnet: "10.60.0.0/24"}, network.IPAMConfig{Subnet: "10.60.0.128/25"})},
		{"n", 400, "invalid gateway 10.60.1.1", subnets(network.IPAMConfig{Subnet: "10.60.0.0/24"}, network.IPAMConfig{Subnet: "10.60.2.0/24", Gateway: "10.60.1.1"})},
		{"n", 501, "a network has one: give one that is large enough", subnets(network.IPAMConfig{Subnet: "10.60.0.0/24"}, network.IPAMConfig{Subnet: "fd00::/64"}, network.IPAMConfig{Subnet: "fd01::/64"})},
		{"n", 400, "only with --ipv6", subnet("fd00::/64")},
		{"n", 400, "invalid CIDR block notation", subnet("10.60.0.0")},
		{"n", 400, "it should be 10.60.0.0/24", subnet("10.60.0.5/24")},
		{"n", 400, "must be from 8 to 30", subnet("10.60.0.0/31")},
		{"n", 400, "must be from 8 to 30", subnet("0.0.0.0/0")},
		{"n", 400, "is for multicast", subnet("239.0.0.0/24")},
		{"n", 400, "is for loopback", subnet("127.5.0.0/24")},
		{"n", 400, "addresses that stand for IPv4", func(asked *network.CreateRequest) {
			withIPv6(asked)
			subnet("::ffff:10.0.0.0/120")(asked)
		}},
		{"n", 400, "overlaps 10.50.0.0/24 of network old", subnet("10.50.0.128/25")},
		{"n", 400, "overlaps 10.50.0.0/24 of network old", subnet("10.0.0.0/8")},
		{"n", 400, "overlaps 172.17.0.0/16 of network bridge of the engine on n1", subnet("172.17.5.0/24")},
		{"n", 400, "must have a corresponding subnet", subnets(network.IPAMConfig{Gateway: "10.60.0.1"})},
		{"n", 400, "invalid ip-range", subnets(network.IPAMConfig{Subnet: "10.60.0.0/24", IPRange: "10.61.0.0/25"})},
		{"n", 400, "invalid ip-range", subnets(network.IPAMConfig{Subnet: "10.60.0.0/24", IPRange: "10.60.0.0/23"})},
		{"n", 400, "invalid ip-range", subnets(network.IPAMConfig{Subnet: "10.60.0.0/24", IPRange: "x"})},
		{"n", 400, "invalid gateway x: invalid address", subnets(network.IPAMConfig{Subnet: "10.60.0.0/24", Gateway: "x"})},
		{"n", 400, "invalid gateway 10.60.0.255: it isn't an address for hosts", subnets(network.IPAMConfig{Subnet: "10.60.0.0/24", Gateway: "10.60.0.255"})},
		{"n", 400, "invalid gateway 10.60.0.0: it isn't an address for hosts", subnets(network.IPAMConfig{Subnet: "10.60.0.0/24", Gateway: "10.60.0.0"})},
		{"n", 400, "invalid gateway 10.61.0.1: it isn't an address for hosts", subnets(network.IPAMConfig{Subnet: "10.60.0.0/24", Gateway: "10.61.0.1"})},
		{"n", 400, "it is the auxiliary address a, too", subnets(network.IPAMConfig{Subnet: "10.60.0.0/24", Gateway: "10.60.0.9", AuxAddress: map[string]string{"a": "10.60.0.9"}})},
		{"n", 400, "invalid auxiliary address a", subnets(network.IPAMConfig{Subnet: "10.60.0.0/24", AuxAddress: map[string]string{"a": "10.61.0.9"}})},
		{"n", 400, "invalid auxiliary address a", subnets(network.IPAMConfig{Subnet: "10.60.0.0/24", AuxAddress: map[string]string{"a": "x"}})},
		{"n", 400, "no address is left for tasks", subnets(network.IPAMConfig{Subnet: "10.60.0.0/30", AuxAddress: map[string]string{"a": "10.60.0.2"}})},
		{"n", 400, "no address is left for tasks", func(asked *network.CreateRequest) {
			withIPv6(asked)
			subnets(network.IPAMConfig{Subnet: "10.60.0.0/24"}, network.IPAMConfig{Subnet: "fd00::/64", IPRange: "fd00::1:0/112"})(asked)
		}},
	} {
		asked := overlay(c.name)
		if c.change != nil {
			c.change(&asked)
		}
		before := b.view().Index()
		b.do("POST", "/networks/create", asked).want(t, c.status, c.says)
		if b.view().Index() != before {
			t.Fatalf("%s: refused, and something changed", c.says)
		}
	}
	b.do("POST", "/networks/create", `{"Name":"n","Driver":"overlay","Novelty":1}`).want(t, 400, "Novelty")
	// A local one can't have the name of one of the cluster either.
	b.do("POST", "/networks/create", map[string]any{"Name": "old", "Driver": "bridge"}).want(t, 409, "network with name old already exists")
	b.do("POST", "/networks/create", map[string]any{"Name": "new", "Driver": "bridge"}).want(t, 200, "engine: POST")
	b.do("POST", "/networks/create", map[string]any{"Name": "template", "ConfigOnly": true, "Driver": "null"}).want(t, 200, "engine: POST")
	// What the engine has for a network of the cluster that is gone doesn't keep its addresses.
	b.createNetwork(overlay("again", subnets(network.IPAMConfig{Subnet: "10.77.0.0/24"})))
	// A gateway beside auxiliary addresses.
	b.createNetwork(overlay("aux", subnets(network.IPAMConfig{Subnet: "10.78.0.0/24", AuxAddress: map[string]string{"a": "10.78.0.1", "b": "10.78.0.2"}})))
	if got := b.inspectNetwork("aux").IPAM.Config[0].Gateway; got != "10.78.0.3" {
		t.Errorf("gateway %s", got)
	}
}

// TestCreateNetwork_SubnetsFromPools: the next free one, of what neither the cluster nor the engine
// has, until there is none.
func TestCreateNetwork_SubnetsFromPools(t *testing.T) {
	b, e := newEngineBench(t)
	e.networks = []network.Inspect{{ID: "e1", Name: "bridge", Scope: "local", IPAM: network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.20.0.32/27"}, {Subnet: "fd00::/64"}}}}}
	b.update(func(tx *store.Tx) error {
		next := *tx.Cluster()
		next.Networks = cluster.NetworkSettings{Pools: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/25"), netip.MustParsePrefix("10.30.0.0/26")}, SubnetBits: 26}
		return tx.Put(&next)
	})
	for i, want := range []string{"10.20.0.64/26", "10.30.0.0/26"} {
		name := fmt.Sprint("n", i)
		b.createNetwork(overlay(name))
		if got := b.inspectNetwork(name).IPAM.Config[0].Subnet; got != want {
			t.Errorf("%s has %s, want %s", name, got, want)
		}
	}
	b.do("POST", "/networks/create", overlay("n2")).want(t, 400, "give one with --subnet")
	b.do("DELETE", "/networks/n0", nil).want(t, 204, "")
	b.createNetwork(overlay("n3"))
	if got := b.inspectNetwork("n3").IPAM.Config[0].Subnet; got != "10.20.0.64/26" {
		t.Errorf("n3 has %s", got)
	}
	// What other nodes use is avoided: all of it while there is something else, then what a subnet couldn't
	// be beside of, and else some nodes don't have the network.
	uses := func(uses ...cluster.AddressUse) {
		b.update(func(tx *store.Tx) error {
			next := *tx.Node(nodeID(2))
			next.Uses = uses
			return tx.Put(&next)
		})
	}
	wide := cluster.AddressUse{Prefix: netip.MustParsePrefix("10.20.0.0/16"), By: "interface eth0"}
	for i, c := range []struct {
		want string
		uses []cluster.AddressUse
	}{
		{"10.30.0.0/26", []cluster.AddressUse{wide}},
		{"10.20.0.64/26", []cluster.AddressUse{wide, {Prefix: netip.MustParsePrefix("10.30.0.0/30"), By: "the route by eth0"}}},
		{"10.20.0.64/26", []cluster.AddressUse{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), By: "network lan of its engine", Engine: true}}},
	} {
		for _, name := range []string{"n0", "n1", "n3"} {
			b.do("DELETE", "/networks/"+name, nil)
		}
		uses(c.uses...)
		b.createNetwork(overlay("n3"))
		if got := b.inspectNetwork("n3").IPAM.Config[0].Subnet; got != c.want {
			t.Errorf("%d: n3 has %s, want %s", i, got, c.want)
		}
	}
	b.do("GET", "/nodes/n2", nil).want(t, 200, "it gets no tasks of network n3: its subnet 10.20.0.64/26 overlaps 10.0.0.0/8, which network lan of its engine has here")
	uses()
	// The nodes' own addresses aren't anybody else's.
	b.update(func(tx *store.Tx) error {
		next := *tx.Node(nodeID(2))
		next.DataAddr = "10.98.0.7"
		return tx.Put(&next)
	})
	b.do("POST", "/networks/create", overlay("n5", subnets(network.IPAMConfig{Subnet: "10.98.0.0/24"}))).want(t, 400, "overlaps 10.98.0.7/32 of node n2")
	// An engine that hangs costs a moment, and no more.
	e.mu.Lock()
	e.hang = true
	e.mu.Unlock()
	began := time.Now()
	b.createNetwork(overlay("n4", subnets(network.IPAMConfig{Subnet: "10.99.0.0/24"})))
	if took := time.Since(began); took > 10*engineTimeout {
		t.Errorf("took %s", took)
	}
}

// TestNetworks_MergedWithTheEngines: there is one list, of the cluster's and the engine's; what the
// engine has for the cluster's isn't in it.
func TestNetworks_MergedWithTheEngines(t *testing.T) {
	b, e := newEngineBench(t)
	web := b.createNetwork(overlay("web"))
	e.networks = []network.Inspect{
		{ID: "e1" + strings.Repeat("0", 62), Name: "bridge", Scope: "local", Driver: "bridge"}, {ID: "e2" + strings.Repeat("0", 62), Name: "own", Scope: "local", Driver: "bridge"},
		{ID: "e3" + strings.Repeat("0", 62), Name: "web", Scope: "local", Driver: "bridge", Labels: map[string]string{cluster.EngineLabelNetwork: web, cluster.EngineLabelNode: nodeID(1)},
			Containers: map[string]network.EndpointResource{"c1": {Name: "web.1.x", IPv4Address: "10.0.0.5/24"}}},
		{ID: "e4" + strings.Repeat("0", 62), Name: "gone", Scope: "local", Driver: "bridge", Labels: map[string]string{cluster.EngineLabelNetwork: "gone"}},
	}
	for filters, want := range map[string]string{
		"": "bridge own web", `{"scope":["swarm"]}`: "web", `{"name":["web"],"scope":["swarm"]}`: "web", `{"name":["we"],"scope":["swarm"]}`: "",
		`{"id":["` + web[:5] + `"],"scope":["swarm"]}`: "web", `{"driver":["overlay"],"scope":["swarm"]}`: "web", `{"driver":["bridge"],"scope":["swarm"]}`: "",
		`{"label":["a"],"scope":["swarm"]}`: "", `{"dangling":["true"],"scope":["swarm"]}`: "web", `{"dangling":["false"],"scope":["swarm"]}`: "",
		`{"type":["custom"],"scope":["swarm"]}`: "web", `{"type":["builtin"],"scope":["swarm"]}`: "", `{"scope":["swarm","local"]}`: "bridge own web",
	} {
		if got := b.networkNames(filters); got != want {
			t.Errorf("%s lists %q, want %q", filters, got, want)
		}
	}
	b.do("GET", `/networks?filters={"dangling":["maybe"],"scope":["swarm"]}`, nil).want(t, 400, "invalid value for filter 'dangling'")
	b.do("GET", `/networks?filters={"type":["odd"],"scope":["swarm"]}`, nil).want(t, 400, "")
	b.do("GET", `/networks?filters={"odd":["x"]}`, nil).want(t, 400, "invalid filter 'odd'")

	for _, ref := range []string{"web", web, web[:9], "web?scope=swarm", e.networks[2].ID} {
		if got := b.inspectNetwork(ref); got.ID != web || got.Name != "web" || got.Driver != "overlay" || got.Scope != "swarm" || got.Containers["c1"].Name != "web.1.x" || got.Labels[cluster.EngineLabelNode] != "" {
			t.Errorf("%s is %+v", ref, got)
		}
	}
	for _, ref := range []string{"own", e.networks[1].ID} {
		b.do("GET", "/networks/"+ref, nil).want(t, 200, "")
	}
	b.do("GET", "/networks/gone", nil).want(t, 404, "network gone not found")
	b.do("DELETE", "/networks/gone", nil).want(t, 404, "network gone not found")
	b.do("GET", "/networks/nothing", nil).want(t, 200, "engine: GET") // which says that there is none
	b.do("GET", "/networks/own?scope=swarm", nil).want(t, 404, "network own not found")

	// Containers aren't put on the engine's part of it behind the cluster's back.
	for _, body := range []string{
		`{"Image":"x","HostConfig":{"NetworkMode":"web"}}`, `{"Image":"x","HostConfig":{"NetworkMode":"` + web + `"}}`, `{"Image":"x","HostConfig":{"NetworkMode":"` + e.networks[2].ID[:12] + `"}}`,
		`{"Image":"x","NetworkingConfig":{"EndpointsConfig":{"web":{}}}}`,
	} {
		b.do("POST", "/containers/create", body).want(t, 403, "not manually attachable")
	}
	b.do("POST", "/containers/create", `{"Image":"x","HostConfig":{"NetworkMode":"gone"}}`).want(t, 404, "network gone not found")
	for _, mode := range []string{"own", "bridge", "host", "default", "", "container:c", "nothing"} {
		b.do("POST", "/containers/create?name=c", map[string]any{"Image": "x", "HostConfig": map[string]any{"NetworkMode": mode}}).want(t, 200, "engine: POST")
	}
	b.do("POST", "/networks/own/connect", map[string]string{"Container": "c"}).want(t, 200, "engine: POST")

	// One name for two: only whole IDs tell them apart.
	e.networks = append(e.networks, network.Inspect{ID: "e5" + strings.Repeat("0", 62), Name: "web", Scope: "local", Driver: "bridge"})
	b.do("GET", "/networks/web", nil).want(t, 400, "network web is ambiguous")
	b.do("DELETE", "/networks/web", nil).want(t, 400, "network web is ambiguous")
	b.do("DELETE", "/networks/own", nil).want(t, 200, "engine: DELETE")
	b.do("DELETE", "/networks/"+web, nil).want(t, 204, "")
	b.do("DELETE", "/networks/"+cluster.PredefinedNetworks()[1].ID, nil).want(t, 400, "is a swarm predefined network and cannot be removed")
}

// TestNetworks_OfAWorker: it can't ask for the cluster's, and shows those that its engine carries.
func TestNetworks_OfAWorker(t *testing.T) {
	b, e := newEngineBench(t)
	e.networks = []network.Inspect{
		{ID: "e1", Name: "own", Scope: "local", Driver: "bridge"},
		{ID: "e3", Name: "web", Scope: "local", Driver: "bridge", Labels: map[string]string{cluster.EngineLabelNetwork: "netid", cluster.EngineLabelNode: nodeID(1)}, Options: map[string]string{"com.docker.network.bridge.name": "skb1001"}},
	}
	b.node.setManager(nil)
	if got := b.networkNames(""); got != "own web" {
		t.Errorf("listed %s", got)
	}
	for _, ref := range []string{"web", "netid", "e3", "web?scope=swarm"} {
		if got := b.inspectNetwork(ref); got.ID != "netid" || got.Name != "web" || got.Scope != "swarm" || got.Driver != "overlay" || len(got.Labels) > 0 {
			t.Errorf("%s is %+v", ref, got)
		}
	}
	b.do("DELETE", "/networks/web", nil).want(t, 503, "Worker nodes can't be used to view or modify cluster state")
	b.do("POST", "/networks/create", overlay("front")).want(t, 503, "Worker nodes can't be used to view or modify cluster state")
	b.do("POST", "/networks/create", map[string]any{"Name": "n", "Driver": "bridge"}).want(t, 200, "engine: POST")
	b.do("POST", "/networks/prune", nil).want(t, 200, `["of-engine"]`)
	b.do("POST", "/containers/create", `{"HostConfig":{"NetworkMode":"web"}}`).want(t, 404, "network web not found")
}

// TestNetworks_WithoutALeader: what is the engine's alone goes on.
func TestNetworks_WithoutALeader(t *testing.T) {
	b, e := newEngineBench(t)
	b.server.Hold = 20 * time.Millisecond
	e.networks = []network.Inspect{{ID: "e1", Name: "own", Scope: "local", Driver: "bridge"}}
	b.manager.set(func(m *fakeManager) { m.none = true })
	b.do("GET", "/networks", nil).want(t, 503, "does not have a leader")
	b.do("GET", "/networks/web", nil).want(t, 503, "does not have a leader")
	b.do("POST", "/networks/prune", nil).want(t, 503, "does not have a leader")
	if got := b.networkNames(`{"scope":["local"]}`); got != "own" {
		t.Errorf("listed %s", got)
	}
	b.do("GET", "/networks/own", nil).want(t, 200, "engine: GET")
	b.do("DELETE", "/networks/own", nil).want(t, 200, "engine: DELETE")
	b.do("POST", "/networks/create", map[string]any{"Name": "n", "Driver": "bridge"}).want(t, 200, "engine: POST")
	b.do("POST", "/containers/create", map[string]any{"HostConfig": map[string]any{"NetworkMode": "own"}}).want(t, 200, "engine: POST")
}

// TestRemoveNetwork: not while somebody needs it; whose tasks only stop doesn't.
func TestRemoveNetwork(t *testing.T) {
	b := newBench(t)
	web := b.createNetwork(overlay("web"))
	vni := b.view().Network(web).VNI
	on := func(s *swarm.ServiceSpec) {
		s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: web}}
	}
	put := func(object any) { b.update(func(tx *store.Tx) error { return tx.Put(object) }) }
	wanted := spec("shop", on)
	service := &cluster.Service{ID: strings.Repeat("s", 25), Spec: wanted, VirtualIPs: []cluster.Address{{VNI: vni, Host: 2}}}
	put(service)
	b.do("DELETE", "/networks/web", nil).want(t, 400, "network "+web+" is in use by service "+service.ID)
	for filter, want := range map[string]string{"true": "", "false": "web"} {
		if got := b.networkNames(`{"scope":["swarm"],"dangling":["` + filter + `"]}`); got != want {
			t.Errorf("dangling=%s lists %q", filter, got)
		}
	}
	prune := func(query, want string) {
		t.Helper()
		var report network.PruneReport
		b.do("POST", pathPruneNetworks+query, nil).want(t, 200, "").into(t, &report)
		if got := strings.Join(report.NetworksDeleted, " "); got != want {
			t.Errorf("prune%s removed %q, want %q", query, got, want)
		}
	}
	prune("", "")
	b.addTask(1, service.ID, 1, 2, func(task *cluster.Task) { task.Addresses = []cluster.Address{{VNI: vni, Host: 3}} })
	shown := b.inspectNetwork("web?verbose=true")
	if s := shown.Services["shop"]; s.VIP != "10.0.0.2" || len(s.Tasks) != 1 || s.Tasks[0].EndpointIP != "10.0.0.3" || s.Tasks[0].Info["Host IP"] != "127.0.1.2" || !strings.HasPrefix(s.Tasks[0].Name, "shop.1.") && !strings.Contains(s.Tasks[0].Name, ".1.") {
		t.Errorf("%+v", shown.Services)
	}
	if len(shown.Peers) != 1 || shown.Peers[0] != (network.PeerInfo{Name: "n2", IP: "127.0.1.2"}) {
		t.Errorf("peers %+v", shown.Peers)
	}
	b.do("GET", "/networks/web?verbose=perhaps", nil).want(t, 400, "invalid value for verbose")

	// The service leaves the network; its task is still on it, then stops.
	b.update(func(tx *store.Tx) error {
		next := *tx.Service(service.ID)
		next.Spec, next.VirtualIPs = spec("shop"), nil
		return tx.Put(&next)
	})
	b.do("DELETE", "/networks/web", nil).want(t, 400, "network "+web+" is in use by task "+taskID(1))
	b.addTask(1, service.ID, 1, 2, func(task *cluster.Task) {
		task.Addresses, task.Desired = []cluster.Address{{VNI: vni, Host: 3}}, cluster.StateShutdown
	})
	b.do("DELETE", "/networks/web", nil).want(t, 204, "")
	b.do("DELETE", "/networks/web?", nil).want(t, 503, "no local Docker Engine") // which would say that there is none

	// What stops has addresses under the identifier, which no other gets until then.
	if !neighbours(b.view(), nil).VNITaken(vni) {
		t.Error("the identifier is free, and a task has an address under it")
	}
	if again := b.createNetwork(overlay("web")); b.view().Network(again).VNI == vni {
		t.Error("it has the identifier of the one before, whose task still has an address")
	}
	b.createNetwork(overlay("labelled", func(asked *network.CreateRequest) { asked.Labels = map[string]string{"keep": "yes"} }))
	b.createNetwork(overlay("in", func(asked *network.CreateRequest) { asked.Ingress = true }))
	prune(`?filters={"label":["keep=no"]}`, "")
	prune(`?filters={"until":["1h"]}`, "")
	prune(`?filters={"label!":["keep"]}`, "web")
	prune(`?filters={"label":["keep"]}`, "labelled")
	prune("", "")
	b.do("POST", pathPruneNetworks+`?filters={"until":["x"]}`, nil).want(t, 400, "until")

	// The ingress network goes when nobody publishes by it.
	put(&cluster.Service{ID: strings.Repeat("p", 25), Spec: spec("front", func(s *swarm.ServiceSpec) {
		s.EndpointSpec.Ports = []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: 80, PublishMode: "ingress"}}
	})})
	b.do("DELETE", "/networks/in", nil).want(t, 400, "ingress network cannot be removed because service "+strings.Repeat("p", 25))
	b.do("DELETE", "/services/front", nil).want(t, 200, "")
	b.do("DELETE", "/networks/in", nil).want(t, 204, "")
}

// TestEvents_OfNetworks: with Docker's type, in the cluster's scope.
func TestEvents_OfNetworks(t *testing.T) {
	b := newBench(t)
	b.record()
	id := b.createNetwork(overlay("web"))
	b.update(func(tx *store.Tx) error {
		next := *tx.Network(id)
		next.Spec.Labels = map[string]string{"a": "b"}
		return tx.Put(&next)
	})
	b.do("DELETE", "/networks/web", nil).want(t, 204, "")
	var seen []string
	until(t, "the events", func() bool {
		seen = nil
		for _, m := range b.replay(`filters={"type":["network"],"network":["web"]}`) {
			seen = append(seen, fmt.Sprint(m.Action, " ", m.Scope, " ", m.Actor.ID == id, " ", m.Actor.Attributes["name"]))
		}
		return len(seen) >= 3
	})
	if got := strings.Join(seen, ", "); got != "create swarm true web, update swarm true web, remove swarm true web" {
		t.Error(got)
	}
}

// TestLocalNetworks: networks of the cluster that the engine of each node makes by itself are stored as
// asked, shown as Docker shows them, and services can be on them; what can't be is refused.
func TestLocalNetworks(t *testing.T) {
	b, e := newEngineBench(t)
	local := func(name string, change func(*network.CreateRequest)) network.CreateRequest {
		asked := network.CreateRequest{Name: name, CreateOptions: network.CreateOptions{Driver: "macvlan", Scope: "swarm"}}
		if change != nil {
			change(&asked)
		}
		return asked
	}
	subnet := func(c network.IPAMConfig) func(*network.CreateRequest) {
		return func(asked *network.CreateRequest) { asked.IPAM = &network.IPAM{Config: []network.IPAMConfig{c}} }
	}
	over := b.createNetwork(overlay("over", subnets(network.IPAMConfig{Subnet: "10.40.0.0/24"})))
	for _, c := range []struct {
		status int
		says   string
		change func(*network.CreateRequest)
	}{
		{400, "make it on each node, without --scope", func(asked *network.CreateRequest) { asked.ConfigOnly = true }},
		{501, "--network host", func(asked *network.CreateRequest) { asked.Driver = "host" }},
		{501, "leave --attachable out", func(asked *network.CreateRequest) { asked.Attachable = true }},
		{501, "leave --ipv4=false out", func(asked *network.CreateRequest) { asked.EnableIPv4 = new(bool) }},
		{403, "depends on a configuration network", func(asked *network.CreateRequest) {
			asked.ConfigFrom, asked.Options = &network.ConfigReference{Network: "cfg"}, map[string]string{"parent": "eth0"}
		}},
		{501, "leave --aux-address out", subnet(network.IPAMConfig{Subnet: "192.0.2.0/24", AuxAddress: map[string]string{"a": "192.0.2.9"}})},
		{400, "invalid CIDR block notation", subnet(network.IPAMConfig{Subnet: "192.0.2.0"})},
		{400, "overlaps 10.40.0.0/24 of network over", subnet(network.IPAMConfig{Subnet: "10.0.0.0/8"})},
		{409, "network with name over already exists", func(asked *network.CreateRequest) { asked.Name = "over" }},
	} {
		b.do("POST", "/networks/create", local("n", c.change)).want(t, c.status, c.says)
	}
	lan := b.createNetwork(local("lan", func(asked *network.CreateRequest) {
		subnet(network.IPAMConfig{Subnet: "192.0.2.0/24", Gateway: "192.0.2.1", IPRange: "192.0.2.128/25"})(asked)
		asked.Options, asked.Labels = map[string]string{"parent": "eth0"}, map[string]string{"a": "b"}
	}))
	auto := b.createNetwork(local("auto", func(asked *network.CreateRequest) { asked.Driver = "bridge" }))
	b.createNetwork(local("from", func(asked *network.CreateRequest) { asked.ConfigFrom = &network.ConfigReference{Network: "cfg"} }))
	b.do("POST", "/networks/create", overlay("n", subnets(network.IPAMConfig{Subnet: "192.0.2.0/25"}))).want(t, 400, "overlaps 192.0.2.0/24 of network lan")

	shown := b.inspectNetwork("lan")
	if want := (network.IPAMConfig{Subnet: "192.0.2.0/24", Gateway: "192.0.2.1", IPRange: "192.0.2.128/25"}); shown.Driver != "macvlan" || shown.Scope != "swarm" || !maps.Equal(shown.Options, map[string]string{"parent": "eth0"}) ||
		!maps.Equal(shown.Labels, map[string]string{"a": "b"}) || len(shown.IPAM.Config) != 1 || !reflect.DeepEqual(shown.IPAM.Config[0], want) {
		t.Errorf("lan is %+v", shown)
	}
	if got := b.inspectNetwork("from").ConfigFrom.Network; got != "cfg" {
		t.Errorf("from is from %q", got)
	}
	// A node whose engine has made it shows what that chose; its part isn't listed.
	e.networks = []network.Inspect{{ID: "e1", Name: "auto", Scope: "local", Driver: "bridge", Labels: map[string]string{cluster.EngineLabelNetwork: auto}, IPAM: network.IPAM{Driver: "default", Config: []network.IPAMConfig{{Subnet: "172.20.0.0/16"}}}}}
	if got := b.inspectNetwork("auto").IPAM.Config; len(got) != 1 || got[0].Subnet != "172.20.0.0/16" {
		t.Errorf("auto has %+v", got)
	}
	for filters, want := range map[string]string{"": "auto from lan over", `{"driver":["macvlan"]}`: "from lan", `{"driver":["overlay"]}`: "over", `{"driver":["bridge"],"scope":["swarm"]}`: "auto"} {
		if got := b.networkNames(filters); got != want {
			t.Errorf("networks with %s: %s, want %s", filters, got, want)
		}
	}

	spec := spec("web")
	spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "lan", Aliases: []string{"www"}}, {Target: over}}
	id := b.create(spec)
	service := b.view().Service(id)
	if got := service.Spec.TaskTemplate.Networks; got[0].Target != lan || len(service.VirtualIPs) != 1 {
		t.Errorf("the service is on %+v, with %v", got, service.VirtualIPs)
	}
	b.do("DELETE", "/networks/lan", nil).want(t, 400, "in use by service")
	b.do("DELETE", "/services/web", nil).want(t, 200, "")
	b.do("DELETE", "/networks/lan", nil).want(t, 204, "")
	b.do("DELETE", "/networks/auto", nil).want(t, 204, "")
}

// TestCLINetworks plays docker's own command.
func TestCLINetworks(t *testing.T) {
	b, e := newEngineBench(t)
	c := newCLI(t, b)
	e.networks = []network.Inspect{{ID: "e1" + strings.Repeat("0", 62), Name: "own", Scope: "local", Driver: "bridge"}}
	c.docker(`^\w{25}\n$`, "network", "create", "-d", "overlay", "--attachable", "--internal", "--subnet", "10.5.0.0/16", "--ip-range", "10.5.4.0/24", "--gateway", "10.5.4.1", "--aux-address", "a=10.5.4.2",
		"--opt", "com.docker.network.driver.mtu=1400", "--label", "a=b", "web")
	c.docker(`^10\.5\.0\.0/16 10\.5\.4\.0/24 10\.5\.4\.1 map\[a:10\.5\.4\.2\] true true 1400 swarm\n$`, "network", "inspect", "-f",
		`{{range .IPAM.Config}}{{.Subnet}} {{.IPRange}} {{.Gateway}} {{.AuxiliaryAddresses}}{{end}} {{.Attachable}} {{.Internal}} {{index .Options "com.docker.network.driver.mtu"}} {{.Scope}}`, "web")
	c.docker(`^own bridge local\nweb overlay swarm\n$`, "network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}")
	c.docker(`^web\n$`, "network", "ls", "--filter", "driver=overlay", "--filter", "scope=swarm", "--format", "{{.Name}}")
	c.docker(`"Peers"|"Labels"`, "network", "inspect", "--verbose", "web")
	c.refused(`network with name web already exists`, "network", "create", "-d", "overlay", "web")
	c.docker(`^\w{25}\n$`, "network", "create", "-d", "overlay", "--opt", "encrypted", "safe")
	// The example of docker's manual.
	c.docker(`^\w{25}\n$`, "network", "create", "-d", "overlay", "--subnet=192.168.10.0/25", "--subnet=192.168.20.0/25", "--gateway=192.168.10.100", "--gateway=192.168.20.100",
		"--aux-address=my-router=192.168.10.5", "--aux-address=my-switch=192.168.10.6", "--aux-address=my-printer=192.168.20.5", "--aux-address=my-nas=192.168.20.6", "two")
	// The command sends them in any order.
	c.docker(`^((192.168.10.0/25 192.168.10.100 map\[my-router:192.168.10.5 my-switch:192.168.10.6\]|192.168.20.0/25 192.168.20.100 map\[my-nas:192.168.20.6 my-printer:192.168.20.5\]),){2}\n$`,
		"network", "inspect", "-f", `{{range .IPAM.Config}}{{.Subnet}} {{.Gateway}} {{.AuxiliaryAddresses}},{{end}}`, "two")
	c.refused(`overlaps 192.168.0.0/19 of network two`, "network", "create", "-d", "overlay", "--subnet", "192.168.11.0/24", "between")
	c.docker(`^\w{25}\n$`, "network", "create", "-d", "overlay", "--ipv6", "six")
	c.docker(`^\w{25}\n$`, "network", "create", "-d", "overlay", "--ingress", "in")
	c.refused(`ingress network \(\w{25}\) is already present`, "network", "create", "-d", "overlay", "--ingress", "in2")
	c.docker(`(?s)Deleted Networks:.*six.*web.*of-engine`, "network", "prune", "-f")
	if output, err := c.run("y\n", "network", "rm", "in"); err != nil || !strings.Contains(output, "removing the routing-mesh network") {
		t.Errorf("%s, %v", output, err)
	}
	c.refused(`Could not attach to network`, "run", "--network", c.docker(`^\w{25}\n$`, "network", "create", "-d", "overlay", "--attachable", "run")[:25], "x")
	c.docker(`run\n$`, "network", "rm", "run")
	c.docker(`^own\n$`, "network", "ls", "--format", "{{.Name}}")
}

// TestPruneNetworks_OfBoth: the engine isn't to remove what it has for the cluster's.
func TestPruneNetworks_OfBoth(t *testing.T) {
	b, e := newEngineBench(t)
	b.createNetwork(overlay("web"))
	var report network.PruneReport
	b.do("POST", `/networks/prune?filters={"label!":["keep"]}`, nil).want(t, 200, "").into(t, &report)
	if got := strings.Join(report.NetworksDeleted, " "); got != "web of-engine" {
		t.Errorf("removed %s", got)
	}
	asked := slices.DeleteFunc(e.requests(), func(ask string) bool { return !strings.Contains(ask, "/networks/prune") })
	if len(asked) != 1 || !strings.Contains(asked[0], cluster.EngineLabelNetwork) || !strings.Contains(asked[0], "keep") {
		t.Errorf("the engine was asked %q", asked)
	}
}
