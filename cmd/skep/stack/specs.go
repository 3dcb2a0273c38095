package stack

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/distribution/reference"
	"github.com/docker/cli/cli/compose/convert"
	"github.com/docker/cli/cli/compose/loader"
	composetypes "github.com/docker/cli/cli/compose/types"
	"github.com/docker/docker/api/types/swarm"
	"gopkg.in/yaml.v3"

	"skep/cluster"
)

// asDocker has docker's own loader read what is left, so that it means what it means there.
func (l *loading) asDocker(dict map[string]any, dir string, env map[string]string) (*composetypes.Config, error) {
	text, err := yaml.Marshal(dict)
	if err != nil {
		return nil, err
	}
	plain, err := loader.ParseYAML(text)
	if err != nil {
		return nil, err
	}
	heard := &listener{}
	defer heard.listen()()
	config, err := orWrongKind(func() (*composetypes.Config, error) {
		return loader.Load(composetypes.ConfigDetails{
			WorkingDir: dir, Environment: env, ConfigFiles: []composetypes.ConfigFile{{Config: plain}},
		}, func(o *loader.Options) { o.SkipInterpolation = true })
	})
	for _, text := range heard.texts {
		l.warn(text)
	}
	return config, err
}

// specs makes the specs, by docker's own conversion.
func (l *loading) specs(s *Stack, config *composetypes.Config) error {
	namespace := convert.NewNamespace(s.Name)
	used := map[string]struct{}{}
	slices.SortFunc(config.Services, func(a, b composetypes.ServiceConfig) int { return cmp.Compare(a.Name, b.Name) })
	for _, service := range config.Services {
		if service.Image == "" {
			return fmt.Errorf("service %s has no image", service.Name)
		}
		if _, err := reference.ParseAnyReference(service.Image); err != nil {
			return fmt.Errorf("service %s: image %s: %w", service.Name, service.Image, err)
		}
		secrets, configs, err := references(namespace, service, config)
		if err != nil {
			return fmt.Errorf("service %s: %w", service.Name, err)
		}
		spec, err := convert.Service(apiVersion, namespace, service, config.Networks, config.Volumes, secrets, configs)
		if err != nil {
			return fmt.Errorf("service %s: %w", service.Name, err)
		}
		more, container := l.more[service.Name], spec.TaskTemplate.ContainerSpec
		container.Groups = more.groups
		container.OomScoreAdj = more.oomScoreAdj
		if spec.Labels[cluster.LabelDependsOn.Name] == "" && more.dependsOn != "" {
			spec.Labels[cluster.LabelDependsOn.Name] = more.dependsOn
		}
		if len(more.dnsOptions) > 0 {
			if container.DNSConfig == nil {
				container.DNSConfig = &swarm.DNSConfig{}
			}
			container.DNSConfig.Options = more.dnsOptions
		}
		s.Services = append(s.Services, spec)
		for key := range service.Networks {
			used[key] = struct{}{}
		}
		if len(service.Networks) == 0 {
			used["default"] = struct{}{}
		}
	}
	s.Services = inOrder(s.Name, s.Services)
	made, external := convert.Networks(namespace, config.Networks, used)
	byName := map[string]networkMore{}
	for key := range used {
		byName[cmp.Or(config.Networks[key].Name, namespace.Scope(key))] = l.networks[key]
	}
	for _, name := range slices.Sorted(maps.Keys(made)) {
		n := Network{name, made[name]}
		n.Driver = cmp.Or(n.Driver, "overlay")
		n.EnableIPv6 = byName[name].ipv6
		if n.IPAM != nil && len(byName[name].pools) > 0 {
			n.IPAM.Config = byName[name].pools
		}
		s.Networks = append(s.Networks, n)
	}
	slices.Sort(external)
	s.External = external
	l.datas(s, "secret", config.Secrets, func(c composetypes.SecretConfig) composetypes.FileObjectConfig {
		return composetypes.FileObjectConfig(c)
	})
	asFile := map[string]composetypes.SecretConfig{}
	for key, c := range config.Configs {
		asFile[key] = composetypes.SecretConfig(c)
	}
	l.datas(s, "config", asFile, func(c composetypes.SecretConfig) composetypes.FileObjectConfig {
		return composetypes.FileObjectConfig(c)
	})
	return nil
}

