package cluster

import (
	"testing"

	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"
)

func TestPorts(t *testing.T) {
	host := swarm.PortConfigPublishModeHost
	endpoint := &swarm.EndpointSpec{Ports: []swarm.PortConfig{
		{TargetPort: 80, PublishedPort: 8080, PublishMode: host},
		{TargetPort: 53, Protocol: "udp", PublishMode: host, Name: "dns"},
		{TargetPort: 81, PublishedPort: 81, PublishMode: swarm.PortConfigPublishModeIngress},
		{TargetPort: 80, PublishedPort: 8080, PublishMode: host}, // as for IPv4 and IPv6
	}}
	text := FormatPorts(HostPorts(endpoint))
	if text != "0:53/udp,8080:80/tcp" {
		t.Fatalf("ports are written as %s", text)
	}
	want := []swarm.PortConfig{
		{Protocol: "udp", TargetPort: 53, PublishMode: host},
		{Protocol: "tcp", TargetPort: 80, PublishedPort: 8080, PublishMode: host},
	}
	if diff := cmp.Diff(want, ParsePorts(text)); diff != "" {
		t.Error(diff)
	}
	if got := ParsePorts("x,1:2:3/tcp,99999:1/tcp,:"); got != nil {
		t.Errorf("nonsense is read as %+v", got)
	}
	if HostPorts(nil) != nil || ParsePorts("") != nil {
		t.Error("nothing is something")
	}
}
