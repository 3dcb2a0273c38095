package clustertest

import (
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	planner "skep/agent/network"
)

// TestNetworks_OfSeveralSubnets: tasks get addresses of the second subnet when the first has none any
// more, and nodes answer at the gateways of both.
func TestNetworks_OfSeveralSubnets(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{Networks: true})
		m := c.Machines[0]
		var created network.CreateResponse
		m.Do(http.MethodPost, "/networks/create", network.CreateRequest{Name: "web", CreateOptions: network.CreateOptions{Driver: "overlay", IPAM: &network.IPAM{
			Config: []network.IPAMConfig{{Subnet: "10.77.0.0/29"}, {Subnet: "10.77.2.0/29", Gateway: "10.77.2.6"}},
		}}}, &created)
		spec := Spec("web", "app:1", 8)
		spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: created.ID}}
		id := m.Create(spec)
		c.Runs(time.Minute, id, "app:1", 8)
		c.Carry()
		view, in := c.Leader().manager().Store().View(), map[string]int{}
		for task := range view.TasksOfService(id) {
			addr := view.Network(created.ID).Addrs(task.Addresses[0].Host)[0]
			in[netip.PrefixFrom(addr, 29).Masked().String()]++
		}
		if in["10.77.0.0/29"] != 4 || in["10.77.2.0/29"] != 4 { // The virtual IP is in the first.
			t.Errorf("tasks have addresses in %v", in)
		}
		for _, m := range c.Machines {
			existing, err := m.Plane.Dump(t.Context(), "")
			gateways := map[string]bool{}
			for _, o := range existing.Objects {
				if e, is := o.(planner.Element); is && e.Set == planner.SetGateways {
					gateways[e.B] = true
				}
			}
			if err != nil || fmt.Sprint(gateways) != "map[10.77.0.1:true 10.77.2.6:true]" {
				t.Errorf("%s answers at %v (%v)", m.Name, gateways, err)
			}
		}
	})
}
