package api

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"skep/cluster"
	"skep/scheduler/address"
	"skep/store"
)

// on has a service on networks, given by name or ID.
func on(refs ...string) func(*swarm.ServiceSpec) {
	return func(s *swarm.ServiceSpec) {
		s.TaskTemplate.Networks = nil
		for _, ref := range refs {
			s.TaskTemplate.Networks = append(s.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: ref})
		}
	}
}

// publishes has ports such as 8080:80/tcp, on the nodes of tasks with host before them.
func publishes(ports ...string) func(*swarm.ServiceSpec) {
	return func(s *swarm.ServiceSpec) {
		s.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeVIP}
		for _, text := range ports {
			p := cluster.ParsePorts(strings.TrimPrefix(text, "host "))[0]
			if !strings.HasPrefix(text, "host ") {
				p.PublishMode = swarm.PortConfigPublishModeIngress
			}
			s.EndpointSpec.Ports = append(s.EndpointSpec.Ports, p)
		}
	}
}

func withLabel(name, value string) func(*swarm.ServiceSpec) {
	return func(s *swarm.ServiceSpec) { s.Labels[name] = value }
}

// newNetworkBench has the ingress network, and two more.
func newNetworkBench(t testing.TB) *bench {
	b := newBench(t)
	b.createNetwork(overlay("ingress", func(asked *network.CreateRequest) { asked.Ingress = true }))
	b.createNetwork(overlay("front", subnets(network.IPAMConfig{Subnet: "10.7.0.0/24"})))
	b.createNetwork(overlay("back"))
	return b
}

