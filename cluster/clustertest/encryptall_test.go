package clustertest

import (
	"fmt"
	"net/http"
	"slices"
	"testing"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// TestEncryptNetworks_FromThenOn: after `skep cluster update --encrypt-networks` what is made is encrypted and carried so, and
// the status names what was there before, until that is made anew.
func TestEncryptNetworks_FromThenOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{Networks: true})
		m := c.Machines[0]
		m.NewNetwork("old")
		var now swarm.Swarm
		m.Do(http.MethodGet, "/swarm", nil, &now)
		now.Spec.Labels = map[string]string{cluster.LabelEncryptNetworks.Name: "true"}
		m.Do(http.MethodPost, fmt.Sprint("/swarm/update?version=", now.Version.Index), now.Spec, nil)
		inClear := func(want ...string) {
			t.Helper()
			var status cluster.Status
			m.Do(http.MethodGet, "/skep/v1/status", nil, &status)
			if !status.EncryptNetworks || !slices.Equal(status.InClear, want) {
				t.Errorf("in clear are %q, want %q", status.InClear, want)
			}
		}
		inClear("ingress", "old")
		m.Do(http.MethodDelete, "/networks/ingress", nil, nil)
		m.Do(http.MethodDelete, "/networks/old", nil, nil)
		m.Do(http.MethodPost, "/networks/create", network.CreateRequest{Name: "ingress", CreateOptions: network.CreateOptions{Driver: "overlay", Ingress: true}}, nil)
		spec := Spec("web", "app:1", 2)
		spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: m.NewNetwork("old")}}
		spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{Protocol: swarm.PortConfigProtocolTCP, TargetPort: 80, PublishedPort: 8080}}}
		inClear()
		c.Runs(readyLimit, m.Create(spec), "app:1", 2)
		c.Carry()
	})
}
