package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

func TestCreateService(t *testing.T) {
	b := newBench(t)
	id := b.create(spec("web"), "X-Registry-Auth", "canary-credentials")
	service := b.inspect("web")
	if service.ID != id || len(id) != 25 || strings.Trim(id, "0123456789abcdefghijklmnopqrstuvwxyz") != "" || service.Spec.TaskTemplate.Runtime != swarm.RuntimeContainer || service.Version.Index == 0 {
		t.Fatalf("%+v", service)
	}
	if got := b.view().Revision(id, 1); got == nil || got.Auth != "canary-credentials" {
		t.Fatalf("revision %+v", got)
	}
	for _, path := range []string{"/services", "/services/" + id, "/tasks", "/info", "/swarm"} {
		body := b.do("GET", path, nil).want(t, 200, "").body
		if strings.Contains(body, "canary") {
			t.Errorf("%s shows a secret: %s", path, body)
		}
	}
	// By name, by the beginning of the ID, not by the beginning of the name.
	b.inspect(id[:5])
	b.do("GET", "/services/we", nil).want(t, 404, "service we not found")
	b.do("POST", "/services/create", spec("WEB")).want(t, 409, "name conflicts with an existing object: service WEB already exists")
}

func TestCreateServiceFillsIn(t *testing.T) {
	b := newBench(t)
	id := b.create(swarm.ServiceSpec{TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "a"}}})
	s := b.inspect(id).Spec
	if s.Name == "" || s.Labels == nil || s.Mode.Replicated == nil || *s.Mode.Replicated.Replicas != 1 {
		t.Fatalf("%+v", s)
	}
	if s.UpdateConfig != nil || s.TaskTemplate.RestartPolicy != nil || s.TaskTemplate.ContainerSpec.StopGracePeriod != nil {
		t.Fatalf("defaults were stored: %+v", s)
	}
	var shown swarm.Service
	b.do("GET", "/services/"+id+"?insertDefaults=true", nil).into(t, &shown)
	full := shown.Spec
	if *full.TaskTemplate.ContainerSpec.StopGracePeriod != 10*time.Second || *full.TaskTemplate.RestartPolicy.Delay != 5*time.Second ||
		full.UpdateConfig.Monitor != 5*time.Second || full.RollbackConfig.Order != "stop-first" || full.TaskTemplate.Placement == nil {
		t.Fatalf("%+v", full)
	}
	b.do("GET", "/services/"+id+"?insertDefaults=maybe", nil).want(t, 400, "invalid value for insertDefaults")
}

func discrete(kind string, count int64) []swarm.GenericResource {
	return []swarm.GenericResource{{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: kind, Value: count}}}
}

