package linux_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	dockernetwork "github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"skep/agent"
	"skep/agent/docker"
	"skep/agent/network"
	"skep/cluster"
)

// driver is the driver of a node on a host, whose bridges that host has.
func (r *rack) driver(host string, engine *client.Client) *docker.Driver {
	r.Helper()
	d, err := docker.New(docker.Config{Host: engine.DaemonHost(), RuntimeDir: r.TempDir(), Bridge: func(name string) (int, bool) {
		return 1450, exec.Command("ip", "netns", "exec", host, "ip", "link", "show", name).Run() == nil
	}})
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { d.Close() })
	return d
}

// engine starts a real engine on a host, which drops what is forwarded unless a rule accepts it, and has an image
// "answer:1" on it.
func (r *rack) engine(host string) *client.Client {
	r.Helper()
	if _, err := exec.LookPath("dockerd"); err != nil {
		if os.Getenv("SKEP_REQUIRE_DOCKER") == "1" {
			r.Fatal("needs dockerd")
		}
		r.Skip("NOTICE: there is no dockerd, so this was not tested")
	}
	dir, err := os.MkdirTemp("", "skep-engine") // The name of a socket has at most 107 bytes.
	if err != nil {
		r.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	if err := os.WriteFile(path("daemon.json"), []byte("{}"), 0o600); err != nil {
		r.Fatal(err)
	}
	log, err := os.Create(path("log"))
	if err != nil {
		r.Fatal(err)
	}
	// `ip netns exec` would hide the control groups.
	daemon := exec.Command("nsenter", "--net=/run/netns/"+host, "dockerd", "--config-file", path("daemon.json"), "--data-root", path("data"), "--exec-root", path("run"),
		"--pidfile", path("pid"), "-H", "unix://"+path("sock"), "--ip6tables=false")
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		_ = daemon.Process.Signal(os.Interrupt)
		stuck := time.AfterFunc(time.Minute, func() { _ = daemon.Process.Kill() })
		_ = daemon.Wait()
		stuck.Stop()
		_ = log.Close()
		if r.Failed() {
			if text, err := os.ReadFile(path("log")); err == nil {
				r.Logf("the engine said:\n%s", text[max(0, len(text)-3000):])
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			r.Error(err)
		}
	})
	c, err := client.NewClientWithOpts(client.WithHost("unix://"+path("sock")), client.WithAPIVersionNegotiation())
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { _ = c.Close() })
	deadline := time.Now().Add(time.Minute)
	for _, err := c.Ping(r.Context()); err != nil; _, err = c.Ping(r.Context()) {
		if time.Now().After(deadline) {
			r.Fatalf("the engine doesn't answer: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	r.in(host, "iptables", "-P", "FORWARD", "DROP")

	build := exec.Command("go", "build", "-o", path("answer"), "./testdata/answer")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		r.Fatalf("%v: %s", err, out)
	}
	program, err := os.ReadFile(path("answer"))
	if err != nil {
		r.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	_ = w.WriteHeader(&tar.Header{Name: "answer", Mode: 0o755, Size: int64(len(program))})
	_, _ = w.Write(program)
	_ = w.Close()
	progress, err := c.ImageImport(r.Context(), image.ImportSource{Source: &layer, SourceName: "-"}, "answer:1", image.ImportOptions{Changes: []string{`ENTRYPOINT ["/answer"]`}})
	if err != nil {
		r.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, progress)
	_ = progress.Close()
	return c
}

// execIn runs the image's program in a container, and returns what it prints.
func execIn(t *testing.T, c *client.Client, id string, args ...string) string {
	t.Helper()
	made, err := c.ContainerExecCreate(t.Context(), id, container.ExecOptions{Cmd: append([]string{"/answer"}, args...), AttachStdout: true, Tty: true})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := c.ContainerExecAttach(t.Context(), made.ID, container.ExecAttachOptions{Tty: true})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	out, _ := io.ReadAll(stream.Reader)
	return strings.TrimSpace(string(out))
}

// TestEngine_ContainersOnNetworks has a real engine run a container that reaches another host's by a virtual IP, is
// reached by its own, and by a port that is published while it runs, with the client's address.
func TestEngine_ContainersOnNetworks(t *testing.T) {
	if testing.Short() {
		t.Skip("needs an engine")
	}
	r := newRack(t, "h1", "h2")
	c := r.engine("h1")
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	ingress := network.Network{
		ID: "ingress", VNI: 4097, MTU: 1450, Ingress: true, Subnets: []network.Subnet{{Prefix: prefix("10.255.0.0/24"), Gateway: addr("10.255.0.1")}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.255.0.5")}, Node: 1}},
	}
	web := network.Network{
		ID: "web", VNI: 4098, MTU: 1450, Subnets: []network.Subnet{{Prefix: prefix("10.0.1.0/24"), Gateway: addr("10.0.1.1")}},
		Endpoints: []network.Endpoint{{Addrs: []netip.Addr{addr("10.0.1.5")}, Node: 1}, {Addrs: []netip.Addr{addr("10.0.1.6")}, Node: 2}},
		Services:  []network.Service{{VIP: addr("10.0.1.2"), Backends: []netip.Addr{addr("10.0.1.5")}}, {VIP: addr("10.0.1.3"), Backends: []netip.Addr{addr("10.0.1.6")}}},
	}
	r.each(func(w *network.Wanted) {
		w.Networks = []network.Network{ingress, web}
		w.Ports = []network.Port{{Protocol: "tcp", Published: 8080, Target: 80, Backends: []netip.Addr{addr("10.255.0.5")}}}
	})
	r.settle()
	r.container("b", "h2", "10.0.1.6")
	r.namespace("out", wire+"100/24")

	d := r.driver("h1", c)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	of := func(n network.Network, name string) *cluster.Network {
		o := &cluster.Network{ID: n.ID, VNI: n.VNI, Subnets: []cluster.Subnet{{Prefix: n.Subnets[0].Prefix, Gateway: n.Subnets[0].Gateway}}}
		o.Spec.Name, o.Spec.Ingress = name, n.Ingress
		return o
	}
	// A name that comes before the ingress network's would have the way out on old engines.
	webNetwork, ingressNetwork := of(web, "0-a"), of(ingress, "ingress")
	keep := []*cluster.Network{webNetwork, ingressNetwork}
	if _, err := d.KeepNetworks(ctx, "node1", keep); err != nil {
		t.Fatal(err)
	}
	a := agent.Assignment{
		Task: &cluster.Task{ID: "t1", NodeID: "node1", ServiceID: "s1", Slot: 1},
		Revision: &cluster.Revision{
			ServiceName: "web",
			Spec:        swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "answer:1", Args: []string{"a"}}, Networks: []swarm.NetworkAttachmentConfig{{Target: "web"}}},
			Endpoint: &swarm.EndpointSpec{Ports: []swarm.PortConfig{
				{Protocol: "tcp", TargetPort: 80, PublishedPort: 9000, PublishMode: "host"}, {Protocol: "tcp", TargetPort: 80, PublishedPort: 8080, PublishMode: "ingress"},
			}},
		},
		Networks: []agent.Attachment{{Network: webNetwork, Host: 5}},
	}
	made, err := d.Prepare(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Start(ctx, "t1"); err != nil {
		t.Fatal(err)
	}
	r.settle() // The container's port is there now.
	asks := func(to, want string) {
		t.Helper()
		if got := execIn(t, c, made.ID, "ask", to); got != want {
			t.Errorf("the container asks %s: %q, want %q", to, got, want)
		}
	}
	asks("10.0.1.6:80", "b 10.0.1.5")
	asks("10.0.1.3:80", "b 10.0.1.5")
	asks("10.0.1.2:80", "a 10.0.1.1") // itself
	r.want("b", "tcp", "10.0.1.2:80", 1, "a 10.0.1.6")
	r.want("out", "tcp", wire+"1:9000", 1, "a "+wire+"100")
	r.want("out", "tcp", wire+"1:8080", 1, "no answer")

	a.Networks = append(a.Networks, agent.Attachment{Network: ingressNetwork, Host: 5})
	for range 2 { // The second time there is nothing to do.
		if err := d.Connect(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	r.settle()
	for _, host := range []string{"1", "2"} {
		r.want("out", "tcp", wire+host+":8080", 1, "a "+wire+"100")
	}
	r.want("out", "tcp", wire+"1:9000", 1, "a "+wire+"100")
	asks("10.0.1.3:80", "b 10.0.1.5")

	// Nobody else gets an address by chance.
	thief, err := c.ContainerCreate(ctx, &container.Config{Image: "answer:1", Cmd: []string{"x"}}, &container.HostConfig{NetworkMode: "1-0-a"}, &dockernetwork.NetworkingConfig{}, nil, "thief")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ContainerStart(ctx, thief.ID, container.StartOptions{}); err == nil || !strings.Contains(err.Error(), "no available") {
		t.Errorf("a container without an address of its own started: %v", err)
	}
	if err := c.ContainerRemove(ctx, thief.ID, container.RemoveOptions{Force: true}); err != nil {
		t.Error(err)
	}

	// Another task on both networks from its creation.
	b := a
	b.Task, b.Revision = &cluster.Task{ID: "t2", NodeID: "node1", ServiceID: "s1", Slot: 2}, &cluster.Revision{ServiceName: "web", Spec: a.Revision.Spec}
	b.Networks = []agent.Attachment{{Network: webNetwork, Host: 7}, {Network: ingressNetwork, Host: 7}}
	if _, err := d.Prepare(ctx, b); err != nil {
		t.Fatal(err)
	}
	second, err := d.Start(ctx, "t2")
	if err != nil {
		t.Fatal(err)
	}
	found, err := c.ContainerInspect(ctx, second.ID)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"1-0-a": "10.0.1.7 02:42:0a:00:01:07", "0-ingress": "10.255.0.7 02:42:0a:ff:00:07"} {
		if at := found.NetworkSettings.Networks[name]; at == nil || at.IPAddress+" "+at.MacAddress != want {
			t.Errorf("on %s: %+v, want %s", name, at, want)
		}
	}

	// What is in use stays, and what isn't goes, but for its bridge.
	left := func() (n int) {
		list, err := c.NetworkList(ctx, dockernetwork.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, network := range list {
			if network.Labels[docker.LabelNetwork] != "" {
				n++
			}
		}
		return n
	}
	if _, err := d.KeepNetworks(ctx, "node1", nil); err != nil || left() != 2 {
		t.Errorf("with containers there are %d networks, %v", left(), err)
	}
	for _, id := range []string{"t1", "t2"} {
		if err := d.Remove(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.KeepNetworks(ctx, "node1", nil); err != nil || left() != 0 {
		t.Errorf("without containers there are %d networks, %v", left(), err)
	}
	r.in("h1", "ip", "link", "show", "skb1002")
}
