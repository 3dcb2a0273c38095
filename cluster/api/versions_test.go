package api

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"
)

// TestOlderClients: what a client's version of the API didn't have, it can't have meant.
// It is left out, at creation and at an update, and not refused.
func TestOlderClients(t *testing.T) {
	b := newBench(t)
	for name, c := range map[string]struct {
		before, since string
		set           func(*swarm.ServiceSpec)
	}{
		"sysctls":      {"1.39", "1.40", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Sysctls = map[string]string{"a": "b"} }},
		"replicas-max": {"1.39", "1.40", func(s *swarm.ServiceSpec) { s.TaskTemplate.Placement.MaxReplicas = 2 }},
		"cap-add":      {"1.40", "1.41", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.CapabilityAdd = []string{"CAP_KILL"} }},
		"cap-drop":     {"1.40", "1.41", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.CapabilityDrop = []string{"CAP_KILL"} }},
		"limit-pids":   {"1.40", "1.41", func(s *swarm.ServiceSpec) { s.TaskTemplate.Resources.Limits.Pids = 9 }},
		"ulimit": {"1.40", "1.41", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}
		}},
		"seccomp": {"1.43", "1.44", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Privileges.Seccomp = &swarm.SeccompOpts{Mode: swarm.SeccompModeUnconfined}
		}},
		"apparmor": {"1.43", "1.44", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Privileges.AppArmor = &swarm.AppArmorOpts{Mode: swarm.AppArmorModeDisabled}
		}},
		"no new privilege": {"1.43", "1.44", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Privileges.NoNewPrivileges = true }},
		"start-interval":   {"1.43", "1.44", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Healthcheck.StartInterval = time.Second }},
		"oom-score-adj":    {"1.45", "1.46", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.OomScoreAdj = 5 }},
		"tmpfs options": {"1.45", "1.46", func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Mounts[0].TmpfsOptions.Options = [][]string{{"exec"}}
		}},
	} {
		plain := func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Runtime = swarm.RuntimeContainer
			s.TaskTemplate.Resources = &swarm.ResourceRequirements{Limits: &swarm.Limit{NanoCPUs: 1e9}}
			s.TaskTemplate.ContainerSpec.Privileges = &swarm.Privileges{SELinuxContext: &swarm.SELinuxContext{Disable: true}}
			s.TaskTemplate.ContainerSpec.Healthcheck = &container.HealthConfig{Interval: time.Second}
			s.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: mount.TypeTmpfs, Target: "/t", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1}}}
		}
		text := func(s swarm.ServiceSpec) string {
			s.Name = ""
			data, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
		without, with := text(spec("", plain)), text(spec("", plain, c.set))
		if with == without {
			t.Fatalf("%s: nothing is set", name)
		}
		for version, want := range map[string]string{c.before: without, c.since: with} {
			var made swarm.ServiceCreateResponse
			b.do("POST", "/v"+version+"/services/create", spec("a", plain, c.set)).want(t, 201, "").into(t, &made)
			service := b.inspect(made.ID)
			if got := text(service.Spec); got != want {
				t.Errorf("%s, created with version %s: %s, want %s", name, version, got, want)
			}
			b.do("POST", "/v"+version+"/services/a/update?version="+service.Version.String(), spec("a", plain, c.set)).want(t, 200, "")
			if got := text(b.inspect(made.ID).Spec); got != want {
				t.Errorf("%s, updated with version %s: %s, want %s", name, version, got, want)
			}
			b.do("DELETE", "/services/a", nil).want(t, 200, "")
		}
	}
	// A job is never taken for a service that runs for ever, as it would be without its mode.
	var made swarm.ServiceCreateResponse
	b.do("POST", "/v1.24/services/create", spec("job", func(s *swarm.ServiceSpec) { s.Mode = swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}} })).want(t, 201, "").into(t, &made)
	if got := b.inspect(made.ID).Spec.Mode; got.GlobalJob == nil {
		t.Errorf("the job is %+v", got)
	}
}