// TestRefuseService holds what is refused, with which status and words; nothing
// is made by any of it.
func TestRefuseService(t *testing.T) {
	b := newBench(t)
	big := uint64(1) << 63
	for _, c := range []struct {
		status int
		text   string
		change func(*swarm.ServiceSpec)
	}{
		{400, "name must be valid as a DNS name component", func(s *swarm.ServiceSpec) { s.Name = "a b" }},
		{400, "name must be 63 characters or fewer", func(s *swarm.ServiceSpec) { s.Name = strings.Repeat("a", 64) }},
		{400, "image reference must be provided", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "" }},
		{400, "not a valid repository/tag", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "A B" }},
		{400, "missing runtime", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec = nil }},
		{400, "Must be at least 0.001", func(s *swarm.ServiceSpec) { s.TaskTemplate.Resources.Limits.NanoCPUs = 1000 }},
		{400, "Must be at least 4MiB", func(s *swarm.ServiceSpec) { s.TaskTemplate.Resources.Reservations.MemoryBytes = 1 }},
		{400, "restart-delay cannot be negative", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Delay: ptr(-time.Second)}
		}},
		{400, "invalid RestartPolicyCondition", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.RestartPolicy = &swarm.RestartPolicy{Condition: "always"}
		}},
		{400, "update-delay cannot be negative", func(s *swarm.ServiceSpec) { s.UpdateConfig = &swarm.UpdateConfig{Delay: -1} }},
		{400, "update-maxfailureratio", func(s *swarm.ServiceSpec) { s.UpdateConfig = &swarm.UpdateConfig{MaxFailureRatio: 2} }},
		{400, "unrecognized update order", func(s *swarm.ServiceSpec) { s.UpdateConfig = &swarm.UpdateConfig{Order: "sideways"} }},
		{400, "unrecognized rollback failure action", func(s *swarm.ServiceSpec) { s.RollbackConfig = &swarm.UpdateConfig{FailureAction: "rollback"} }},
		{400, "constraint expected one operator", func(s *swarm.ServiceSpec) { s.TaskTemplate.Placement.Constraints = []string{"a=b"} }},
		{400, "duplicate mount point: /a", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: "volume", Target: "/a"}, {Type: "tmpfs", Target: "/a"}}
		}},
		{400, "invalid bind mount source, must be an absolute path: a", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: "bind", Source: "a", Target: "/a"}}
		}},
		{400, "invalid mount target, must be an absolute path: a", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: "tmpfs", Target: "a"}}
		}},
		{400, "invalid mount target, must be an absolute path: ", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: "volume", Source: "a"}}
		}},
		{400, "Interval in HealthConfig cannot be less than 1ms", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Healthcheck = &container.HealthConfig{Interval: 1}
		}},
		{400, "must specify only one service mode", func(s *swarm.ServiceSpec) { s.Mode.Global = &swarm.GlobalService{} }},
		{400, "replicas must be non-negative", func(s *swarm.ServiceSpec) { s.Mode.Replicated.Replicas = &big }},
		{400, "replicas must not be over", func(s *swarm.ServiceSpec) { s.Mode.Replicated.Replicas = ptr(uint64(1_000_001)) }},
		{400, "can't be used with dnsrr mode", func(s *swarm.ServiceSpec) {
			s.EndpointSpec = &swarm.EndpointSpec{Mode: "dnsrr", Ports: []swarm.PortConfig{{TargetPort: 80, PublishMode: "ingress"}}}
		}},
		{400, "working directory", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Dir = "d" }},
		{400, "OomScoreAdj", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.OomScoreAdj = 1001 }},
		{400, "invalid host entry", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Hosts = []string{"db 10.0.0.1"} }},
		{400, "invalid host entry", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Hosts = []string{"10.0.0.1"} }},
		{400, "invalid name server", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.DNSConfig = &swarm.DNSConfig{Nameservers: []string{"dns.example"}}
		}},
		{400, "ulimit must have a name", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Ulimits = []*container.Ulimit{nil} }},
		{400, "ulimit nofile: the soft limit must not be over", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: -1, Hard: 2}}
		}},
		{400, "SELinuxContext is disabled", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Privileges = &swarm.Privileges{SELinuxContext: &swarm.SELinuxContext{Disable: true, Level: "l"}}
		}},
		{400, "needs the mode custom", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Privileges = &swarm.Privileges{Seccomp: &swarm.SeccompOpts{Profile: []byte("{}")}}
		}},
		{400, "custom seccomp profile is empty", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Privileges = &swarm.Privileges{Seccomp: &swarm.SeccompOpts{Mode: "custom"}}
		}},
		{400, "invalid seccomp mode", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Privileges = &swarm.Privileges{Seccomp: &swarm.SeccompOpts{Mode: "loose"}}
		}},
		{400, "invalid AppArmor mode", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Privileges = &swarm.Privileges{AppArmor: &swarm.AppArmorOpts{Mode: "loose"}}
		}},
		{400, "VolumeOptions can't be used with a mount of type bind", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: "bind", Source: "/a", Target: "/a", VolumeOptions: &mount.VolumeOptions{}}}
		}},
		{400, "BindOptions can't be used with a mount of type tmpfs", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: "tmpfs", Target: "/a", BindOptions: &mount.BindOptions{}}}
		}},
		{400, "must be an image", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: "image", Target: "/a"}}
		}},
		{400, "invalid consistency", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: "volume", Target: "/a", Consistency: "some"}}
		}},
		{400, "invalid propagation mode", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: "bind", Source: "/a", Target: "/a", BindOptions: &mount.BindOptions{Propagation: "some"}}}
		}},
		{400, "need ReadOnly", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: "bind", Source: "/a", Target: "/a", BindOptions: &mount.BindOptions{ReadOnlyForceRecursive: true}}}
		}},
		{400, "the size of a tmpfs", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: "tmpfs", Target: "/a", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: -1}}}
		}},
		{400, "must begin with NONE, CMD or CMD-SHELL", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Healthcheck = &container.HealthConfig{Test: []string{"curl", "x"}}
		}},
		{400, "has no command", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Healthcheck = &container.HealthConfig{Test: []string{"CMD"}}
		}},
		{400, "label skep.start-deadline: \\\"soon\\\" won't do, it takes a duration such as 90s", func(s *swarm.ServiceSpec) {
			s.Labels = map[string]string{"skep.start-deadline": "soon"}
		}},
		{400, "label skep.start-deadline", func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"skep.start-deadline": "0s"} }},
		{400, "label skep.strat-deadline: skep knows no such label", func(s *swarm.ServiceSpec) {
			s.Labels = map[string]string{"skep.strat-deadline": "1m"}
		}},
		{400, "label skep.host.prvileged: there is no such host option", func(s *swarm.ServiceSpec) {
			s.Labels = map[string]string{"skep.host.prvileged": "true"}
		}},
		{400, "label skep.host.memory-swap: memory and swap together", func(s *swarm.ServiceSpec) {
			s.Labels = map[string]string{"skep.host.memory-swap": "64m"}
		}},
		{403, "allow them with `skep cluster update --allow-host-options`", func(s *swarm.ServiceSpec) {
			s.Labels = map[string]string{"skep.host.privileged": "true"}
		}},
		{400, "a name must be given", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Env = []string{"=secret"} }},

		{400, "replicas-max-per-node can only be used with replicated", func(s *swarm.ServiceSpec) {
			s.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}}
			s.TaskTemplate.Placement.MaxReplicas = 1
		}},
		{400, "replicas-max-per-node can only be used with replicated", func(s *swarm.ServiceSpec) {
			s.Mode = swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}}
			s.TaskTemplate.Placement.MaxReplicas = 1
		}},
		{400, "Jobs may not have an update config", func(s *swarm.ServiceSpec) {
			s.Mode, s.UpdateConfig = swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}}, &swarm.UpdateConfig{}
		}},
		{400, "Jobs may not have a rollback config", func(s *swarm.ServiceSpec) {
			s.Mode, s.RollbackConfig = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{}}, &swarm.UpdateConfig{}
		}},
		{400, "Maximum concurrent jobs must not be negative", func(s *swarm.ServiceSpec) {
			s.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &big, TotalCompletions: ptr(uint64(1))}}
		}},
		{400, "Total completed jobs must not be negative", func(s *swarm.ServiceSpec) {
			s.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{TotalCompletions: &big}}
		}},
		{400, "Total completed jobs must not be over", func(s *swarm.ServiceSpec) {
			s.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: ptr(uint64(1_000_001))}}
		}},
		{400, "Maximum concurrent jobs must be at least 1", func(s *swarm.ServiceSpec) {
			s.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: ptr(uint64(0)), TotalCompletions: ptr(uint64(1))}}
		}},
		{400, "service needs ingress network, but no ingress network is present", func(s *swarm.ServiceSpec) { s.EndpointSpec.Ports = []swarm.PortConfig{{TargetPort: 80}} }},
		{400, "EndpointSpec.Ports[0].PublishMode: invalid publish mode", func(s *swarm.ServiceSpec) {
			s.EndpointSpec.Ports = []swarm.PortConfig{{TargetPort: 80, PublishMode: "mesh"}}
		}},
		{400, "EndpointSpec.Ports[0].TargetPort: invalid port 0", func(s *swarm.ServiceSpec) {
			s.EndpointSpec.Ports = []swarm.PortConfig{{PublishMode: "host", PublishedPort: 80}}
		}},
		{400, "EndpointSpec.Ports[0].PublishedPort: invalid port 65536", func(s *swarm.ServiceSpec) {
			s.EndpointSpec.Ports = []swarm.PortConfig{{PublishMode: "host", TargetPort: 80, PublishedPort: 65536}}
		}},
		{400, "EndpointSpec.Ports[0].Protocol: invalid protocol", func(s *swarm.ServiceSpec) {
			s.EndpointSpec.Ports = []swarm.PortConfig{{PublishMode: "host", TargetPort: 80, Protocol: "icmp"}}
		}},
		{400, "duplicate published ports provided", func(s *swarm.ServiceSpec) {
			s.EndpointSpec.Ports = []swarm.PortConfig{{PublishMode: "host", TargetPort: 80, PublishedPort: 80}, {PublishMode: "host", TargetPort: 81, PublishedPort: 80}}
		}},
		{404, "network n not found", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "n"}}
		}},
		//lint:ignore SA1019 deprecated, but old clients send it
		{404, "network n not found", func(s *swarm.ServiceSpec) { s.Networks = []swarm.NetworkAttachmentConfig{{Target: "n"}} }},
		{400, "container cannot be connected to multiple networks with one of the networks in host mode", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "host"}, {Target: "bridge"}}
		}},
		{400, "network-scoped alias is supported only for containers in user defined networks", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "host", Aliases: []string{"a"}}}
		}},
		{400, "network none has no driver options", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "none", DriverOpts: map[string]string{"a": "b"}}}
		}},
		{400, "port 80 can't be published: the service's network is none", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "none"}}
			s.EndpointSpec.Ports = []swarm.PortConfig{{PublishMode: "host", TargetPort: 80, PublishedPort: 80}}
		}},
		{400, "port 80 can't be published as another one on the network host", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "host"}}
			s.EndpointSpec.Ports = []swarm.PortConfig{{PublishMode: "host", TargetPort: 80, PublishedPort: 8080}}
		}},
		{400, "malformed secret reference", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Secrets = []*swarm.SecretReference{nil} }},
		{400, "malformed config reference", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Configs = []*swarm.ConfigReference{{}} }},
		{501, "Privileges", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Privileges = &swarm.Privileges{CredentialSpec: &swarm.CredentialSpec{File: "f"}}
		}},
		{501, "Isolation", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Isolation = "hyperv" }},
		{400, "GenericResources[0]: invalid kind \\\"g=u\\\"", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Resources.Reservations.GenericResources = discrete("g=u", 1)
		}},
		{400, "GenericResources[0]: invalid number of gpu: 0", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Resources.Reservations.GenericResources = discrete("gpu", 0)
		}},
		{400, "GenericResources[1]: GPU is asked for twice", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Resources.Reservations.GenericResources = append(discrete("gpu", 1), discrete("GPU", 1)...)
		}},
		{400, "GenericResources[0]: a service asks for a number", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Resources.Reservations.GenericResources = []swarm.GenericResource{{}}
		}},
		{400, "Placement.Preferences[0]: only spread=KEY", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Placement.Preferences = []swarm.PlacementPreference{{}}
		}},
		{400, "Placement.Preferences[1]: spread=node.colour means nothing, there are node.id", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Placement.Preferences = []swarm.PlacementPreference{
				{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.zone"}}, {Spread: &swarm.SpreadOver{SpreadDescriptor: "node.colour"}},
			}
		}},
		{501, "mounts of type npipe", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: "npipe", Target: "/a"}}
		}},
		{501, "Runtime", func(s *swarm.ServiceSpec) { s.TaskTemplate.Runtime = swarm.RuntimePlugin }},
	} {
		b.do("POST", "/services/create", spec("web", c.change)).want(t, c.status, c.text)
	}
	for _, c := range []struct{ body, contentType, text string }{
		{`{"Name":`, "application/json", "invalid JSON"},
		{`{"Name":"a"} {}`, "application/json", "unexpected content after JSON"},
		{`{"Name":"a"}]`, "application/json", "unexpected content after JSON"},
		{`{"Name":"a"}`, "text/plain", "unsupported Content-Type header (text/plain)"},
		{`{"Name":7}`, "application/json", "invalid JSON"},
		{`{"TaskTemplate":{"Resources":{"SwapBytes":7}}}`, "application/json", `unknown field \"SwapBytes\"`},
	} {
		b.do("POST", "/services/create", c.body, "Content-Type", c.contentType).want(t, 400, c.text)
	}
	if n := b.view().ServiceCount(); n != 0 {
		t.Fatalf("%d services were made", n)
	}
}

