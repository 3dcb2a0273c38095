package node

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/agent/simulate"
	"skep/cluster"
)

// TestNetworkSettings: what an order to make a cluster may say of networks.
func TestNetworkSettings(t *testing.T) {
	many := swarm.InitRequest{DefaultAddrPool: make([]string, maxPools+1)}
	for _, c := range []struct {
		name    string
		request swarm.InitRequest
		says    string
	}{
		{"a port for the system", swarm.InitRequest{DataPathPort: 1023}, "between 1024 and 49151"},
		{"a port for clients", swarm.InitRequest{DataPathPort: 49152}, "between 1024 and 49151"},
		{"a port of 32 bits", swarm.InitRequest{DataPathPort: 1<<16 + 4789}, "between 1024 and 49151"},
		{"gossip's port", swarm.InitRequest{DataPathPort: gossipPort}, "gossip's"},
		{"no pool", swarm.InitRequest{DefaultAddrPool: []string{"10.0.0.0"}}, "invalid base pool 10.0.0.0"},
		{"a host", swarm.InitRequest{DefaultAddrPool: []string{"10.0.0.1/8"}, SubnetSize: 24}, "want 10.0.0.0/8"},
		{"two of one range", swarm.InitRequest{DefaultAddrPool: []string{"10.0.0.0/8", "10.1.0.0/16"}, SubnetSize: 24}, "overlaps"},
		{"IPv6", swarm.InitRequest{DefaultAddrPool: []string{"fd00::/48"}, SubnetSize: 64}, "out of range"},
		{"subnets of nothing", swarm.InitRequest{SubnetSize: 30}, "to 29"},
		{"subnets larger than the pool", swarm.InitRequest{DefaultAddrPool: []string{"10.0.0.0/26"}, SubnetSize: 24}, "must be from 26"},
		{"many", many, "more than 64"},
	} {
		if got, err := networkSettings(c.request); !errors.Is(err, cluster.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v; want %s", c.name, got, err, c.says)
		}
	}
	if got, err := networkSettings(swarm.InitRequest{SubnetSize: 24}); err != nil || len(got.Pools) > 0 || got.SubnetBits != 0 || got.DataPort != 0 {
		t.Errorf("what the command says by itself: %+v, %v", got, err)
	}
	got, err := networkSettings(swarm.InitRequest{DefaultAddrPool: []string{"10.0.0.0/16", "172.30.0.0/16"}, SubnetSize: 26, DataPathPort: 4790})
	if err != nil || len(got.Pools) != 2 || got.Pools[1].String() != "172.30.0.0/16" || got.SubnetBits != 26 || got.DataPort != 4790 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestFirstIngress keeps off what the machine has, as far as anything is left.
func TestFirstIngress(t *testing.T) {
	for _, c := range []struct {
		name  string
		local []Interface
		want  string
	}{
		{"a machine elsewhere", []Interface{nic("lo", "127.0.0.1/8", "::1/128"), nic("eth0", "192.168.1.5/24", "fe80::1/64")}, "10.0.0.0/24"},
		{"in the first one's place", []Interface{nic("eth0", "10.0.0.5/24")}, "10.0.1.0/24"},
		{"in more than that", []Interface{nic("eth0", "10.0.9.5/20"), nic("eth1", "10.0.17.1/24")}, "10.0.16.0/24"},
		{"with an address of IPv6", []Interface{nic("eth0", "192.168.1.5/24", "2001:db8::5/64")}, "10.0.0.0/24 and IPv6"},
		{"in all of the pool", []Interface{nic("eth0", "10.0.0.5/8"), nic("eth1", "10.0.1.1/24")}, "10.0.2.0/24"},
	} {
		n, err := New(Config{DataDir: t.TempDir(), Driver: simulate.New(simulate.Config{}), Hostname: "n1", Interfaces: func() ([]Interface, error) { return c.local, nil }})
		if err != nil {
			t.Fatal(err)
		}
		got, err := n.firstIngress(t.Context(), swarm.Spec{}, cluster.NetworkSettings{})
		want, both := strings.CutSuffix(c.want, " and IPv6")
		if err != nil || both != (len(got.Subnets) == 2 && got.Subnets[1].Prefix.Addr().Is6()) || !both && len(got.Subnets) != 1 || got.Subnets[0].Prefix.String() != want || got.Subnets[0].Gateway != got.Subnets[0].Addr(1) ||
			!got.Spec.Ingress || got.Spec.Name != "ingress" || !got.Spans() || got.ID == "" {
			t.Errorf("%s: %+v, %v; want %s", c.name, got, err, c.want)
		}
		all := swarm.Spec{Annotations: swarm.Annotations{Labels: map[string]string{cluster.LabelEncryptNetworks.Name: "true"}}}
		if safe, err := n.firstIngress(t.Context(), all, cluster.NetworkSettings{}); err != nil || !safe.Encrypted() || got.Encrypted() {
			t.Errorf("%s, where all networks are to be encrypted: %+v, %v", c.name, safe, err)
		}
	}
}

// TestResolveData: where packets of networks are taken is the machine's own.
func TestResolveData(t *testing.T) {
	known := interfaces{nic("lo", "127.0.0.1/8"), nic("eth0", "10.1.0.5/24"), nic("eth1", "10.2.0.5/24"), nic("two", "10.3.0.5/24", "10.3.0.6/24")}
	for given, want := range map[string]string{"": "", "eth1": "10.2.0.5", "10.2.0.5": "10.2.0.5", "127.0.0.9": "127.0.0.9"} {
		if got, err := (addresses{}).resolveData(given, known); err != nil || got.Data != want || got.DataGiven != given {
			t.Errorf("%q is %+v, %v", given, got, err)
		}
	}
	for given, says := range map[string]string{
		"10.2.0.5:4789": "without a port", "0.0.0.0": "of this machine", "10.9.0.1": "of this machine", "224.0.0.1": "of this machine", "eth7": "neither an IP address nor a network interface", "two": "name one of them",
	} {
		if got, err := (addresses{}).resolveData(given, known); !errors.Is(err, cluster.ErrInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q is %+v, %v; want %s", given, got, err, says)
		}
	}

	// It goes with its interface, and stays what it was while that has no address.
	before, err := resolve("", "eth0", known)
	if err == nil {
		before, err = before.resolveData("eth1", known)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		local interfaces
		flags addressFlags
		want  string
	}{
		{"as it was", known, addressFlags{}, "10.2.0.5"},
		{"another address", interfaces{known[1], nic("eth1", "10.2.0.7/24")}, addressFlags{}, "10.2.0.7"},
		{"none", interfaces{known[1]}, addressFlags{}, "10.2.0.5"},
		{"a flag that is new", known, addressFlags{Data: "eth0"}, "10.1.0.5"},
		{"a flag that makes no sense", known, addressFlags{Data: "eth7"}, "neither an IP address"},
	} {
		got, err := before.settleAgain(surroundings{flags: c.flags, local: c.local})
		if err != nil && strings.Contains(err.Error(), c.want) {
			continue
		}
		if err != nil || got.Data != c.want {
			t.Errorf("%s: %+v, %v; want %s", c.name, got, err, c.want)
			continue
		}
		if more, err := got.settleAgain(surroundings{flags: c.flags, local: c.local}); err != nil || more != got {
			t.Errorf("%s: settled once more it is %+v, %v; was %+v", c.name, more, err, got)
		}
	}
}

// TestFirstIngress_OffTheEngine: the engine's networks are found at the engine.
func TestFirstIngress_OffTheEngine(t *testing.T) {
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/networks") {
			_, _ = w.Write([]byte(`[{"Name":"ingress","Id":"i","Scope":"swarm","IPAM":{"Config":[{"Subnet":"10.0.0.0/24"}]}}]`))
			return
		}
		_, _ = w.Write([]byte(`{}`))
	}))
	defer engine.Close()
	n, err := New(Config{DataDir: t.TempDir(), Driver: simulate.New(simulate.Config{}), Hostname: "n1", Engine: "tcp://" + engine.Listener.Addr().String(),
		Interfaces: func() ([]Interface, error) { return nil, nil }})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := n.firstIngress(t.Context(), swarm.Spec{}, cluster.NetworkSettings{}); err != nil || got.Subnets[0].Prefix.String() != "10.0.1.0/24" {
		t.Errorf("%+v, %v", got, err)
	}
}
