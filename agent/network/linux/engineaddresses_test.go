package linux_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	dockernetwork "github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	"skep/agent/network"
	"skep/cluster"
)

// TestEngine_Addresses has a real engine take containers with addresses of a network's second subnet, refuse a
// network that clashes with one of its own, as was foretold, and make one by itself as its configuration says.
func TestEngine_Addresses(t *testing.T) {
	if testing.Short() {
		t.Skip("needs an engine")
	}
	r := newRack(t, "h1", "h2")
	c := r.engine("h1")
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	part := func(subnet, gateway string) cluster.Subnet {
		return cluster.Subnet{Prefix: prefix(subnet), Gateway: addr(gateway)}
	}
	wide := &cluster.Network{ID: "wide", VNI: 4098, Subnets: []cluster.Subnet{part("10.66.0.0/22", "10.66.0.1")}}
	wide.Subnets[0].Parts = []cluster.Subnet{part("10.66.0.0/29", "10.66.0.1"), part("10.66.2.0/29", "10.66.2.6")}
	ours := &cluster.Network{ID: "ours", VNI: 4099, Subnets: []cluster.Subnet{part("10.67.0.0/24", "10.67.0.1")}}
	own := &cluster.Network{ID: "own", Spec: swarm.NetworkSpec{DriverConfiguration: &swarm.Driver{Name: "bridge"}, ConfigFrom: &dockernetwork.ConfigReference{Network: "cfg"}}}
	for _, n := range []*cluster.Network{wide, ours, own} {
		n.Spec.Name = n.ID
	}
	r.each(func(w *network.Wanted) {
		w.Networks = []network.Network{
			{ID: "wide", VNI: 4098, MTU: 1450, Subnets: []network.Subnet{{Prefix: prefix("10.66.0.0/22"), Gateway: addr("10.66.0.1")}}, Gateways: []netip.Addr{addr("10.66.2.6")},
				Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.66.2.2")}, Node: 1}, {Addrs: []netip.Addr{addr("10.66.0.2")}, Node: 2}}},
			{ID: "ours", VNI: 4099, MTU: 1450, Subnets: []network.Subnet{{Prefix: prefix("10.67.0.0/24"), Gateway: addr("10.67.0.1")}}},
		}
	})
	r.settle()
	r.container("b", "h2", "10.66.0.2")
	d := r.driver("h1", c)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	// A user's network in the way.
	theirs, err := c.NetworkCreate(ctx, "theirs", dockernetwork.CreateOptions{IPAM: &dockernetwork.IPAM{Config: []dockernetwork.IPAMConfig{{Subnet: "10.67.0.128/25"}}}})
	if err != nil {
		t.Fatal(err)
	}
	clash := func() string {
		t.Helper()
		uses, err := d.AddressUses(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return ours.Clash(uses)
	}
	if got := clash(); got != "its subnet 10.67.0.0/24 overlaps 10.67.0.128/25, which network theirs of its engine has here" {
		t.Errorf("the clash is %q", got)
	}
	if _, err := d.KeepNetworks(ctx, "node1", []*cluster.Network{wide, ours}); err == nil || !strings.Contains(err.Error(), "overlap") {
		t.Errorf("the engine made a network that clashes: %v", err)
	}
	if err := c.NetworkRemove(ctx, theirs.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := d.KeepNetworks(ctx, "node1", []*cluster.Network{wide, ours}); err != nil || clash() != "" {
		t.Errorf("without the other network: %v, %q", err, clash())
	}

	// The second subnet, and a network of the engine's own.
	if _, err := c.NetworkCreate(ctx, "cfg", dockernetwork.CreateOptions{ConfigOnly: true, IPAM: &dockernetwork.IPAM{Config: []dockernetwork.IPAMConfig{{Subnet: "10.68.1.0/24"}}}}); err != nil {
		t.Fatal(err)
	}
	task := agent.Assignment{
		Task: &cluster.Task{ID: "t1", NodeID: "node1", ServiceID: "s1", Slot: 1},
		Revision: &cluster.Revision{ServiceName: "web", Spec: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{Image: "answer:1", Args: []string{"a"}}, Networks: []swarm.NetworkAttachmentConfig{{Target: "wide"}, {Target: "own", Aliases: []string{"me"}}},
		}},
		Networks: []agent.Attachment{{Network: wide, Host: 2<<8 | 2}, {Network: own}},
	}
	made, err := d.Prepare(ctx, task)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Start(ctx, "t1"); err != nil {
		t.Fatal(err)
	}
	r.settle() // The container's port is there now.
	if got := execIn(t, c, made.ID, "ask", "10.66.0.2:80"); got != "b 10.66.2.2" {
		t.Errorf("a container in the second subnet asks one in the first: %q", got)
	}
	if got := execIn(t, c, made.ID, "ask", "me:80"); !strings.HasPrefix(got, "a 10.68.1.") {
		t.Errorf("a container asks itself by its name in the engine's network: %q", got)
	}
	r.want("b", "tcp", "10.66.2.2:80", 1, "a 10.66.0.2")
	r.want("b", "ip4:icmp", "10.66.2.6", 1, "echo")
	has := func(want bool) {
		t.Helper()
		if _, err := c.NetworkInspect(ctx, "own", dockernetwork.InspectOptions{}); (err == nil) != want {
			t.Errorf("the engine has its own network: %v", err)
		}
	}
	if _, err := d.KeepNetworks(ctx, "node1", []*cluster.Network{wide, ours}); err != nil {
		t.Error(err)
	}
	has(true)
	if err := d.Remove(ctx, "t1"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.KeepNetworks(ctx, "node1", []*cluster.Network{wide, ours}); err != nil {
		t.Error(err)
	}
	has(false)
}
