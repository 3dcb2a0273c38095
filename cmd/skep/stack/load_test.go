package stack

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/cli/cli/compose/convert"
	"github.com/docker/cli/cli/compose/loader"
	composetypes "github.com/docker/cli/cli/compose/types"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"
	"github.com/google/go-cmp/cmp"

	"skep/cluster"
)

// everySecret is a swarm that has whatever is asked for, with its name as its ID.
type everySecret struct{ client.APIClient }

func (everySecret) ClientVersion() string { return apiVersion }

func (everySecret) SecretList(_ context.Context, opts swarm.SecretListOptions) (all []swarm.Secret, _ error) {
	for _, name := range opts.Filters.Get("name") {
		all = append(all, swarm.Secret{ID: name, Spec: swarm.SecretSpec{Annotations: swarm.Annotations{Name: name}}})
	}
	return all, nil
}

func (everySecret) ConfigList(_ context.Context, opts swarm.ConfigListOptions) (all []swarm.Config, _ error) {
	for _, name := range opts.Filters.Get("name") {
		all = append(all, swarm.Config{ID: name, Spec: swarm.ConfigSpec{Annotations: swarm.Annotations{Name: name}}})
	}
	return all, nil
}

// asDocker loads files as `docker stack deploy` does.
func asDocker(t *testing.T, files, environ []string) *Stack {
	t.Helper()
	details := composetypes.ConfigDetails{WorkingDir: filepath.Dir(files[0]), Environment: map[string]string{}}
	for _, v := range environ {
		key, value, _ := strings.Cut(v, "=")
		details.Environment[key] = value
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		dict, err := loader.ParseYAML(text)
		if err != nil {
			t.Fatal(err)
		}
		details.ConfigFiles = append(details.ConfigFiles, composetypes.ConfigFile{Filename: file, Config: dict})
	}
	config, err := loader.Load(details)
	if err != nil {
		t.Fatal(err)
	}
	namespace := convert.NewNamespace("shop")
	services, err := convert.Services(t.Context(), namespace, config, everySecret{})
	if err != nil {
		t.Fatal(err)
	}
	s := &Stack{Name: "shop"}
	used := map[string]struct{}{}
	for _, service := range config.Services {
		spec := services[service.Name]
		for _, ref := range spec.TaskTemplate.ContainerSpec.Secrets {
			ref.SecretID = ""
		}
		for _, ref := range spec.TaskTemplate.ContainerSpec.Configs {
			ref.ConfigID = ""
		}
		s.Services = append(s.Services, spec)
		for key := range service.Networks {
			used[key] = struct{}{}
		}
		if len(service.Networks) == 0 {
			used["default"] = struct{}{}
		}
	}
	var networks map[string]network.CreateOptions
	networks, s.External = convert.Networks(namespace, config.Networks, used)
	for name, n := range networks {
		if n.Driver == "" {
			n.Driver = "overlay"
		}
		s.Networks = append(s.Networks, Network{name, n})
	}
	secrets, err := convert.Secrets(namespace, config.Secrets)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range secrets {
		s.Data = append(s.Data, Data{Kind: "secret", Driver: spec.Driver, Spec: swarm.ConfigSpec{Annotations: spec.Annotations, Data: spec.Data, Templating: spec.Templating}})
	}
	configs, err := convert.Configs(namespace, config.Configs)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range configs {
		s.Data = append(s.Data, Data{Kind: "config", Spec: spec})
	}
	return s
}