// TestAcceptService holds the container fields that drivers carry out.
func TestAcceptService(t *testing.T) {
	b := newBench(t)
	want := spec("full", func(s *swarm.ServiceSpec) {
		grace := 3 * time.Second
		c := s.TaskTemplate.ContainerSpec
		c.Command, c.Args, c.Env, c.Dir, c.User, c.Groups = []string{"a"}, []string{"b"}, []string{"K=V", "BARE"}, "/d", "u", []string{"g"}
		c.Hostname, c.Hosts, c.Labels, c.TTY, c.OpenStdin, c.ReadOnly = "h", []string{"1.2.3.4 x"}, map[string]string{"l": "v"}, true, true, true
		c.StopSignal, c.StopGracePeriod, c.Sysctls = "SIGINT", &grace, map[string]string{"net.x": "1"}
		c.CapabilityAdd, c.CapabilityDrop, c.OomScoreAdj = []string{"CAP_NET_ADMIN"}, []string{"CAP_CHOWN"}, 5
		c.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}
		c.Mounts = []mount.Mount{{Type: "bind", Source: "/a", Target: "/b"}, {Type: "volume", Target: "/c"}, {Type: "tmpfs", Target: "/d"}}
		c.Healthcheck = &container.HealthConfig{Test: []string{"NONE"}, StartInterval: time.Second}
		c.DNSConfig = &swarm.DNSConfig{Nameservers: []string{"1.1.1.1"}}
		c.Isolation = "default"
		s.TaskTemplate.LogDriver = &swarm.Driver{Name: "json-file", Options: map[string]string{"max-size": "1m"}}
		s.TaskTemplate.Resources = &swarm.ResourceRequirements{Limits: &swarm.Limit{NanoCPUs: 1e9, MemoryBytes: 1 << 30, Pids: 9}, Reservations: &swarm.Resources{NanoCPUs: 1e9}}
		s.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.role==worker"}, MaxReplicas: 2, Platforms: []swarm.Platform{{OS: "linux"}}}
	})
	got := b.inspect(b.create(want)).Spec
	want.TaskTemplate.Runtime = swarm.RuntimeContainer
	left, _ := json.Marshal(want)
	right, _ := json.Marshal(got)
	if string(left) != string(right) {
		t.Fatalf("stored\n%s\nsent\n%s", right, left)
	}
	// An older client can't have meant what its API version didn't have.
	var made swarm.ServiceCreateResponse
	want.Name = "old"
	b.do("POST", "/v1.40/services/create", want).want(t, 201, "").into(t, &made)
	c := b.inspect(made.ID).Spec.TaskTemplate.ContainerSpec
	if c.CapabilityAdd != nil || c.Ulimits != nil || c.OomScoreAdj != 0 || c.Healthcheck.StartInterval != 0 || c.Sysctls == nil {
		t.Fatalf("%+v", c)
	}
}