func TestAttach_Refuses(t *testing.T) {
	b := newNetworkBench(t)
	front := b.inspectNetwork("front").ID
	b.create(spec("taken", publishes("8080:80/tcp", "host 9090:90/tcp")))
	attachment := func(change func(*swarm.NetworkAttachmentConfig)) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) { on("front")(s); change(&s.TaskTemplate.Networks[0]) }
	}
	startFirst := func(s *swarm.ServiceSpec) {
		s.UpdateConfig = &swarm.UpdateConfig{Order: swarm.UpdateOrderStartFirst, FailureAction: "pause"}
	}
	for _, c := range []struct {
		status  int
		says    string
		changes []func(*swarm.ServiceSpec)
	}{
		{404, "network nothing not found", []func(*swarm.ServiceSpec){on("nothing")}},
		{400, `Service cannot be explicitly attached to the ingress network \"ingress\"`, []func(*swarm.ServiceSpec){on("ingress")}},
		{400, "network front is given twice", []func(*swarm.ServiceSpec){on("front", front)}},
		{400, "multiple networks with one of the networks in host mode", []func(*swarm.ServiceSpec){on("front", "host")}},
		{400, "network front has no driver options for services", []func(*swarm.ServiceSpec){attachment(func(a *swarm.NetworkAttachmentConfig) { a.DriverOpts = map[string]string{"a": "b"} })}},
		{400, `the alias \"a b\" must be a name`, []func(*swarm.ServiceSpec){attachment(func(a *swarm.NetworkAttachmentConfig) { a.Aliases = []string{"ok.example", "a b"} })}},
		{400, `the alias \"\" must be a name`, []func(*swarm.ServiceSpec){attachment(func(a *swarm.NetworkAttachmentConfig) { a.Aliases = []string{""} })}},
		{400, "port '8080' is already in use by service 'taken' (", []func(*swarm.ServiceSpec){publishes("8080:1/tcp")}},
		{400, "as an ingress port", []func(*swarm.ServiceSpec){publishes("host 8080:1/tcp")}},
		{400, "as a host-published port", []func(*swarm.ServiceSpec){publishes("9090:1/tcp")}},
		{400, "port '2377' can't be published on all nodes", []func(*swarm.ServiceSpec){publishes("2377:1/tcp")}},
		{400, "duplicate published ports provided", []func(*swarm.ServiceSpec){publishes("81:1/tcp", "host 81:2/tcp")}},
		{400, "port published with ingress mode can't be used with dnsrr mode", []func(*swarm.ServiceSpec){publishes("81:1/tcp"), func(s *swarm.ServiceSpec) { s.EndpointSpec.Mode = "dnsrr" }}},
		{400, "port 1 can't be published on all nodes: the service's tasks are on the network host", []func(*swarm.ServiceSpec){publishes("81:1/tcp"), on("host")}},
		{400, "the service's network is none", []func(*swarm.ServiceSpec){publishes("81:1/tcp"), on("none")}},
		{400, "skep.publish: it has no meaning", []func(*swarm.ServiceSpec){publishes("host 81:1/tcp"), withLabel("skep.publish", "local")}},
		{400, "won't do, it takes all, prefer-local or local", []func(*swarm.ServiceSpec){publishes("81:1/tcp"), withLabel("skep.publish", "here")}},
		{400, "skep.sticky: it has no meaning", []func(*swarm.ServiceSpec){withLabel("skep.sticky", "true")}},
		{400, "skep.sticky: it has no meaning", []func(*swarm.ServiceSpec){on("front"), withLabel("skep.sticky", "true"), func(s *swarm.ServiceSpec) { s.EndpointSpec.Mode = "dnsrr" }}},
		{400, "skep.static-addresses: tasks have no addresses", []func(*swarm.ServiceSpec){on("bridge"), withLabel("skep.static-addresses", "true")}},
		{400, "can't be updated in the order start-first", []func(*swarm.ServiceSpec){on("front"), withLabel("skep.static-addresses", "true"), startFirst}},
		{400, "the service publishes on 10.0.0.5 no port, not 82/tcp", []func(*swarm.ServiceSpec){publishes("81:1/tcp"), withLabel("skep.publish.host-ip", "82=10.0.0.5")}},
		{400, "not any other one", []func(*swarm.ServiceSpec){withLabel("skep.publish.host-ip", "10.0.0.5")}},
		{400, "not any other one", []func(*swarm.ServiceSpec){publishes("81:1/tcp"), withLabel("skep.publish.host-ip", "10.0.0.5,81=10.0.0.6")}},
		{400, "bind the node's ports themselves", []func(*swarm.ServiceSpec){publishes("host 81:81/tcp"), on("host"), withLabel("skep.publish.host-ip", "10.0.0.5")}},
	} {
		b.do("POST", "/services/create", spec("web", c.changes...)).want(t, c.status, c.says)
	}
	for i, changes := range [][]func(*swarm.ServiceSpec){
		{on("front", "back"), publishes("81:1/tcp", "0:1/tcp", "host 82:1/tcp"), withLabel("skep.publish", "local"), withLabel("skep.publish.host-ip", "81=10.0.0.5, fd00::1"), withLabel("skep.sticky", "true")},
		{on(front[:6]), withLabel("skep.static-addresses", "true")},
		{publishes("83:1/tcp"), on("bridge")},
		{on("front"), func(s *swarm.ServiceSpec) { s.EndpointSpec.Mode = "dnsrr" }, withLabel("skep.sticky", "false"), attachment(func(a *swarm.NetworkAttachmentConfig) { a.Aliases = []string{"db", "db_1.example.com"} })},
		{on("front"), publishes("84:1/tcp"), func(s *swarm.ServiceSpec) { s.Mode = swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}} }},
	} {
		b.create(spec(fmt.Sprint("ok", i), changes...))
	}
}

