package clustertest

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// TestRemoved_LeavesNoAddress: a service and its network may go as soon as they have come, or while
// tasks run. Its port is free at once, and when the tasks have ended nothing has an address.
func TestRemoved_LeavesNoAddress(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 2, Options{})
		first := c.Machines[0]
		for _, after := range []time.Duration{0, 300 * time.Millisecond, 10 * time.Second} {
			var made network.CreateResponse
			first.Do(http.MethodPost, "/networks/create", network.CreateRequest{Name: "net", CreateOptions: network.CreateOptions{Driver: "overlay"}}, &made)
			spec := Spec("web", "app:1", 5)
			spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "net"}}
			spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80, PublishedPort: 8080}}}
			service := first.Create(spec)
			vni := first.manager().Store().View().Network(made.ID).VNI
			time.Sleep(after)
			if held := first.manager().Store().View().AddressesIn(vni); after > time.Second && held != 6 {
				t.Errorf("%d addresses are held by five tasks and their service", held)
			}
			first.Do(http.MethodDelete, "/services/"+service, nil, nil)
			first.Do(http.MethodDelete, "/networks/"+made.ID, nil, nil)
			view := first.manager().Store().View()
			if holder, held := view.Holder(cluster.UniquePort(swarm.PortConfigProtocolTCP, 8080)); held {
				t.Errorf("after %s port 8080 is held by %v", after, holder)
			}
			c.Eventually(time.Minute, "no address is held", func() error {
				view := first.manager().Store().View()
				for task := range view.Tasks() {
					return fmt.Errorf("task %s is %s", task.ID, task.Status.State)
				}
				ingress := view.IngressNetwork().VNI
				if n, m := view.AddressesIn(vni), view.AddressesIn(ingress); n+m != 0 {
					return fmt.Errorf("%d addresses of the network, %d of ingress", n, m)
				}
				return nil
			})
		}
	})
}
