package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/system"
)

// unpack reads a dump.
func unpack(t *testing.T, data []byte) map[string]string {
	t.Helper()
	zipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for archive := tar.NewReader(zipped); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(header.Name, "skep-support/")] = string(text)
	}
}

// A node whose answers have something to hide wherever the API has room for it.
func nodeWithSecrets(t *testing.T) *fakeNode {
	const canary = "canary"
	labels := func() map[string]string { return map[string]string{"shown-key": canary} }
	node := newFakeNode(t)
	node.say(ailing())
	answer := func(request string, v any) {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		node.answer(request, string(text))
	}
	service := swarm.Service{ID: "web1", Spec: swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "web", Labels: labels()}}}
	service.Spec.TaskTemplate = swarm.TaskSpec{
		LogDriver: &swarm.Driver{Name: "gelf", Options: labels()},
		ContainerSpec: &swarm.ContainerSpec{
			Image: "app:1", Env: []string{"PASSWORD=" + canary, "shown_name"}, Args: []string{canary}, Command: []string{canary}, Labels: labels(), Dir: canary, User: canary, Hosts: []string{canary},
			Healthcheck: &container.HealthConfig{Test: []string{"CMD", canary}},
			Secrets:     []*swarm.SecretReference{{SecretID: "s1", SecretName: "shown-secret"}},
			Mounts:      []mount.Mount{{Type: "volume", Target: "/data", Source: canary, VolumeOptions: &mount.VolumeOptions{DriverConfig: &mount.Driver{Options: labels()}}}},
			Sysctls:     labels(),
		},
	}
	before := service.Spec
	service.PreviousSpec = &before
	answer("GET /services", []swarm.Service{service})
	task := swarm.Task{ID: "task1", ServiceID: "web1", Spec: service.Spec.TaskTemplate, Status: swarm.TaskStatus{State: swarm.TaskStateFailed, Err: "shown-failure"}}
	task.Labels = labels()
	answer("GET /tasks", []swarm.Task{task})
	machine := swarm.Node{ID: "a1", Spec: swarm.NodeSpec{Annotations: swarm.Annotations{Labels: labels()}}}
	machine.Description.Engine.Labels, machine.Description.TLSInfo.TrustRoot = labels(), canary
	answer("GET /nodes", []swarm.Node{machine})
	info := swarm.Swarm{JoinTokens: swarm.JoinTokens{Worker: "SWMTKN-1-" + canary, Manager: "SWMTKN-1-" + canary}}
	info.ID = "c0"
	info.Spec.Labels, info.Spec.CAConfig.SigningCAKey, info.TLSInfo.TrustRoot = labels(), canary, canary
	info.Spec.CAConfig.ExternalCAs = []*swarm.ExternalCA{{URL: canary, Options: labels()}}
	info.Spec.TaskDefaults.LogDriver = &swarm.Driver{Name: "gelf", Options: labels()}
	answer("GET /swarm", info)
	answer("GET /swarm/unlockkey", map[string]string{"UnlockKey": "SWMKEY-1-" + canary})
	secret := swarm.Secret{ID: "s1", Spec: swarm.SecretSpec{Annotations: swarm.Annotations{Name: "shown-secret", Labels: labels()}, Data: []byte(canary)}}
	answer("GET /secrets", []swarm.Secret{secret})
	answer("GET /configs", []swarm.Config{{ID: "k1", Spec: swarm.ConfigSpec{Annotations: swarm.Annotations{Name: "shown-config", Labels: labels()}, Data: []byte(canary)}}})
	answer("GET /networks", []map[string]any{{"Id": "net1", "Name": "shown-network", "Options": labels(), "Labels": labels()}})
	answer("GET /info", system.Info{Name: "n1", HTTPProxy: canary, HTTPSProxy: canary, Labels: []string{canary}, DockerRootDir: canary})
	answer("GET /version", map[string]any{"Version": "0.1.0", "ApiVersion": "1.41"})
	node.answer("GET /metrics", "skep_raft_term 7\n")
	node.answer("GET /skep/v1/goroutines", "goroutine profile: total 3\n")
	return node
}

// What is written has all that is to be in it, and nothing that somebody would rather keep.
func TestSupportDump(t *testing.T) {
	node := nodeWithSecrets(t)
	path := filepath.Join(t.TempDir(), "dump.tar.gz")
	r := skep(t, []string{"SKEP_HOST=" + node.url}, "support", "dump", path)
	if r.status != 0 || !hasLine(r.stdout, path) {
		t.Fatalf("%+v", r)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	files := unpack(t, data)
	if len(files) != 1+len(supportParts) {
		t.Errorf("%d files", len(files))
	}
	for name, text := range files {
		if strings.Contains(text, "canary") || strings.Contains(text, "Y2FuYXJ5") || strings.Contains(text, "SWMTKN") || strings.Contains(text, "SWMKEY") {
			t.Errorf("%s has what is nobody's business:\n%s", name, text)
		}
		if strings.HasSuffix(name, ".error") {
			t.Errorf("%s: %s", name, text)
		}
		if !strings.Contains(r.stdout, name) {
			t.Errorf("%s isn't listed", name)
		}
	}
	for name, part := range map[string]string{
		"status.json": `"TERM"`, "services.json": "PASSWORD", "tasks.json": "shown-failure", "secrets.json": "shown-secret", "configs.json": "shown-config",
		"networks.json": "shown-network", "nodes.json": "shown-key", "cluster.json": "shown-key", "metrics.txt": "skep_raft_term 7", "goroutines.txt": "total 3",
		"versions.json": `"Daemon": "0.1.0"`, "node.json": `"Name": "n1"`, "README.txt": "journalctl",
	} {
		if !strings.Contains(strings.ToLower(files[name]), strings.ToLower(part)) {
			t.Errorf("%s has no %s:\n%s", name, part, files[name])
		}
	}
	// What is there isn't overwritten, and what can't be had is said.
	if r := skep(t, []string{"SKEP_HOST=" + node.url}, "support", "dump", path); r.status != 1 || !strings.Contains(r.stderr, "file exists") {
		t.Errorf("%+v", r)
	}
	node.answer("GET /services", `{"message":"there is no leader"}`)
	r = skep(t, []string{"SKEP_HOST=" + node.url}, "support", "dump", "-")
	if files := unpack(t, []byte(r.stdout)); r.status != 0 || !strings.Contains(files["services.json.error"], "there is no leader") || !strings.Contains(r.stderr, "services.json.error") {
		t.Errorf("%+v", files)
	}
}
