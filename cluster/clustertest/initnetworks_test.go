package clustertest

import (
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/system"

	"skep/cluster/node"
)

// TestInit_Networks: a new cluster has an ingress network from its own pools, and a node's
// address for packets of networks is what its user said, also after a restart.
func TestInit_Networks(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{})
		first, worker := c.Machines[0], c.Machines[1]
		var ingress network.Inspect
		first.Do(http.MethodGet, "/networks/ingress?scope=swarm", nil, &ingress)
		if ingress.Name != "ingress" || !ingress.Ingress || ingress.IPAM.Config[0].Subnet != "10.0.0.0/24" || ingress.IPAM.Config[0].Gateway != "10.0.0.1" {
			t.Errorf("%+v", ingress)
		}
		view := first.manager().Store().View()
		if view.IngressNetwork() == nil || view.Cluster().Networks.Seed == 0 || len(view.Cluster().Networks.Pools) > 0 {
			t.Errorf("%+v", view.Cluster().Networks)
		}
		if err := worker.Try(http.MethodGet, "/networks/ingress?scope=swarm", nil, nil); err == nil {
			t.Error("a worker knows a network that it doesn't carry")
		}

		other := c.add(3)
		other.Stop()
		other.Flags = func(config *node.Config) {
			config.Init, config.AdvertiseAddr, config.DataPathAddr = true, other.IP, "eth1"
			config.Interfaces = other.withData("10.99.0.3")
			config.DefaultAddrPool, config.SubnetSize, config.DataPathPort = []string{"10.20.0.0/16"}, 26, 4790
		}
		check := func() error {
			var info system.Info
			if err := other.Try(http.MethodGet, "/info", nil, &info); err != nil || info.Swarm.Cluster == nil {
				return fmt.Errorf("no cluster: %w", err)
			}
			if got := info.Swarm.Cluster; len(got.DefaultAddrPool) != 1 || got.DefaultAddrPool[0] != "10.20.0.0/16" || got.SubnetSize != 26 || got.DataPathPort != 4790 {
				t.Fatalf("%+v", got)
			}
			for known := range other.manager().Store().View().Nodes() {
				if known.DataAddr != "10.99.0.3" {
					return fmt.Errorf("its data address is %q", known.DataAddr)
				}
			}
			return nil
		}
		other.Restart()
		c.Eventually(20*time.Second, "it has made a cluster", check)
		other.Do(http.MethodGet, "/networks/ingress?scope=swarm", nil, &ingress)
		if ingress.IPAM.Config[0].Subnet != "10.20.0.0/26" || len(ingress.Peers) != 1 || ingress.Peers[0].IP != "10.99.0.3" {
			t.Errorf("%+v", ingress)
		}
		other.Stop()
		other.Flags = func(config *node.Config) { config.Interfaces = other.withData("10.99.0.3") }
		other.Restart()
		c.Eventually(20*time.Second, "it is as it was", check)

		third := c.add(4)
		third.Stop()
		third.Flags = func(config *node.Config) { config.Interfaces = third.withData("10.99.0.4") }
		third.Restart()
		listen, advertise := third.addresses()
		_, remote := other.addresses()
		err := third.Try(http.MethodPost, "/swarm/join", swarm.JoinRequest{ListenAddr: listen, AdvertiseAddr: advertise, RemoteAddrs: []string{remote}, JoinToken: third.Tokens(other).Worker, DataPathAddr: "127.0.1.77"}, nil)
		if err == nil {
			t.Error("it takes packets at an address that isn't its own")
		}
		third.Do(http.MethodPost, "/swarm/join", swarm.JoinRequest{ListenAddr: listen, AdvertiseAddr: advertise, RemoteAddrs: []string{remote}, JoinToken: third.Tokens(other).Worker, DataPathAddr: "10.99.0.4"}, nil)
		c.Eventually(20*time.Second, "its address is known", func() error {
			known := 0
			for n := range other.manager().Store().View().Nodes() {
				if n.DataAddr == "10.99.0.4" {
					known++
				}
			}
			if known != 1 {
				return fmt.Errorf("%d nodes have it", known)
			}
			return nil
		})
	})
}

// withData are the machine's interfaces, with one more for packets of networks.
func (m *Machine) withData(ip string) func() ([]node.Interface, error) {
	return func() ([]node.Interface, error) {
		own, err := m.interfaces()
		return append(own, node.Interface{Name: "eth1", Networks: []net.IPNet{{IP: net.ParseIP(ip), Mask: net.CIDRMask(24, 32)}}}), err
	}
}
