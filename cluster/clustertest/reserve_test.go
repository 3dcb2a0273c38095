package clustertest

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// TestPorts_ThatOthersHave: a published port that a program of one machine has is said of that node, and the
// service's port is published all the same; all is well again once the program has ended, and then
// the port is nobody else's.
func TestPorts_ThatOthersHave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{Networks: true})
		m, other := c.Machines[0], c.Machines[1]
		other.Plane.SetOthers("8080/tcp", "9999/tcp")
		spec := Spec("web", "app:1", 2)
		spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80, PublishedPort: 8080}}}
		id := m.Create(spec)
		c.Runs(time.Minute, id, "app:1", 2)
		c.Carry()
		const want = "other programs have the published ports 8080/tcp: what comes for them goes to the services"
		says := func(problem bool) {
			t.Helper()
			c.Eventually(time.Minute, fmt.Sprint("it is said that the port is taken: ", problem), func() error {
				var shown swarm.Node
				if err := json.Unmarshal(m.Get("/nodes/"+nodeID(other)), &shown); err != nil || (shown.Status.Message == want) != problem {
					return fmt.Errorf("the node says %q (%v)", shown.Status.Message, err)
				}
				if got := c.problemOf(other); strings.Contains(got, want) != problem || c.problemOf(m) != "" {
					return errors.New(got)
				}
				return nil
			})
		}
		says(true)
		// It is tried again each 5 s, however much changes meanwhile.
		for i := range 20 {
			m.Update(id, func(spec *swarm.ServiceSpec) { *spec.Mode.Replicated.Replicas = uint64(1 + i%2) })
			time.Sleep(time.Second)
		}
		time.Sleep(time.Minute) // Until the addresses of tasks that have ended have rested.
		before := other.Plane.Reserves()
		time.Sleep(time.Minute)
		if n := other.Plane.Reserves() - before; n < 10 || n > 20 {
			t.Errorf("a port that another program has was tried %d times in a minute", n)
		}
		other.Plane.SetOthers()
		says(false)
		if !other.Plane.SetOthers("8080/tcp") {
			t.Error("another program got the port")
		}
		says(false)
	})
}
