package docker

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"

	"skep/agent"
	"skep/cluster"
)

// assignment returns one whose spec change has changed.
func assignment(change func(*cluster.Revision)) agent.Assignment {
	r := &cluster.Revision{
		ServiceID: "s1", Number: 1, ServiceName: "web", ServiceLabels: map[string]string{"tier": "front"},
		Spec: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "web:1"}},
	}
	if change != nil {
		change(r)
	}
	return agent.Assignment{Task: &cluster.Task{ID: "t1", ServiceID: "s1", NodeID: "n1", Slot: 3}, Revision: r, Hostname: "host1"}
}

// driver returns one that never reaches an engine.
func driver(t *testing.T) *Driver {
	t.Helper()
	d, err := New(Config{Host: "unix:///nonexistent/engine.sock"})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSettings_RefuseWhatTheyCannotTranslate(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*cluster.Revision)
		kind   error
	}{
		"plugin":       {func(r *cluster.Revision) { r.Spec.Runtime = swarm.RuntimePlugin }, cluster.ErrUnsupported},
		"no image":     {func(r *cluster.Revision) { r.Spec.ContainerSpec.Image = "" }, cluster.ErrInvalid},
		"no container": {func(r *cluster.Revision) { r.Spec.ContainerSpec = nil }, cluster.ErrInvalid},
		"credential spec": {func(r *cluster.Revision) {
			r.Spec.ContainerSpec.Privileges = &swarm.Privileges{CredentialSpec: &swarm.CredentialSpec{}}
		}, cluster.ErrUnsupported},
		"network without an address": {func(r *cluster.Revision) { r.Spec.Networks = []swarm.NetworkAttachmentConfig{{Target: "mynet"}} }, cluster.ErrInvalid},
		"the node's network beside another": {func(r *cluster.Revision) {
			r.Spec.Networks = []swarm.NetworkAttachmentConfig{{Target: "host"}, {Target: "mynet"}}
		}, cluster.ErrUnsupported},
		"ingress port of the node's network": {func(r *cluster.Revision) {
			r.Spec.Networks = []swarm.NetworkAttachmentConfig{{Target: "host"}}
			r.Endpoint = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80}}}
		}, cluster.ErrUnsupported},
		"cluster volume": {func(r *cluster.Revision) {
			r.Spec.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeCluster, Source: "v", Target: "/x"}}
		}, cluster.ErrUnsupported},
		"relative bind source": {func(r *cluster.Revision) {
			r.Spec.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: "etc", Target: "/x"}}
		}, cluster.ErrInvalid},
		"volume that is a path": {func(r *cluster.Revision) {
			r.Spec.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "/etc", Target: "/x"}}
		}, cluster.ErrInvalid},
		"volume that becomes a path": {func(r *cluster.Revision) {
			r.ServiceName = "/etc"
			r.Spec.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "{{.Service.Name}}", Target: "/x"}}
		}, cluster.ErrInvalid},
		"tmpfs with a source": {func(r *cluster.Revision) {
			r.Spec.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeTmpfs, Source: "x", Target: "/x"}}
		}, cluster.ErrInvalid},
		"a volume without a target": {func(r *cluster.Revision) {
			r.Spec.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeVolume, Target: "data"}}
		}, cluster.ErrInvalid},
		"a target that climbs": {func(r *cluster.Revision) {
			r.Spec.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "v", Target: "/x/../etc"}}
		}, cluster.ErrInvalid},
		"a target that comes to climb": {func(r *cluster.Revision) {
			r.ServiceLabels = map[string]string{"at": "/x/../etc"}
			r.Spec.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "v", Target: `{{index .Service.Labels "at"}}`}}
		}, cluster.ErrInvalid},
		"host without address": {func(r *cluster.Revision) { r.Spec.ContainerSpec.Hosts = []string{"db"} }, cluster.ErrInvalid},
		"template of nothing":  {func(r *cluster.Revision) { r.Spec.ContainerSpec.Hostname = "{{.Nothing}}" }, cluster.ErrInvalid},
		"template with no end": {func(r *cluster.Revision) { r.Spec.ContainerSpec.Env = []string{"A={{.Task.ID"} }, cluster.ErrInvalid},
		"template that calls":  {func(r *cluster.Revision) { r.Spec.ContainerSpec.Env = []string{`A={{.Task.expand "x" "y"}}`} }, cluster.ErrInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := driver(t).settings(assignment(test.change)); !errors.Is(err, test.kind) {
				t.Errorf("err = %v, want %v", err, test.kind)
			}
		})
	}
}