func TestUpdateService(t *testing.T) {
	b := newBench(t)
	id := b.create(spec("web"), "X-Registry-Auth", "first")
	first := b.inspect(id)
	two := first.Spec
	changed := *two.TaskTemplate.ContainerSpec
	changed.Image = "timecheck:2.0"
	two.TaskTemplate.ContainerSpec = &changed

	b.do("POST", "/services/web/update?version=zero", two).want(t, 400, "invalid service version 'zero'")
	b.do("POST", "/services/web/update", two).want(t, 400, "invalid service version ''")
	b.do("POST", "/services/web/update?version=999", two).want(t, 500, "update out of sequence")
	b.do("POST", "/services/none/update?version=1", two).want(t, 404, "service none not found")
	b.post(id, "rollback=previous", two).want(t, 400, "does not have a previous spec")
	b.post(id, "rollback=sometimes", two).want(t, 400, "unrecognized rollback option sometimes")
	b.post(id, "registryAuthFrom=thin-air", two).want(t, 400, "unsupported registryAuthFrom value")
	b.post(id, "registryAuthFrom=previous-spec", two).want(t, 400, "does not have a previous spec")
	renamed := two
	renamed.Name = "other"
	b.post(id, "", renamed).want(t, 501, "renaming services is not supported")
	if got := b.inspect(id); got.Version != first.Version {
		t.Fatalf("a refused update changed something: %+v", got)
	}

	if got := b.post(id, "registryAuthFrom=spec", two).want(t, 200, "").body; strings.TrimSpace(got) != `{"Warnings":null}` {
		t.Fatalf("answer %q", got)
	}
	second := b.inspect(id)
	if second.Version.Index <= first.Version.Index || second.PreviousSpec == nil || second.PreviousSpec.TaskTemplate.ContainerSpec.Image != "timecheck:1.0" || second.UpdateStatus != nil {
		t.Fatalf("%+v", second)
	}
	if got := b.view().Revision(id, 2); got.Auth != "first" {
		t.Fatalf("credentials were lost: %q", got.Auth)
	}
	b.do("POST", fmt.Sprintf("/services/web/update?version=%d", first.Version.Index), two).want(t, 500, "update out of sequence")

	// Roll back, and again: it toggles.
	b.post(id, "rollback=previous&registryAuthFrom=spec", second.Spec).want(t, 200, "")
	third := b.inspect(id)
	if third.Spec.TaskTemplate.ContainerSpec.Image != "timecheck:1.0" || third.UpdateStatus.State != swarm.UpdateStateRollbackStarted ||
		third.UpdateStatus.Message != "manually requested rollback" || third.UpdateStatus.StartedAt == nil || third.UpdateStatus.CompletedAt != nil {
		t.Fatalf("%+v %+v", third.Spec, third.UpdateStatus)
	}
	b.post(id, "rollback=previous", second.Spec).want(t, 200, "")
	if got := b.inspect(id); got.Spec.TaskTemplate.ContainerSpec.Image != "timecheck:2.0" {
		t.Fatalf("%+v", got)
	}
	// A new spec ends what the rollback said.
	b.post(id, "", two).want(t, 200, "")
	three := two
	again := changed
	again.Image = "timecheck:3.0"
	three.TaskTemplate.ContainerSpec = &again
	b.post(id, "registryAuthFrom=previous-spec", three, "X-Registry-Auth", "new").want(t, 200, "")
	got := b.inspect(id)
	if got.UpdateStatus != nil {
		t.Fatalf("%+v", got.UpdateStatus)
	}
	if auth := b.view().Revision(id, b.view().Service(id).Revision).Auth; auth != "new" {
		t.Fatalf("credentials %q", auth)
	}
}