// TestServices_OnNetworks: what a service and its tasks have is shown as Docker does, and kept
// over updates as long as it is asked for.
func TestServices_OnNetworks(t *testing.T) {
	b := newNetworkBench(t)
	front, back, ingress := b.inspectNetwork("front").ID, b.inspectNetwork("back").ID, b.inspectNetwork("ingress").ID
	id := b.create(spec("web", on("front", "back"), publishes("8080:80/tcp", "0:81/udp", "host 9:9/tcp")))
	first := b.inspect("web")
	if got := first.Spec.TaskTemplate.Networks; len(got) != 2 || got[0].Target != front || got[1].Target != back {
		t.Errorf("networks %+v", got)
	}
	ips := first.Endpoint.VirtualIPs
	if len(ips) != 2 || ips[0].NetworkID != front || ips[1].NetworkID != back || !strings.HasPrefix(ips[0].Addr, "10.7.0.") || !strings.HasSuffix(ips[0].Addr, "/24") {
		t.Fatalf("virtual IPs %+v", ips)
	}
	if p := first.Endpoint.Ports; len(p) != 3 || p[0].PublishedPort != 8080 || p[1].PublishedPort != 30000 || p[2].PublishedPort != 9 || first.Spec.EndpointSpec.Ports[1].PublishedPort != 0 {
		t.Fatalf("ports %+v", p)
	}
	// Another image, and ports: the addresses stay, and a port that is there stays, too.
	b.post("web", "", spec("web", on("back", "front"), publishes("0:81/udp", "0:82/udp"), func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "timecheck:2.0" })).want(t, 200, "")
	second := b.inspect("web").Endpoint
	if len(second.VirtualIPs) != 2 || second.VirtualIPs[0] != ips[1] || second.VirtualIPs[1] != ips[0] || second.Ports[0].PublishedPort != 30000 || second.Ports[1].PublishedPort != 30001 {
		t.Errorf("after an update: %+v", second)
	}
	// Others take what was given up, and the service can't go back to it.
	other := b.create(spec("other", publishes("8080:80/tcp")))
	b.do("POST", fmt.Sprintf("/services/web/update?version=%d&rollback=previous", b.inspect("web").Version.Index), spec("web")).want(t, 400, "port '8080' is already in use by service 'other' ("+other+") as an ingress port")
	b.do("POST", fmt.Sprintf("/skep/v1/services/web/rollback?version=%d&to=1", b.inspect("web").Version.Index), nil).want(t, 400, "port '8080' is already in use by service 'other'")
	b.do("DELETE", "/services/other", nil).want(t, 200, "")
	b.do("POST", fmt.Sprintf("/services/web/update?version=%d&rollback=previous", b.inspect("web").Version.Index), spec("web")).want(t, 200, "")
	if got := b.inspect("web").Endpoint; got.Ports[0].PublishedPort != 8080 || got.VirtualIPs[0] != ips[0] {
		t.Errorf("after a rollback: %+v", got)
	}
	b.post("web", "", spec("web", on("front"), func(s *swarm.ServiceSpec) { s.EndpointSpec.Mode = "dnsrr" })).want(t, 200, "")
	if got := b.inspect("web").Endpoint; len(got.VirtualIPs) != 0 || len(got.Ports) != 0 || got.Spec.Mode != "dnsrr" {
		t.Errorf("with names only: %+v", got)
	}
	// A task shows its addresses, that of published ports before the others.
	b.addTask(1, id, 1, 1, func(task *cluster.Task) {
		for _, ref := range []string{front, ingress} {
			n := b.view().Network(ref)
			host, _ := address.Free(b.view(), n, task.ID)
			task.Addresses = append(task.Addresses, cluster.Address{VNI: n.VNI, Host: host})
		}
	})
	var task swarm.Task
	b.do("GET", "/tasks/"+taskID(1), nil).want(t, 200, "").into(t, &task)
	if a := task.NetworksAttachments; len(a) != 2 || a[0].Network.ID != ingress || a[1].Network.ID != front || a[1].Network.Spec.Name != "front" || a[1].Network.DriverState.Name != "overlay" ||
		len(a[1].Addresses) != 1 || a[1].Network.IPAMOptions.Configs[0].Subnet != "10.7.0.0/24" {
		t.Fatalf("%+v", a)
	}
	if prefix, err := netip.ParsePrefix(task.NetworksAttachments[1].Addresses[0]); err != nil || prefix.Bits() != 24 || prefix.Masked().String() != "10.7.0.0/24" {
		t.Errorf("%v, %v", prefix, err)
	}
}

