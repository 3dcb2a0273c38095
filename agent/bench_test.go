package agent

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"skep/agent/network"
	"skep/agent/network/dns"
	"skep/agent/network/simulate"
	"skep/cluster"
)

// large is what a node knows of a network with 2,000 services of 5 endpoints each, of which it has 10
// itself, in a cluster of 100 nodes.
func large() *facts {
	const services, endpoints, nodes = 2000, 5, 100
	n := &cluster.Network{ID: "w", VNI: cluster.FirstVNI, Subnets: []cluster.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/16"), Gateway: netip.MustParseAddr("10.0.0.1")}}}
	f := &facts{Cluster: "c", Node: "n1", Complete: true, EngineTold: true, Accounts: map[string]*account{}}
	told := &cluster.NetworkUpdate{NetworkID: n.ID, Full: true, To: 1, Network: n}
	for i := range services {
		s := cluster.NetworkService{ID: fmt.Sprintf("s%024d", i), Name: fmt.Sprintf("web%d", i), VirtualIP: cluster.Host(2 + i)}
		told.Services = append(told.Services, s)
		for k := range endpoints {
			at := i*endpoints + k
			id := fmt.Sprintf("t%024d", at)
			told.Endpoints = append(told.Endpoints, cluster.NetworkEndpoint{
				ID: id, ServiceID: s.ID, Name: fmt.Sprintf("%s.%d.%s", s.Name, k+1, id), Node: uint16(1 + at%nodes), Host: cluster.Host(2 + services + at), Phase: cluster.EndpointServing,
			})
			if at%nodes == 0 && len(f.Tasks) < 10 {
				f.Tasks = append(f.Tasks, ownTask{ID: id, Addresses: []cluster.Address{{VNI: n.VNI, Host: cluster.Host(2 + services + at)}}, Serves: true})
			}
		}
	}
	all := &cluster.NetworkUpdate{Full: true, To: 1}
	for i := range nodes {
		all.Nodes = append(all.Nodes, cluster.NetworkNode{ID: fmt.Sprintf("n%d", i+1), Index: uint16(i + 1), Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})})
	}
	for id, u := range map[string]*cluster.NetworkUpdate{n.ID: told, "": all} {
		a, err := new(account).with(u)
		if err != nil {
			panic(err)
		}
		f.Accounts[id] = a
	}
	return f
}

// turn has another endpoint of the network stop to serve, as a manager tells it.
func (f *facts) turn(b *testing.B, i int) {
	a := f.Accounts["w"]
	e := a.Endpoints[i%len(a.Endpoints)]
	e.Phase = map[bool]cluster.EndpointPhase{true: cluster.EndpointDraining, false: cluster.EndpointServing}[e.Phase == cluster.EndpointServing]
	next, err := a.with(&cluster.NetworkUpdate{NetworkID: "w", From: a.To, To: a.To + 1, Endpoints: []cluster.NetworkEndpoint{e}})
	if err != nil {
		b.Fatal(err)
	}
	f.Accounts["w"] = next
}

// BenchmarkNetworks is what a node's account of 10,000 endpoints takes in memory, and what a change of one of them
// costs: to take it in, to have the kernel follow (in memory, without the kernel's own part) and to
// write the file of names.
func BenchmarkNetworks(b *testing.B) {
	before := heap()
	f := large()
	account := heap() - before
	b.Run("account", func(b *testing.B) {
		for i := range b.N {
			f.turn(b, i)
		}
		b.ReportMetric(float64(account)/(1<<20), "MB")
	})
	b.Run("plane", func(b *testing.B) {
		ctx, plane := context.Background(), simulate.New()
		step := func() {
			existing, err := plane.Dump(ctx, "c")
			if err != nil {
				b.Fatal(err)
			}
			steps := network.Plan(network.Desired(f.wanted(), existing), existing.Objects, true)
			if err := plane.Apply(ctx, steps); err != nil {
				b.Fatal(err)
			}
		}
		step()
		b.ReportAllocs()
		b.ResetTimer()
		for i := range b.N {
			f.turn(b, i)
			step()
		}
	})
	b.Run("names", func(b *testing.B) {
		file := filepath.Join(memory(b), "names")
		b.ReportAllocs()
		for i := range b.N {
			f.turn(b, i)
			if err := dns.WriteFile(file, f.names()); err != nil {
				b.Fatal(err)
			}
		}
	})
	runtime.KeepAlive(f)
}

// memory is a directory in memory, as the file of names is in one.
func memory(b *testing.B) string {
	dir, err := os.MkdirTemp("/dev/shm", "skep")
	if err != nil {
		return b.TempDir()
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