func TestRemoveService(t *testing.T) {
	b := newBench(t)
	id := b.create(spec("web", func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"com.docker.stack.namespace": "st"} }))
	b.addTask(1, id, 1, 1)
	b.addTask(2, id, 2, 2)
	b.update(func(tx *store.Tx) error {
		return tx.Put(&cluster.Rollout{ServiceID: id, State: swarm.UpdateStateUpdating})
	})
	if got := b.do("DELETE", "/services/web", nil).want(t, 200, ""); got.body != "" {
		t.Fatalf("body %q", got.body)
	}
	b.do("DELETE", "/services/web", nil).want(t, 404, "service web not found")
	view := b.view()
	if view.Rollout(id) != nil || view.Task(taskID(1)).Desired != cluster.StateRemove || view.Task(taskID(2)).Desired != cluster.StateRemove {
		t.Fatal("something of the service is left as it was")
	}
	var tasks []swarm.Task
	b.do("GET", `/tasks?filters={"label":["com.docker.stack.namespace=st"]}`, nil).want(t, 200, "").into(t, &tasks)
	if len(tasks) != 2 || tasks[0].DesiredState != "remove" || tasks[0].Spec.ContainerSpec.Image != "timecheck:1.0" {
		t.Fatalf("%+v", tasks)
	}
}