// Publishing a port is no reason to replace a task; another network is one.
func TestServices_PublishingReplacesNothing(t *testing.T) {
	b := newNetworkBench(t)
	id := b.create(spec("web", on("front")))
	b.addTask(1, id, 1, 1)
	upToDate := func() string {
		var list []swarm.Task
		b.do("GET", `/tasks?filters={"service":["web"],"_up-to-date":["true"]}`, nil).want(t, 200, "").into(t, &list)
		return fmt.Sprint(len(list), " ", b.view().Service(id).Revision)
	}
	for _, c := range []struct {
		change []func(*swarm.ServiceSpec)
		want   string
	}{
		{[]func(*swarm.ServiceSpec){on("front"), publishes("8080:80/tcp")}, "1 1"},
		{[]func(*swarm.ServiceSpec){on("front"), publishes("8081:80/tcp", "0:81/tcp"), withLabel("skep.publish", "local"), withLabel("skep.publish.host-ip", "10.0.0.5")}, "1 1"},
		{[]func(*swarm.ServiceSpec){on("front"), func(s *swarm.ServiceSpec) { s.EndpointSpec.Mode = "dnsrr" }}, "1 1"},
		{[]func(*swarm.ServiceSpec){on("front"), publishes("host 8080:80/tcp")}, "0 2"},
		{[]func(*swarm.ServiceSpec){on("front")}, "1 3"},
		{[]func(*swarm.ServiceSpec){on("front", "back")}, "0 4"},
	} {
		b.post("web", "", spec("web", c.change...)).want(t, 200, "")
		if got := upToDate(); got != c.want {
			t.Errorf("tasks up to date and revision: %s, want %s", got, c.want)
		}
	}
}

// FuzzPorts sends ports of any kind: a service has what it asked for, or is refused.
func FuzzPorts(f *testing.F) {
	f.Add(uint32(8080), uint32(80), "tcp", "ingress", "vip", uint32(0), uint32(81), "udp", "host", "10.0.0.5")
	f.Add(uint32(0), uint32(80), "", "", "", uint32(0), uint32(80), "tcp", "ingress", "8080=10.0.0.5,53/udp=fd00::1")
	f.Add(uint32(30000), uint32(80), "sctp", "ingress", "dnsrr", uint32(30000), uint32(1), "sctp", "host", "")
	f.Add(uint32(70000), uint32(0), "icmp", "mesh", "x", uint32(2377), uint32(1), "tcp", "ingress", "80/=,")
	f.Fuzz(func(t *testing.T, published, target uint32, protocol, publish, mode string, published2, target2 uint32, protocol2, publish2, ip string) {
		b := newNetworkBench(t)
		b.create(spec("there", publishes("8080:80/tcp", "0:80/tcp")))
		asked := spec("web", func(s *swarm.ServiceSpec) {
			s.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionMode(mode), Ports: []swarm.PortConfig{
				{PublishedPort: published, TargetPort: target, Protocol: swarm.PortConfigProtocol(protocol), PublishMode: swarm.PortConfigPublishMode(publish)},
				{PublishedPort: published2, TargetPort: target2, Protocol: swarm.PortConfigProtocol(protocol2), PublishMode: swarm.PortConfigPublishMode(publish2)},
			}}
			if ip != "" {
				s.Labels[cluster.LabelHostIP.Name] = ip
			}
		})
		answer := b.do("POST", "/services/create", asked)
		if answer.status != 201 {
			if answer.status != 400 || len(slices.Collect(b.view().Services())) != 1 {
				t.Fatalf("%d %s", answer.status, answer.body)
			}
			return
		}
		s := b.view().ServiceNamed("web")
		if len(s.Ports) != 2 {
			t.Fatalf("ports %+v", s.Ports)
		}
		for i, p := range s.Ports {
			holder, held := b.view().Holder(cluster.UniquePort(p.Protocol, p.PublishedPort))
			ingress := p.PublishMode == swarm.PortConfigPublishModeIngress
			if ingress && (p.PublishedPort == 0 || p.PublishedPort > maxPort || !held || holder.ID != s.ID) || !ingress && held {
				t.Fatalf("port %d: %+v is %v's", i, p, holder)
			}
			if want := s.Spec.EndpointSpec.Ports[i].PublishedPort; want != 0 && want != p.PublishedPort {
				t.Fatalf("port %d: asked for %d, has %d", i, want, p.PublishedPort)
			}
		}
		cluster.PublishedPorts(s)
	})
}