// A port of a node is bound on the address that the service's label says, and on no other.
func TestSettings_HostIP(t *testing.T) {
	s, err := driver(t).settings(assignment(func(r *cluster.Revision) {
		r.ServiceLabels = map[string]string{cluster.LabelHostIP.Name: "127.0.0.1,53/udp=fd00::1"}
		r.Endpoint = &swarm.EndpointSpec{Ports: []swarm.PortConfig{
			{TargetPort: 80, PublishedPort: 8080, Protocol: "tcp", PublishMode: "host"}, {TargetPort: 53, PublishedPort: 53, Protocol: "udp", PublishMode: "host"},
		}}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(s.host.PortBindings); got != "map[53/udp:[{fd00::1 53}] 80/tcp:[{127.0.0.1 8080}]]" {
		t.Error(got)
	}
}

func TestSettings_Networks(t *testing.T) {
	for _, n := range cluster.PredefinedNetworks() {
		for _, target := range []string{n.ID, n.Name} {
			s, err := driver(t).settings(assignment(func(r *cluster.Revision) {
				r.Spec.Networks = []swarm.NetworkAttachmentConfig{{Target: target}}
				r.Endpoint = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80, PublishedPort: 80, Protocol: "tcp", PublishMode: "host"}}}
			}))
			if err != nil {
				t.Fatal(err)
			}
			if string(s.host.NetworkMode) != n.Name || len(s.host.PortBindings) > 0 != (n.Name != "host") {
				t.Errorf("%s: mode %q, ports %v", target, s.host.NetworkMode, s.host.PortBindings)
			}
		}
	}
	if s, err := driver(t).settings(assignment(func(*cluster.Revision) {})); err != nil || s.host.NetworkMode != "" {
		t.Errorf("without a network: %q, %v", s.host.NetworkMode, err)
	}
}

func TestSettings_TellWhyATemplateDoesNotWork(t *testing.T) {
	for text, why := range map[string]string{
		"A={{.Task.ID":                 "expand template of environment variable A: line 1: unclosed action",
		"A=x{{.Nothing}}":              "expand template of environment variable A: line 1: <.Nothing>: can't evaluate field Nothing",
		`A={{index .Service.Name 99}}`: "expand template of environment variable A: line 1: <index .Service.Name 99>: error calling index: ",
	} {
		_, err := driver(t).settings(assignment(func(r *cluster.Revision) { r.Spec.ContainerSpec.Env = []string{text} }))
		if err == nil || !strings.HasPrefix(err.Error(), why) {
			t.Errorf("%s: %v; want %q", text, err, why)
		}
	}
}

func TestSettings_NeverTellAValue(t *testing.T) {
	_, err := driver(t).settings(assignment(func(r *cluster.Revision) {
		r.Spec.ContainerSpec.Env = []string{"PASSWORD=canary{{.Nothing}}"}
	}))
	if err == nil || strings.Contains(err.Error(), "canary") || !strings.Contains(err.Error(), "PASSWORD") {
		t.Errorf("err = %v", err)
	}
}

func TestSettings_CommandAndArguments(t *testing.T) {
	s, err := driver(t).settings(assignment(func(r *cluster.Revision) {
		r.Spec.ContainerSpec.Command, r.Spec.ContainerSpec.Args = []string{"sh", "-c"}, []string{"true"}
		r.Spec.ContainerSpec.Image = "web"
		r.Spec.ContainerSpec.Labels = map[string]string{"mine": "1", LabelTaskID: "forged"}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"sh", "-c"}, []string(s.config.Entrypoint)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"true"}, []string(s.config.Cmd)); diff != "" {
		t.Error(diff)
	}
	if s.config.Image != "web:latest" {
		t.Errorf("image = %s", s.config.Image)
	}
	want := map[string]string{
		"mine": "1", LabelTask: "", LabelTaskID: "t1", LabelTaskName: "web.3.t1", LabelNodeID: "n1",
		LabelServiceID: "s1", LabelServiceName: "web", LabelNode: "n1",
	}
	if diff := cmp.Diff(want, s.config.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

func TestSettings_GenericResources(t *testing.T) {
	a := assignment(func(r *cluster.Revision) { r.Spec.ContainerSpec.Env = []string{"A=B"} })
	a.Task.Generic = []cluster.Claim{{Kind: "gpu", Names: []string{"uuid1", "uuid2"}}, {Kind: "ssd", Count: 2}}
	s, err := driver(t).settings(a)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"A=B", "DOCKER_RESOURCE_GPU=uuid1,uuid2", "DOCKER_RESOURCE_SSD=2"}, s.config.Env); diff != "" {
		t.Error(diff)
	}
}