// inOrder has services after those that they depend on, by name otherwise: an update of both then
// begins with the one that the other waits for.
func inOrder(stack string, services []swarm.ServiceSpec) []swarm.ServiceSpec {
	var ordered []swarm.ServiceSpec
	seen := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		i := slices.IndexFunc(services, func(s swarm.ServiceSpec) bool { return s.Name == name })
		if i < 0 || seen[name] { // Of a circle the cluster says that it is one.
			return
		}
		seen[name] = true
		on, _ := cluster.LabelDependsOn.Of(services[i].Labels)
		for _, d := range on {
			add(stack + "_" + d.Service)
		}
		ordered = append(ordered, services[i])
	}
	for _, service := range services {
		add(service.Name)
	}
	return ordered
}

func (l *loading) datas(s *Stack, kind string, entries map[string]composetypes.SecretConfig, as func(composetypes.SecretConfig) composetypes.FileObjectConfig) {
	namespace := convert.NewNamespace(s.Name)
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		e := as(entries[key])
		if e.External.External {
			continue
		}
		d := Data{Kind: kind, Key: key, Named: e.Name != ""}
		d.Spec.Name = cmp.Or(e.Name, namespace.Scope(key))
		d.Spec.Labels = convert.AddStackLabel(namespace, e.Labels)
		d.Spec.Data = l.data[kind+" "+key]
		if e.Driver != "" {
			d.Driver = &swarm.Driver{Name: e.Driver, Options: e.DriverOpts}
			d.Spec.Data = []byte{}
		}
		if e.TemplateDriver != "" {
			d.Spec.Templating = &swarm.Driver{Name: e.TemplateDriver}
		}
		s.Data = append(s.Data, d)
	}
}

// references are a service's, by name: docker's own conversion asks a swarm for their IDs at once.
func references(namespace convert.Namespace, service composetypes.ServiceConfig, config *composetypes.Config) (secrets []*swarm.SecretReference, configs []*swarm.ConfigReference, err error) {
	for _, ref := range service.Secrets {
		of, ok := config.Secrets[ref.Source]
		if !ok {
			return nil, nil, fmt.Errorf("undefined secret %q", ref.Source)
		}
		file := swarm.SecretReferenceFileTarget(fileTarget(composetypes.FileReferenceConfig(ref)))
		secrets = append(secrets, &swarm.SecretReference{SecretName: cmp.Or(of.Name, namespace.Scope(ref.Source)), File: &file})
	}
	for _, ref := range service.Configs {
		of, ok := config.Configs[ref.Source]
		if !ok {
			return nil, nil, fmt.Errorf("undefined config %q", ref.Source)
		}
		file := fileTarget(composetypes.FileReferenceConfig(ref))
		configs = append(configs, &swarm.ConfigReference{ConfigName: cmp.Or(of.Name, namespace.Scope(ref.Source)), File: &file})
	}
	// In one order, as docker's own: another one would be another spec.
	slices.SortStableFunc(secrets, func(a, b *swarm.SecretReference) int { return cmp.Compare(a.SecretName, b.SecretName) })
	slices.SortStableFunc(configs, func(a, b *swarm.ConfigReference) int { return cmp.Compare(a.ConfigName, b.ConfigName) })
	return secrets, configs, nil
}

func fileTarget(ref composetypes.FileReferenceConfig) swarm.ConfigReferenceFileTarget {
	mode := uint32(0o444)
	if ref.Mode != nil {
		mode = *ref.Mode
	}
	return swarm.ConfigReferenceFileTarget{Name: cmp.Or(ref.Target, ref.Source), UID: cmp.Or(ref.UID, "0"), GID: cmp.Or(ref.GID, "0"), Mode: os.FileMode(mode)}
}
