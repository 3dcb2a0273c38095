package cluster

import (
	"testing"

	"github.com/docker/docker/api/types/swarm"
)

func revisionOf(number uint64, set func(*Revision)) *Revision {
	r := &Revision{ServiceID: "s", Number: number}
	r.Spec.ContainerSpec = &swarm.ContainerSpec{Image: "app:1"}
	if set != nil {
		set(r)
	}
	return r
}

func TestUpToDate(t *testing.T) {
	node := constrainedNode()
	place := func(constraint string) func(*Revision) {
		return func(r *Revision) { r.Spec.Placement = &swarm.Placement{Constraints: []string{constraint}} }
	}
	publish := func(mode swarm.PortConfigPublishMode, port uint32) func(*Revision) {
		return func(r *Revision) {
			r.Endpoint = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: port, PublishedPort: port, PublishMode: mode}}}
		}
	}
	at := func(ip string, set func(*Revision)) func(*Revision) {
		return func(r *Revision) { set(r); r.ServiceLabels = map[string]string{LabelHostIP.Name: ip} }
	}
	current := revisionOf(2, nil)
	for name, c := range map[string]struct {
		old, current *Revision
		node         *Node
		want         bool
	}{
		"the same number":                              {revisionOf(2, func(r *Revision) { r.Auth = "old" }), current, node, true},
		"another number, the same content":             {revisionOf(1, nil), current, nil, true},
		"another image":                                {revisionOf(1, func(r *Revision) { r.Spec.ContainerSpec.Image = "app:0" }), current, node, false},
		"another port of the node":                     {revisionOf(1, publish("host", 80)), current, node, false},
		"the same port of the node":                    {revisionOf(1, publish("host", 80)), revisionOf(2, publish("host", 80)), node, true},
		"a port that all nodes publish":                {revisionOf(1, publish("ingress", 80)), current, node, true},
		"the same, in another mode":                    {revisionOf(1, publish("ingress", 80)), revisionOf(2, publish("host", 80)), node, false},
		"another address of the node":                  {revisionOf(1, publish("host", 80)), revisionOf(2, at("10.0.0.5", publish("host", 80))), node, false},
		"an address where all nodes publish":           {revisionOf(1, publish("ingress", 80)), revisionOf(2, at("10.0.0.5", publish("ingress", 80))), node, true},
		"names instead of virtual IPs":                 {revisionOf(1, func(r *Revision) { r.Endpoint = &swarm.EndpointSpec{Mode: swarm.ResolutionModeDNSRR} }), current, node, true},
		"no endpoint and the default endpoint":         {revisionOf(1, func(r *Revision) { r.Endpoint = &swarm.EndpointSpec{Mode: swarm.ResolutionModeVIP} }), current, node, true},
		"forced":                                       {revisionOf(1, func(r *Revision) { r.Spec.ForceUpdate = 1 }), current, node, false},
		"only auth differs":                            {revisionOf(1, func(r *Revision) { r.Auth = "other" }), current, node, true},
		"an empty list and none":                       {revisionOf(1, func(r *Revision) { r.Spec.ContainerSpec.Env = []string{} }), current, node, true},
		"placement that the node meets":                {revisionOf(1, nil), revisionOf(2, place("node.labels.disk==ssd")), node, true},
		"placement that the node doesn't meet":         {revisionOf(1, nil), revisionOf(2, place("node.labels.disk==hdd")), node, false},
		"placement, but no node":                       {revisionOf(1, nil), revisionOf(2, place("node.labels.disk==ssd")), nil, false},
		"placement that the node meets, another image": {revisionOf(1, func(r *Revision) { r.Spec.ContainerSpec.Image = "app:0" }), revisionOf(2, place("node.labels.disk==ssd")), node, false},
		"a revision that is gone":                      {nil, current, node, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := UpToDate(c.old, c.current, c.node); got != c.want {
				t.Errorf("up to date: %v", got)
			}
		})
	}
}