func TestSettings_HostOptions(t *testing.T) {
	s, err := driver(t).settings(assignment(func(r *cluster.Revision) {
		r.ServiceLabels = map[string]string{"skep.host.privileged": "true", "skep.host.memory-swap": "64m"}
		r.Spec.Resources = &swarm.ResourceRequirements{Limits: &swarm.Limit{MemoryBytes: 32 << 20}}
	}))
	if err != nil || !s.host.Privileged || s.host.MemorySwap != 64<<20 {
		t.Errorf("%+v %v", s, err)
	}
	_, err = driver(t).settings(assignment(func(r *cluster.Revision) { r.ServiceLabels = map[string]string{"skep.host.ipc": "container:x"} }))
	if !errors.Is(err, cluster.ErrInvalid) {
		t.Errorf("err = %v", err)
	}
}

func TestDiscarded_TellsWhatTheEngineLeftOut(t *testing.T) {
	const (
		swappiness = "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."
		noSwap     = "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
		other      = "IPv4 forwarding is disabled. Networking will not work."
	)
	for _, test := range []struct {
		warnings []string
		swap     int64
		want     string
	}{
		{nil, 0, ""},
		{[]string{other, noSwap}, 0, ""}, // nobody asked for a limit of swap
		{[]string{other, noSwap}, 1 << 30, noSwap},
		{[]string{other, swappiness}, 0, swappiness},
	} {
		if got := discarded(test.warnings, &container.HostConfig{Resources: container.Resources{MemorySwap: test.swap}}); got != test.want {
			t.Errorf("%v: %q", test.warnings, got)
		}
	}
}

func TestSettings_Privileges(t *testing.T) {
	got := security(&swarm.Privileges{
		SELinuxContext:  &swarm.SELinuxContext{Disable: true, User: "u", Role: "r", Type: "t", Level: "l"},
		Seccomp:         &swarm.SeccompOpts{Mode: swarm.SeccompModeCustom, Profile: []byte("{}")},
		AppArmor:        &swarm.AppArmorOpts{Mode: swarm.AppArmorModeDisabled},
		NoNewPrivileges: true,
	})
	want := []string{"label=disable", "label=user:u", "label=role:r", "label=type:t", "label=level:l", "seccomp={}", "apparmor=unconfined", "no-new-privileges=true"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestExpand_FillsInTemplates(t *testing.T) {
	c, err := expand(assignment(func(r *cluster.Revision) {
		r.Spec.ContainerSpec.Hostname = "{{.Node.Hostname}}-{{.Service.Name}}"
		r.Spec.ContainerSpec.Env = []string{"PLAIN={x}", `J={{join "-" .Task.Name .Node.ID}}`, "BARE"}
		r.Spec.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "data{{.Task.Slot}}", Target: "/x", VolumeOptions: &mount.VolumeOptions{
			Labels: map[string]string{"l": "{{.Service.Labels.tier}}"}, DriverConfig: &mount.Driver{Options: map[string]string{"o": "{{.Task.ID}}"}},
		}}}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if c.Hostname != "host1-web" {
		t.Errorf("hostname = %q", c.Hostname)
	}
	if diff := cmp.Diff([]string{"PLAIN={x}", "J=web.3.t1-n1", "BARE"}, c.Env); diff != "" {
		t.Error(diff)
	}
	m := c.Mounts[0]
	if m.Source != "data3" || m.VolumeOptions.Labels["l"] != "front" || m.VolumeOptions.DriverConfig.Options["o"] != "t1" {
		t.Errorf("mount = %+v", m)
	}
}

func TestExpand_LeavesTheRevisionAsItIs(t *testing.T) {
	a := assignment(func(r *cluster.Revision) { r.Spec.ContainerSpec.Env = []string{"A={{.Task.ID}}"} })
	if _, err := expand(a); err != nil {
		t.Fatal(err)
	}
	if got := a.Revision.Spec.ContainerSpec.Env[0]; got != "A={{.Task.ID}}" {
		t.Errorf("the shared revision was changed to %q", got)
	}
}

func TestContainerName_OfAGlobalService(t *testing.T) {
	a := assignment(nil)
	a.Task.Slot = 0
	if got := a.ContainerName(); got != "web.n1.t1" {
		t.Errorf("name = %q", got)
	}
}
