package cluster

import (
	"net/netip"
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

func TestHostIPs(t *testing.T) {
	for text, want := range map[string]HostIPs{
		"10.0.0.5":                        {"": netip.MustParseAddr("10.0.0.5")},
		"fd00::5":                         {"": netip.MustParseAddr("fd00::5")},
		"8080=10.0.0.5, 53/udp=127.0.0.1": {"8080/tcp": netip.MustParseAddr("10.0.0.5"), "53/udp": netip.MustParseAddr("127.0.0.1")},
		"::ffff:10.0.0.5,9/sctp=10.0.0.6": {"": netip.MustParseAddr("10.0.0.5"), "9/sctp": netip.MustParseAddr("10.0.0.6")},
		"":                                nil,
		"localhost":                       nil,
		"0.0.0.0":                         nil,
		"::":                              nil,
		"224.0.0.1":                       nil,
		"fe80::1%eth0":                    nil,
		"10.0.0.5,10.0.0.6":               nil,
		"80=10.0.0.5,80/tcp=10.0.0.6":     nil,
		"0=10.0.0.5":                      nil,
		"65536=10.0.0.5":                  nil,
		"80/=10.0.0.5":                    nil,
		"80/icmp=10.0.0.5":                nil,
		"80=":                             nil,
		"10.0.0.5,":                       nil,
	} {
		got, ok := LabelHostIP.Of(map[string]string{LabelHostIP.Name: text})
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || ok != (want != nil) {
			t.Errorf("%q: %v %s", text, ok, diff)
		}
	}
}

func TestPublishedPorts(t *testing.T) {
	s := &Service{Ports: []swarm.PortConfig{
		{TargetPort: 80, PublishedPort: 8080, PublishMode: "ingress", Protocol: "tcp"},
		{TargetPort: 81, PublishedPort: 8081, PublishMode: "host", Protocol: "tcp"},
		{TargetPort: 53, PublishedPort: 53, PublishMode: "ingress", Protocol: "udp"},
	}}
	s.Spec.Labels = map[string]string{LabelHostIP.Name: "10.0.0.5,53/udp=10.0.0.6"}
	want := []PublishedPort{
		{Protocol: "tcp", Published: 8080, Target: 80, HostIP: netip.MustParseAddr("10.0.0.5")},
		{Protocol: "udp", Published: 53, Target: 53, HostIP: netip.MustParseAddr("10.0.0.6")},
	}
	if diff := cmp.Diff(want, PublishedPorts(s), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}