// A removal is one entry of the log, which a service may have too many tasks for.
func TestRemoveService_OfTooManyTasks(t *testing.T) {
	b := newBench(t)
	id := b.create(spec("web"))
	// Long IDs fill an entry with fewer tasks.
	longID := func(i int) string { return fmt.Sprintf("task%0500d", i) }
	for first := 1; first <= 20_000; first += 5_000 {
		b.update(func(tx *store.Tx) error {
			for i := first; i < first+5_000; i++ {
				if err := tx.Put(&cluster.Task{ID: longID(i), ServiceID: id, Slot: uint32(i), Revision: 1, Desired: cluster.StateRunning}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	b.do("DELETE", "/services/web", nil).want(t, 400, "service web has 20000 tasks, too many to remove at once: scale it to 0 first")
	if b.view().Service(id) == nil || b.view().Task(longID(1)).Desired != cluster.StateRunning {
		t.Fatal("a part of it is removed")
	}
}

func TestListServices(t *testing.T) {
	b := newBench(t)
	if got := b.do("GET", "/services", nil).want(t, 200, "").body; strings.TrimSpace(got) != "[]" {
		t.Fatalf("empty list is %q", got)
	}
	web := b.create(spec("web", func(s *swarm.ServiceSpec) {
		s.Labels = map[string]string{"a": "1", "b": "2"}
		s.Mode.Replicated.Replicas = ptr(uint64(3))
	}))
	b.create(spec("webber"))
	b.create(spec("db", func(s *swarm.ServiceSpec) { s.Labels = map[string]string{"a": "2"} }))
	for filter, want := range map[string]int{
		``: 3, `{}`: 3, `{"name":{"web":true}}`: 2, `{"name":["web"]}`: 2, `{"name":["eb"]}`: 0,
		`{"id":["` + web[:8] + `"]}`: 1, `{"label":["a"]}`: 2, `{"label":["a=1"]}`: 1, `{"label":["a","b"]}`: 1, `{"label":["a=1","b=3"]}`: 0,
		`{"mode":["replicated"]}`: 3, `{"mode":["global"]}`: 0, `{"runtime":["plugin"]}`: 0, `{"name":["web"],"label":["a"]}`: 1,
	} {
		var services []swarm.Service
		b.do("GET", "/services?filters="+filter, nil).want(t, 200, "").into(t, &services)
		if len(services) != want {
			t.Errorf("filter %s: %d services, want %d", filter, len(services), want)
		}
	}
	for _, filter := range []string{`{`, `[]`, `7`, `{"name":7}`} {
		b.do("GET", "/services?filters="+filter, nil).want(t, 400, "invalid filter")
	}
	b.do("GET", `/services?filters={"colour":["red"]}`, nil).want(t, 400, "invalid filter 'colour'")

	// Tasks on nodes that are down aren't running.
	b.addTask(1, web, 1, 1)
	b.addTask(2, web, 2, 2)
	b.addTask(3, web, 3, 3, func(task *cluster.Task) { task.Status.State = cluster.StateFailed })
	down := func(state cluster.NodeState) {
		b.update(func(tx *store.Tx) error {
			node := *tx.Node(nodeID(2))
			node.Status.State = state
			return tx.Put(&node)
		})
	}
	status := func() (s swarm.ServiceStatus) {
		var services []swarm.Service
		b.do("GET", `/services?status=true&filters={"id":["`+web+`"]}`, nil).want(t, 200, "").into(t, &services)
		return *services[0].ServiceStatus
	}
	if got := status(); got != (swarm.ServiceStatus{RunningTasks: 2, DesiredTasks: 3}) {
		t.Fatalf("%+v", got)
	}
	down(cluster.NodeDown)
	if got := status(); got != (swarm.ServiceStatus{RunningTasks: 1, DesiredTasks: 3}) {
		t.Fatalf("%+v", got)
	}
	b.do("GET", "/services?status=perhaps", nil).want(t, 400, "invalid value for status")
	if got := b.do("GET", "/v1.40/services?status=perhaps", nil).want(t, 200, ""); strings.Contains(got.body, "ServiceStatus") {
		t.Fatal("status for an API that had none")
	}
}
