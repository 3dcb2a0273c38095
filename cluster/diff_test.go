package cluster

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"
)

func TestDiffRevisions(t *testing.T) {
	grace := 90 * time.Second
	yes, no := true, false
	from := KeptRevision{Number: 1, Labels: map[string]string{"tier": "one", "old": "x"}}
	from.TaskTemplate = swarm.TaskSpec{
		ContainerSpec: &swarm.ContainerSpec{
			Image: "app:1", Args: []string{"serve", "--fast"}, Env: []string{"LOG=debug", "EMPTY=", "GONE=1"},
			Labels:      map[string]string{"tier": "inner"},
			Healthcheck: &container.HealthConfig{Test: []string{"CMD", "true"}, Interval: time.Second},
			Secrets: []*swarm.SecretReference{
				{SecretName: "key", SecretID: "s1", File: &swarm.SecretReferenceFileTarget{Name: "key", UID: "0", GID: "0", Mode: 0o444}},
			},
			Mounts: []mount.Mount{{Type: mount.TypeVolume, Source: "data", Target: "/data"}},
			Init:   &no,
		},
		Resources: &swarm.ResourceRequirements{Limits: &swarm.Limit{NanoCPUs: 5e8, MemoryBytes: 64 << 20}},
		Placement: &swarm.Placement{Constraints: []string{"node.role==worker"}},
		Networks:  []swarm.NetworkAttachmentConfig{{Target: "net1"}},
	}
	from.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeVIP, Ports: []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: 8080, PublishMode: "ingress"}}}
	to := KeptRevision{Number: 2, Labels: map[string]string{"tier": "two", "new": "a\nb"}}
	to.TaskTemplate = swarm.TaskSpec{
		ForceUpdate: 3,
		ContainerSpec: &swarm.ContainerSpec{
			Image: "app:2", Args: []string{"serve"}, Env: []string{"LOG=info", "EMPTY=", "NEW=\x1b[2J"},
			Labels:          map[string]string{"tier": "outer"},
			StopGracePeriod: &grace,
			Secrets: []*swarm.SecretReference{
				{SecretName: "key", SecretID: "s2", File: &swarm.SecretReferenceFileTarget{Name: "key", UID: "0", GID: "0", Mode: 0o400}},
				{SecretName: "extra", SecretID: "s3", File: &swarm.SecretReferenceFileTarget{Name: "extra", UID: "0", GID: "0", Mode: 0o444}},
			},
			Mounts: []mount.Mount{{Type: mount.TypeBind, Source: "/srv", Target: "/srv", ReadOnly: true}},
			Init:   &yes,
		},
		Resources: &swarm.ResourceRequirements{
			Limits:       &swarm.Limit{NanoCPUs: 15e8, MemoryBytes: 64 << 20},
			Reservations: &swarm.Resources{GenericResources: []swarm.GenericResource{{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: "gpu", Value: 2}}}},
		},
		Placement: &swarm.Placement{Constraints: []string{"node.role==worker", "node.labels.zone==a"}},
		Networks:  []swarm.NetworkAttachmentConfig{{Target: "net1", Aliases: []string{"db"}}},
	}
	to.EndpointSpec = &swarm.EndpointSpec{Mode: swarm.ResolutionModeVIP, Ports: []swarm.PortConfig{
		{Protocol: "tcp", TargetPort: 80, PublishedPort: 8081, PublishMode: "ingress"}, {Protocol: "udp", TargetPort: 53, PublishedPort: 53, PublishMode: "host"},
	}}
	var lines []string
	for _, d := range DiffRevisions(from, to) {
		lines = append(lines, strings.ReplaceAll(d.String(), "\t", ": "))
	}
	got := strings.Join(lines, "\n") + "\n"
	want, err := os.ReadFile("testdata/diff.txt")
	if err != nil || got != string(want) {
		t.Errorf("%v\n%s", err, got)
	}
	if same := DiffRevisions(from, from); len(same) > 0 {
		t.Errorf("from itself it differs by %v", same)
	}
	// Backwards it is the same the other way round.
	back := DiffRevisions(to, from)
	for i, d := range DiffRevisions(from, to) {
		if back[i] != (Difference{d.Field, d.To, d.From}) {
			t.Errorf("%v, and back %v", d, back[i])
		}
	}
}