// text is a stack in one way of writing.
func text(t *testing.T, s *Stack) string {
	t.Helper()
	all := struct {
		Services []swarm.ServiceSpec
		Networks []Network
		External []string
		Data     []Data
	}{s.Services, s.Networks, s.External, slices.Clone(s.Data)}
	for i := range all.Data {
		all.Data[i].Key, all.Data[i].Named = "", false
	}
	slices.SortFunc(all.Services, func(a, b swarm.ServiceSpec) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(all.Networks, func(a, b Network) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(all.Data, func(a, b Data) int { return strings.Compare(a.Kind+a.Spec.Name, b.Kind+b.Spec.Name) })
	slices.Sort(all.External)
	data, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// corpus are stacks that `docker stack deploy` takes.
func corpus(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, pattern := range []string{"testdata/swarm/*.yml", "../../lab/testdata/stacks/*.yml"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range files {
			path, err := filepath.Abs(file)
			if err != nil {
				t.Fatal(err)
			}
			base, over := strings.CutSuffix(path, ".over.yml")
			switch {
			case over:
				all[filepath.Base(file)] = []string{base + ".yml", path}
			case filepath.Base(file) == "green.yml": // It only says what is other in colours.yml.
				all["green"] = []string{filepath.Join(filepath.Dir(path), "colours.yml"), path}
			default:
				all[filepath.Base(file)] = []string{path}
			}
		}
	}
	return all
}

func TestLoad_AsDocker(t *testing.T) {
	environ := []string{"HOME=/home/bee", "TAG=7", "COLOUR=blue", "QUX=qux_from_environment"}
	t.Setenv("HOME", "/home/bee") // Of which a path can begin with ~.
	for name, files := range corpus(t) {
		t.Run(name, func(t *testing.T) {
			want := asDocker(t, files, environ)
			got, err := Load(t.Context(), Source{Files: files, Name: "shop", Environ: environ})
			if err != nil {
				t.Fatal(err)
			}
			for _, spec := range got.Services {
				delete(spec.Labels, cluster.LabelDependsOn.Name) // docker's takes depends_on, and makes nothing of it.
			}
			if diff := cmp.Diff(text(t, want), text(t, got)); diff != "" {
				t.Errorf("docker's and ours:\n%s", diff)
			}
		})
	}
}

// TestLoad_Compose loads what docker's own loader refuses, or doesn't read.
func TestLoad_Compose(t *testing.T) {
	environ := []string{"TOKEN=s3cret", "FROM_ENVIRONMENT=here"}
	s, err := Load(t.Context(), Source{Files: []string{"testdata/compose/shop.yml"}, Profiles: []string{"tools"}, Environ: environ})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	services := map[string]swarm.ServiceSpec{}
	for _, spec := range s.Services {
		names = append(names, spec.Name)
		services[spec.Name] = spec
	}
	if got := strings.Join(names, " "); s.Name != "boutique" || got != "boutique_admin boutique_web boutique_cache" {
		t.Fatalf("stack %s: %s", s.Name, got)
	}
	web := services["boutique_web"]
	container := web.TaskTemplate.ContainerSpec
	for what, same := range map[string][2]any{
		"image from .env":            {container.Image, "web:9"},
		"environment goes first":     {slices.Contains(container.Env, "WHERE=here"), true},
		"env_file that needn't be":   {slices.Contains(container.Env, "BASE=1"), true},
		"extends":                    {container.Labels["from"], "base"},
		"a port in digits":           {web.EndpointSpec.Ports[0].PublishedPort, uint32(8080)},
		"!reset":                     {container.Healthcheck == nil, true},
		"mem_limit":                  {web.TaskTemplate.Resources.Limits.MemoryBytes, int64(64 << 20)},
		"cpus":                       {web.TaskTemplate.Resources.Limits.NanoCPUs, int64(500_000_000)},
		"scale":                      {*web.Mode.Replicated.Replicas, uint64(3)},
		"group_add":                  {strings.Join(container.Groups, " "), "audio 44"},
		"dns_opt":                    {strings.Join(container.DNSConfig.Options, " "), "ndots:2"},
		"oom_score_adj":              {container.OomScoreAdj, int64(100)},
		"a boolean in a label":       {web.Labels["public"], "true"},
		"a mode in octal":            {uint32(container.Configs[0].File.Mode), uint32(0o440)},
		"depends_on":                 {services["boutique_cache"].Labels[cluster.LabelDependsOn.Name], "admin:completed,web:healthy"},
		"include":                    {services["boutique_cache"].TaskTemplate.ContainerSpec.Image, "cache:1"},
		"a profile":                  {services["boutique_admin"].TaskTemplate.ContainerSpec.Image, "admin:1"},
		"a network's gateway":        {s.Networks[0].IPAM.Config[0].Gateway, "10.9.0.1"},
		"a network with IPv6":        {*s.Networks[0].EnableIPv6, true},
		"content, interpolated":      {string(s.Data[1].Spec.Data), "port 9, $HOME\n"},
		"a secret of a variable":     {string(s.Data[0].Spec.Data), "s3cret"},
		"a secret that has no name:": {s.Data[0].Named, false},
		"a config that has":          {s.Data[1].Named, true},
	} {
		if same[0] != same[1] {
			t.Errorf("%s: %v, want %v", what, same[0], same[1])
		}
	}
	want := []string{
		"services.cache.depends_on.debug is ignored: there is no such service, or its profile isn't asked for",
		"services.web.build is ignored: build and push the image before, and name it with image",
		"services.web.develop is ignored: it has no meaning in a cluster",
		"services.web.ports.app_protocol is ignored: it has no meaning in a cluster",
		"services.web.ports.name is ignored: it has no meaning in a cluster",
		"services.web.pull_policy is ignored: nodes pull images that they don't have, of the digest that was deployed",
	}
	slices.Sort(s.Warnings)
	if diff := cmp.Diff(want, s.Warnings); diff != "" {
		t.Error(diff)
	}
}

func TestLoad_Refuses(t *testing.T) {
	for text, says := range map[string]string{
		"services: {}":                                      "name the stack",
		"name: x":                                           "has no services",
		"name: x\nservices: {a: }":                          "a",
		"name: x\nservices: {a: {build: .}}":                "service a has no image",
		"name: x\nservices: {a: {image: A b}}":              "service a: image A b",
		"name: x\nservices: {a: {image: a, bogus: 1}}":      "bogus",
		"name: x\nservices: {a: {image: a, label_file: f}}": "label_file isn't supported",
		"name: x\nservices: {a: {image: a, mem_limit: 1m, deploy: {resources: {limits: {memory: 2m}}}}}": "write one of them",
		"name: x\nservices: {a: {image: a, scale: 2, deploy: {replicas: 3}}}":                            "write one of them",
		"name: x\nservices: {a: {image: a, ports: [{target: 80, published: 80-90}]}}":                    "is no port",
		"name: x\nservices: {a: {image: a, secrets: [s]}}":                                               `undefined secret "s"`,
		"name: x\nservices: {a: {image: a, env_file: none}}":                                             "none",
		"name: x\nservices: {a: {image: a}}\nsecrets: {s: {environment: NO}}":                            "variable NO of the environment isn't set",
		"name: x\nservices: {a: {image: a}}\nsecrets: {s: }":                                             "secrets.s must be a mapping",
		"name: x\nservices: {a: {image: a}}\nconfigs: {c: {content: a, file: b}}":                        "mutually exclusive",
		"name: x\nservices: {a: {image: '${NO:?say which}'}}":                                            "say which",
		"name: x\nservices: {a: {image: a, networks: [n]}}":                                              `undefined network "n"`,
		"name: x\nservices: [1": "failed to parse",
		"a: &a [x, x]\nb: &b [*a, *a, *a, *a]\nname: x\nservices: {a: {image: a, configs: [{source: c, mode: '9'}]}}": "",
	} {
		s, err := Load(t.Context(), Source{Files: []string{"-"}, Stdin: strings.NewReader(text)})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s\ngives %+v, %v, want %q", text, s, err, says)
		}
	}
}