// TestIsHostName_PropertyIsWhatContainersCanAskFor.
func TestIsHostName_PropertyIsWhatContainersCanAskFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-zA-Z0-9._ -]{0,20}`).Draw(t, "name")
		if isHostName(name) && (strings.ContainsAny(name, " ") || strings.Contains(name, "..") || name == "" || strings.HasSuffix(name, ".")) {
			t.Fatalf("%q", name)
		}
	})
	for name, want := range map[string]bool{"db": true, "db.example.com": true, "my_db-1": true, strings.Repeat("a", 63): true, strings.Repeat("a", 64): false, "": false, "a.": false, "*.a": false} {
		if isHostName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

// TestCLIAttachments plays docker's own command.
func TestCLIAttachments(t *testing.T) {
	b, _ := newEngineBench(t)
	b.schedule()
	c := newCLI(t, b)
	for _, name := range []string{"front", "back"} {
		c.docker(`.`, "network", "create", "-d", "overlay", name)
	}
	c.docker(`.`, "network", "create", "-d", "overlay", "--ingress", "ingress")
	c.docker(`(?s)converged`, "service", "create", "--name", "web", "--no-resolve-image", "--update-monitor", "100ms", "--network", "front", "--network", "name=back,alias=www,alias=web.example.com",
		"-p", "8080:80", "-p", "5353:53/udp", "-p", "9000-9001:90-91", "-p", "mode=host,target=7,published=7", "-p", "81", "timecheck:1.0")
	c.docker(`^\*:8080->80/tcp, \*:9000-9001->90-91/tcp, \*:30000->81/tcp, \*:5353->53/udp\n$`, "service", "ls", "--format", "{{.Ports}}")
	c.docker(`^\*:7->7/tcp\n$`, "service", "ps", "web", "--format", "{{.Ports}}")
	c.docker(`(?s)Endpoint Mode:\s+vip.*PublishedPort = 8080.*PublishMode = ingress`, "service", "inspect", "--pretty", "web")
	c.docker(`Networks: (front back|back front)`, "service", "inspect", "--pretty", "web")
	c.docker(`^(10\.0\.\d+\.\d+/24 ){2}\n$`, "service", "inspect", "-f", "{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}", "web")
	c.docker(`^ingress 10\S+/24 front 10\S+/24 back 10\S+/24 \n$`, "inspect", "--type", "task", "-f", "{{range .NetworksAttachments}}{{.Network.Spec.Name}} {{index .Addresses 0}} {{end}}", taskOf(b, "web"))
	task := taskOf(b, "web")
	c.docker(`web`, "service", "update", "-d", "--publish-rm", "5353/udp", "--publish-rm", "80", "--publish-add", "8443:443", "web")
	c.docker(`\*:8443->443/tcp`, "service", "ls", "--format", "{{.Ports}}")
	if len(slices.Collect(b.view().Tasks())) != 1 || taskOf(b, "web") != task {
		t.Error("publishing replaced a task")
	}
	c.refused(`service web is already attached to network front|already attached`, "service", "update", "-d", "--network-add", "front", "web")
	c.docker(`converged`, "service", "update", "--network-rm", "front", "--endpoint-mode", "vip", "web")
	c.docker(`Networks: back *\n`, "service", "inspect", "--pretty", "web")
	c.refused(`port published with ingress mode can't be used with dnsrr mode`, "service", "update", "-d", "--endpoint-mode", "dnsrr", "web")
	c.refused(`port '8443' is already in use by service 'web' \(\w{25}\) as an ingress port`, "service", "create", "-d", "-p", "8443:1", "--no-resolve-image", "timecheck:1.0")
	c.refused(`ingress`, "service", "create", "-d", "--network", "ingress", "--no-resolve-image", "timecheck:1.0")
	c.refused(`network nothing not found`, "service", "create", "-d", "--network", "nothing", "--no-resolve-image", "timecheck:1.0")
	c.refused(`leave driver-opt out`, "service", "create", "-d", "--network", "name=back,driver-opt=a=b", "--no-resolve-image", "timecheck:1.0")
	c.docker(`.`, "service", "create", "-d", "--name", "names", "--endpoint-mode", "dnsrr", "--network", "back", "--no-resolve-image", "timecheck:1.0")
	c.docker(`(?s)Endpoint Mode:\s+dnsrr`, "service", "inspect", "--pretty", "names")
	c.docker(`(?s)job complete`, "service", "create", "--name", "sum", "--mode", "replicated-job", "--network", "back", "-p", "99:99", "--no-resolve-image", "timecheck:1.0")
	c.docker(`^\*:99->99/tcp\n$`, "service", "ls", "-f", "name=sum", "--format", "{{.Ports}}")
	c.refused(`is in use by service`, "network", "rm", "back")
	c.docker(`web\nnames\nsum\n`, "service", "rm", "web", "names", "sum")
	c.docker(`back\nfront\n`, "network", "rm", "back", "front")
}

