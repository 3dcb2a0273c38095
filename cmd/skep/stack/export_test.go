package stack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/google/go-cmp/cmp"
)

// asLive is what a cluster has of a stack that was deployed: networks by their IDs, and what the
// API fills in.
func asLive(s *Stack) (live Live) {
	ids := map[string]string{}
	for i, n := range s.Networks {
		id := fmt.Sprintf("id%d", i)
		ids[n.Name] = id
		summary := network.Summary{ID: id, Name: n.Name, Driver: n.Driver, Internal: n.Internal, Attachable: n.Attachable, Options: n.Options, Labels: n.Labels, EnableIPv6: n.EnableIPv6 != nil && *n.EnableIPv6}
		live.Networks = append(live.Networks, summary)
	}
	for _, spec := range s.Services {
		task := &spec.TaskTemplate
		container := *task.ContainerSpec
		task.ContainerSpec = &container
		task.Networks = append([]swarm.NetworkAttachmentConfig(nil), task.Networks...)
		for i, n := range task.Networks {
			if id := ids[n.Target]; id != "" {
				task.Networks[i].Target = id
			}
		}
		live.Services = append(live.Services, swarm.Service{Spec: spec})
	}
	for _, d := range s.Data {
		if d.Kind == "config" {
			live.Configs = append(live.Configs, swarm.Config{Spec: d.Spec})
		}
	}
	return live
}

// TestExport has every stack of the tests loaded, exported as if it were deployed, and loaded again.
func TestExport(t *testing.T) {
	t.Setenv("HOME", "/home/bee")
	environ := []string{"HOME=/home/bee", "TAG=7", "COLOUR=blue", "QUX=qux_from_environment", "TOKEN=x", "FROM_ENVIRONMENT=here"}
	all := corpus(t)
	shop, err := filepath.Abs("testdata/compose/shop.yml")
	if err != nil {
		t.Fatal(err)
	}
	all["compose"] = []string{shop}
	for name, files := range all {
		t.Run(name, func(t *testing.T) {
			before, err := Load(t.Context(), Source{Files: files, Name: "shop", Profiles: []string{"*"}, Environ: environ})
			if err != nil {
				t.Fatal(err)
			}
			file, err := Export("shop", asLive(before), false)
			if err != nil {
				t.Fatal(err)
			}
			after, err := Load(t.Context(), Source{Files: []string{"-"}, Stdin: strings.NewReader(string(file))})
			if err != nil {
				t.Fatalf("%v\n%s", err, file)
			}
			if diff := cmp.Diff(services(t, before), services(t, after)); diff != "" {
				t.Errorf("%s\n%s", diff, file)
			}
			if len(after.Warnings) > 0 {
				t.Errorf("warnings: %v", after.Warnings)
			}
			for _, d := range after.Data {
				found := false
				for _, was := range before.Data {
					found = found || was.Kind == d.Kind && was.Spec.Name == d.Spec.Name && string(was.Spec.Data) == string(d.Spec.Data)
				}
				if !found {
					t.Errorf("%s %s wasn't there", d.Kind, d.Spec.Name)
				}
			}
		})
	}
}

// services are a stack's, in one way of writing.
func services(t *testing.T, s *Stack) string {
	t.Helper()
	return text(t, &Stack{Name: s.Name, Services: s.Services})
}

// TestFile has the file that was loaded say the same when it is written and loaded again.
func TestFile(t *testing.T) {
	environ := []string{"TOKEN=canary-1", "FROM_ENVIRONMENT=$here"}
	before, err := Load(t.Context(), Source{Files: []string{"testdata/compose/shop.yml"}, Profiles: []string{"tools"}, Environ: environ})
	if err != nil {
		t.Fatal(err)
	}
	file, err := before.File()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(file), "canary") {
		t.Errorf("it has a secret:\n%s", file)
	}
	path := filepath.Join(t.TempDir(), "f.yml")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	after, err := Load(t.Context(), Source{Files: []string{path}, Environ: environ[:1]})
	if err != nil {
		t.Fatalf("%v\n%s", err, file)
	}
	if diff := cmp.Diff(text(t, before), text(t, after)); diff != "" {
		t.Errorf("%s\n%s", diff, file)
	}
	merged, err := Merge(t.Context(), Source{Files: []string{"testdata/compose/shop.yml"}})
	if err != nil || !strings.Contains(string(merged), "web:${TAG}") || !strings.Contains(string(merged), "cache:1") {
		t.Errorf("%v\n%s", err, merged)
	}
}