const composeFile = `
services:
  web:
    image: timecheck:1.0
    ports: ["8080:80", {target: 53, published: 5353, protocol: udp, mode: ingress}, {target: 9, published: 9009, mode: host}]
    networks:
      front: {aliases: [www]}
      default:
    secrets: [key]
    configs: [{source: site, target: /etc/site}]
    deploy: {replicas: 2, update_config: {parallelism: 1, monitor: 100ms}}
  db:
    image: timecheck:1.0
    networks: [default, shared]
    deploy: {update_config: {monitor: 100ms}, endpoint_mode: dnsrr, labels: {skep.static-addresses: "true"}}
  agent:
    image: timecheck:1.0
    deploy: {update_config: {monitor: 100ms}, mode: global}
    networks: [hostnet]
  sum:
    image: timecheck:1.0
    deploy: {mode: replicated-job, replicas: 2}
networks:
  front: {driver: overlay, attachable: true, ipam: {config: [{subnet: 10.77.0.0/24}]}}
  shared: {external: true}
  hostnet: {external: true, name: host}
secrets:
  key: {file: ./key}
configs:
  site: {file: ./site}
`

// TestCLIStack plays docker's own stack commands: deployed twice nothing changes, and what is
// removed leaves nothing, though tasks still stop.
func TestCLIStack(t *testing.T) {
	b, _ := newEngineBench(t)
	b.schedule()
	c := newCLI(t, b)
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("key", "secret")
	write("site", "content")
	file := write("compose.yml", "version: \"3.13\"\n"+composeFile)
	c.docker(`.`, "network", "create", "-d", "overlay", "--ingress", "ingress")
	c.docker(`(?s)subnet: 10.77.0.0/24`, "stack", "config", "-c", file)
	c.refused(`network "shared" is declared as external, but could not be found`, "stack", "deploy", "-c", file, "--resolve-image", "never", "--detach", "app")
	if left := slices.Collect(b.view().Services()); len(left) > 0 {
		t.Fatalf("%d services after a failure", len(left))
	}
	c.docker(`.`, "network", "create", "-d", "overlay", "shared")
	c.docker(`(?s)Creating network app_default.*Creating service app_`, "stack", "deploy", "-c", file, "--resolve-image", "never", "--detach=false", "app")
	c.docker(`(?m)^app +4$`, "stack", "ls")
	c.docker(`(?s)app_agent global 3/3.*app_db replicated 1/1.*app_web replicated 2/2 \*:8080->80/tcp, \*:5353->53/udp`, "stack", "services", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Ports}}", "app")
	c.docker(`app_web\.1 timecheck:1.0 n\d Running`, "stack", "ps", "--format", "{{.Name}} {{.Image}} {{.Node}} {{.DesiredState}}", "app")
	c.docker(`^(default|www|web|front| )+\n$`, "service", "inspect", "-f", `{{range .Spec.TaskTemplate.Networks}}{{range .Aliases}}{{.}} {{end}}{{end}}`, "app_web")
	c.docker(`^app_default\napp_front\ningress\nshared\n$`, "network", "ls", "-f", "scope=swarm", "-f", "driver=overlay", "--format", "{{.Name}}")
	state := func() string {
		var list []string
		for s := range b.view().Services() {
			list = append(list, fmt.Sprint(s.ID, " ", s.Revision, " ", s.VirtualIPs, s.Ports))
		}
		for task := range b.view().Tasks() {
			list = append(list, task.ID)
		}
		return strings.Join(list, "\n")
	}
	// A job runs anew with each deployment, as in Swarm: it is left out for the second.
	withoutJob := write("compose2.yml", "version: \"3.13\"\n"+regexp.MustCompile(`(?s)  sum:.*?\nnetworks:`).ReplaceAllString(composeFile, "networks:"))
	before := state()
	c.docker(`Updating service app_web`, "stack", "deploy", "-c", withoutJob, "--resolve-image", "never", "--detach", "app")
	if after := state(); after != before {
		t.Errorf("a deployment that changes nothing has made of\n%s\nthis:\n%s", before, after)
	}
	c.docker(`Removing service app_sum`, "stack", "deploy", "-c", withoutJob, "--resolve-image", "never", "--prune", "--detach", "app")
	c.docker(`(?m)^app +3$`, "stack", "ls")
	// Other services keep the networks of the stack from being removed, and say so.
	c.docker(`.`, "service", "create", "-d", "--name", "guest", "--network", "app_front", "--no-resolve-image", "timecheck:1.0")
	c.refused(`is in use by service`, "stack", "rm", "app")
	c.docker(`guest`, "service", "rm", "guest")
	c.docker(`Removing network app_front`, "stack", "rm", "app")
	view := b.view()
	stopping := 0
	for task := range view.Tasks() {
		if len(task.Addresses) > 0 && !task.Status.State.Terminal() {
			stopping++
		}
	}
	if stopping == 0 {
		t.Error("no task was stopping on a network that was removed")
	}
	for s := range view.Services() {
		t.Errorf("service %s is left", s.Spec.Name)
	}
	for n := range view.Networks() {
		if n.Spec.Name != "shared" && n.Spec.Name != "ingress" {
			t.Errorf("network %s is left", n.Spec.Name)
		}
	}
	if n := len(slices.Collect(view.Secrets())) + len(slices.Collect(view.Configs())); n > 0 {
		t.Errorf("%d secrets and configs are left", n)
	}
	// What is left of the tasks is in nobody's way.
	c.docker(`Creating service app_web`, "stack", "deploy", "-c", file, "--resolve-image", "never", "--detach", "app")
	c.docker(`Removing network app_front`, "stack", "rm", "app")
}

// give gives a task addresses, as the scheduler does.
func give(tx *store.Tx, task *cluster.Task) {
	s, r := tx.Service(task.ServiceID), tx.Revision(task.ServiceID, task.Revision)
	if s == nil || r == nil || len(task.Addresses) > 0 || task.Status.State.Terminal() {
		return
	}
	var networks []*cluster.Network
	if n := tx.IngressNetwork(); n != nil && publishesOnAllNodes(s.Spec.EndpointSpec) {
		networks = append(networks, n)
	}
	for _, a := range r.Spec.Networks {
		if n := tx.Network(a.Target); n != nil && n.Spans() {
			networks = append(networks, n)
		}
	}
	for _, n := range networks {
		if host, ok := address.Free(tx.View, n, task.ID); ok {
			task.Addresses = append(task.Addresses, cluster.Address{VNI: n.VNI, Host: host})
		}
	}
}
