package stack

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	composeloader "github.com/compose-spec/compose-go/v2/loader"
	composespec "github.com/compose-spec/compose-go/v2/types"
	"github.com/distribution/reference"
	"github.com/docker/cli/cli/compose/convert"
	"github.com/docker/cli/cli/compose/loader"
	composetypes "github.com/docker/cli/cli/compose/types"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/sirupsen/logrus"
	"gopkg.in/yaml.v3"

	"skep/cluster"
)

// apiVersion is what the specs are written for: networks are part of the task's.
const apiVersion = "1.51"

// Source is what a stack is loaded from.
type Source struct {
	// Files are compose files, each over the ones before; "-" is Stdin.
	Files []string
	Stdin io.Reader
	// Name is the stack's; without it the files say it, unless Nameless says that nobody needs to.
	Name     string
	Nameless bool
	// Profiles are those whose services are wanted, beside those of no profile.
	Profiles []string
	// EnvFiles are read instead of the file .env beside the first file.
	EnvFiles []string
	// Environ is the environment, which goes before those files.
	Environ []string
}

// Stack is what files say there should be.
type Stack struct {
	Name string
	// Services are in the order to be deployed in. They refer to networks, secrets and configs by
	// name alone.
	Services []swarm.ServiceSpec
	Networks []Network
	// External are names of networks that others have made.
	External []string
	Data     []Data
	// Warnings say what of the files was ignored.
	Warnings []string
	// file is what was loaded, in the words of compose files.
	file map[string]any
	// recalled is the number of the deployment that it was.
	recalled int
}

// Network is one to make, if there is none of its name.
type Network struct {
	Name string
	network.CreateOptions
}

// Data is a secret or a config that the file has.
type Data struct {
	// Kind is "secret" or "config".
	Kind string
	// Key is its name in the file.
	Key string
	// Spec is a config's, or says of a secret the same. Data never shows.
	Spec swarm.ConfigSpec
	// Driver is who knows a secret's data; nil for all others.
	Driver *swarm.Driver
	// Named is one whose name the file says, so that it can't have another one for other content.
	Named bool
}

// Load reads compose files. It begins nothing and asks nobody.
func Load(ctx context.Context, from Source) (*Stack, error) {
	l := &loading{data: map[string][]byte{}, more: map[string]serviceMore{}, networks: map[string]networkMore{}}
	dict, dir, env, err := l.read(ctx, from, false)
	if err != nil {
		return nil, err
	}
	name := from.Name
	if name == "" {
		if name, _ = dict["name"].(string); name == "" && from.Nameless {
			name = "stack"
		} else if name == "" {
			return nil, errors.New("name the stack: as an argument, or by name: in the file")
		}
	}
	s := &Stack{Name: name}
	if from.Name != "" {
		dict["name"] = name
	}
	if err := choose(dict, from.Profiles, env); err != nil {
		return nil, err
	}
	s.file = clone(dict).(map[string]any)
	for _, secret := range mapping(s.file["secrets"]) {
		delete(mapping(secret), composespec.SecretConfigXValue)
	}
	delete(dict, "name")
	services := mapping(dict["services"])
	for _, key := range slices.Sorted(maps.Keys(services)) {
		if err := l.service(key, mapping(services[key]), services, env); err != nil {
			return nil, fmt.Errorf("service %s: %w", key, err)
		}
	}
	if err := l.takeData(dict, env); err != nil {
		return nil, err
	}
	prune(dict, topKeys, "", l.warn)
	config, err := l.asDocker(dict, dir, env)
	if err != nil {
		return nil, err
	}
	if err := l.specs(s, config); err != nil {
		return nil, err
	}
	s.Warnings = l.warnings
	return s, nil
}

// loading is one Load.
type loading struct {
	warnings []string
	// data is what secrets and configs have that docker's types have no field for, by kind and key.
	data     map[string][]byte
	more     map[string]serviceMore
	networks map[string]networkMore
}

// serviceMore is what Swarm's spec has and docker's compose types haven't.
type serviceMore struct {
	groups, dnsOptions []string
	oomScoreAdj        int64
	// dependsOn is the value of cluster.LabelDependsOn.
	dependsOn string
}

// networkMore is the same of networks.
type networkMore struct {
	ipv6  *bool
	pools []network.IPAMConfig
}

func (l *loading) warn(text string) {
	if !slices.Contains(l.warnings, text) {
		l.warnings = append(l.warnings, text)
	}
}

// Merge writes the files as one, without filling in variables.
func Merge(ctx context.Context, from Source) ([]byte, error) {
	dict, _, _, err := (&loading{}).read(ctx, from, true)
	if err != nil {
		return nil, err
	}
	return yaml.Marshal(dict)
}

// read applies interpolation, includes, extends and overrides, by the Compose Specification's own
// loader.
func (l *loading) read(ctx context.Context, from Source, raw bool) (dict map[string]any, dir string, env map[string]string, err error) {
	if len(from.Files) == 0 {
		return nil, "", nil, errors.New("name a compose file with --compose-file")
	}
	if dir, err = os.Getwd(); err != nil {
		return nil, "", nil, err
	}
	details := composespec.ConfigDetails{}
	for i, name := range from.Files {
		file := composespec.ConfigFile{Filename: name}
		if name == "-" {
			file.Content, err = io.ReadAll(from.Stdin)
		} else if file.Filename, err = filepath.Abs(name); err == nil {
			file.Content, err = os.ReadFile(file.Filename)
			if i == 0 {
				dir = filepath.Dir(file.Filename)
			}
		}
		if err != nil {
			return nil, "", nil, err
		}
		details.ConfigFiles = append(details.ConfigFiles, file)
	}
	env = map[string]string{}
	for _, variable := range from.Environ {
		if key, value, ok := strings.Cut(variable, "="); ok && key != "" {
			env[key] = value
		}
	}
	files := from.EnvFiles
	if beside := filepath.Join(dir, ".env"); len(files) == 0 {
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
			files = []string{beside}
		}
	}
	set, err := dotenv.GetEnvFromFile(env, files)
	if err != nil {
		return nil, "", nil, err
	}
	for key, value := range env {
		set[key] = value
	}
	details.WorkingDir, details.Environment = dir, set
	// The loader says what it thinks of a file by the process' logger.
	heard := &listener{}
	defer heard.listen()()
	dict, err = orWrongKind(func() (map[string]any, error) {
		return composeloader.LoadModelWithContext(ctx, details, func(o *composeloader.Options) {
			o.SkipNormalization, o.SkipConsistencyCheck, o.SkipDefaultValues = true, true, true
			o.SkipInterpolation = raw
			if from.Name != "" {
				o.SetProjectName(composeloader.NormalizeProjectName(from.Name), true)
			} else {
				o.SetProjectName(composeloader.NormalizeProjectName(filepath.Base(dir)), false)
			}
		})
	})
	for _, text := range heard.texts {
		l.warn(text)
	}
	if err != nil {
		return nil, "", nil, err
	}
	return dict, dir, set, nil
}

// orWrongKind is load. Both loaders take some things for what they should be before the schema is
// checked, and panic when they aren't.
func orWrongKind[T any](load func() (T, error)) (loaded T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the file has something of the wrong kind in it, such as a list where a text belongs: %v", p)
		}
	}()
	return load()
}

// listener keeps what is logged while it listens.
type listener struct{ texts []string }

func (h *listener) Levels() []logrus.Level { return logrus.AllLevels }
func (h *listener) Fire(e *logrus.Entry) error {
	if !strings.Contains(e.Message, "the attribute `version` is obsolete") { // Each file of Swarm's has one.
		h.texts = append(h.texts, e.Message)
	}
	return nil
}

// listen begins, and returns what ends it.
func (h *listener) listen() func() {
	logger := logrus.StandardLogger()
	out, hooks := logger.Out, logger.ReplaceHooks(logrus.LevelHooks{})
	logger.SetOutput(io.Discard)
	logger.AddHook(h)
	return func() {
		logger.SetOutput(out)
		logger.ReplaceHooks(hooks)
	}
}

// choose takes out services of profiles that aren't asked for.
func choose(dict map[string]any, profiles []string, env map[string]string) error {
	for _, profile := range strings.Split(env["COMPOSE_PROFILES"], ",") {
		if profile = strings.TrimSpace(profile); profile != "" {
			profiles = append(profiles, profile)
		}
	}
	services := mapping(dict["services"])
	for _, name := range slices.Sorted(maps.Keys(services)) {
		service := mapping(services[name])
		if wanted, ok := service["profiles"].([]any); ok && len(wanted) > 0 && !slices.Contains(profiles, "*") &&
			!slices.ContainsFunc(wanted, func(p any) bool { return slices.Contains(profiles, fmt.Sprint(p)) }) {
			delete(services, name)
			continue
		}
		delete(service, "profiles")
	}
	if len(services) == 0 {
		return errors.New("the file has no services, or none of the profiles that are asked for")
	}
	return nil
}

// service has a service in the words of docker's types.
func (l *loading) service(name string, s, services map[string]any, env map[string]string) error {
	for key, value := range s {
		if value == nil {
			delete(s, key)
		}
	}
	switch {
	case s["label_file"] != nil:
		return errors.New("label_file isn't supported: write the labels into labels")
	case s["provider"] != nil:
		return errors.New("provider isn't supported: a service is an image that nodes run")
	}
	if err := limits(s); err != nil {
		return err
	}
	for _, key := range []string{"environment", "labels", "sysctls"} {
		stringify(s[key])
	}
	stringify(mapping(s["deploy"])["labels"])
	stringify(mapping(s["logging"])["options"])
	more := serviceMore{groups: texts(s["group_add"]), dnsOptions: texts(s["dns_opt"])}
	if adj, ok := s["oom_score_adj"]; ok {
		n, err := strconv.ParseInt(fmt.Sprint(adj), 10, 64)
		if err != nil {
			return fmt.Errorf("oom_score_adj: %w", err)
		}
		more.oomScoreAdj = n
	}
	var err error
	if more.dependsOn, err = l.dependsOn(name, s, services); err != nil {
		return err
	}
	l.more[name] = more
	delete(s, "group_add")
	delete(s, "dns_opt")
	delete(s, "oom_score_adj")

	if err := l.envFiles(name, s, env); err != nil {
		return err
	}
	for _, port := range list(s["ports"]) {
		if err := numbers(mapping(port), "target", "published"); err != nil {
			return fmt.Errorf("ports: %w", err)
		}
	}
	for _, key := range []string{"secrets", "configs"} {
		for _, file := range list(s[key]) {
			if err := fileMode(mapping(file)); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
	}
	for _, volume := range list(s["volumes"]) {
		volume := mapping(volume)
		if volume == nil {
			continue
		}
		// Swarm never makes what isn't there; the short way of writing has it made.
		delete(mapping(volume["bind"]), "create_host_path")
		for _, key := range []string{"bind", "volume", "tmpfs"} {
			if m, ok := volume[key].(map[string]any); ok && len(m) == 0 {
				delete(volume, key)
			}
		}
	}
	return nil
}

// conditions are those of depends_on, in the words of the label that has them.
var conditions = map[string]string{
	"service_started": "started", "service_healthy": "healthy", "service_completed_successfully": "completed",
}

// dependsOn gives what the label says of depends_on, which the scheduler goes by.
func (l *loading) dependsOn(name string, s, services map[string]any) (string, error) {
	var all []string
	on := mapping(s["depends_on"])
	delete(s, "depends_on")
	for _, of := range slices.Sorted(maps.Keys(on)) {
		how := mapping(on[of])
		path := fmt.Sprintf("services.%s.depends_on.%s", name, of)
		word, ok := conditions[fmt.Sprint(how["condition"])]
		switch {
		case !ok:
			return "", fmt.Errorf("depends_on %s: condition %v is none of service_started, service_healthy and service_completed_successfully", of, how["condition"])
		case services[of] == nil:
			if how["required"] != false {
				l.warn(path + " is ignored: there is no such service, or its profile isn't asked for")
			}
			continue
		case how["restart"] == true:
			l.warn(path + ".restart is ignored: tasks go on when what they depend on is restarted")
		}
		all = append(all, of+":"+word)
	}
	return strings.Join(all, ","), nil
}

// limits puts what the Specification has at the service itself where Swarm has it.
func limits(s map[string]any) error {
	for _, m := range []struct{ key, part, word string }{
		{"cpus", "limits", "cpus"}, {"mem_limit", "limits", "memory"}, {"pids_limit", "limits", "pids"}, {"mem_reservation", "reservations", "memory"},
	} {
		value, ok := s[m.key]
		if !ok {
			continue
		}
		delete(s, m.key)
		part := within(s, "deploy", "resources", m.part)
		if old, ok := part[m.word]; ok && fmt.Sprint(old) != fmt.Sprint(value) {
			return fmt.Errorf("%s is %v, and deploy.resources.%s.%s is %v: write one of them", m.key, value, m.part, m.word, old)
		}
		part[m.word] = value
	}
	if scale, ok := s["scale"]; ok {
		delete(s, "scale")
		deploy := within(s, "deploy")
		if old, ok := deploy["replicas"]; ok && fmt.Sprint(old) != fmt.Sprint(scale) {
			return fmt.Errorf("scale is %v, and deploy.replicas is %v: write one of them", scale, old)
		}
		deploy["replicas"] = scale
	}
	for _, part := range []string{"limits", "reservations"} {
		if r := mapping(mapping(mapping(s["deploy"])["resources"])[part]); r != nil {
			for _, word := range []string{"cpus", "memory"} {
				if value, ok := r[word]; ok {
					r[word] = fmt.Sprint(value)
				}
			}
		}
	}
	return nil
}

// envFiles leaves paths, which docker's loader reads. It takes a line as it is, where the
// Specification's reads quotes and variables in it.
func (l *loading) envFiles(name string, s map[string]any, env map[string]string) error {
	var paths []any
	for _, entry := range list(s["env_file"]) {
		e := mapping(entry)
		path, _ := e["path"].(string)
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) && e["required"] == false {
			continue
		} else if err != nil {
			return fmt.Errorf("env_file: %w", err)
		}
		switch e["format"] {
		case nil, "":
			read, err := dotenv.ParseWithLookup(bytes.NewReader(data), func(k string) (string, bool) { v, ok := env[k]; return v, ok })
			if err != nil || differs(data, read) {
				l.warn(fmt.Sprintf("services.%s.env_file: %s is read as docker stack deploy reads it: a line is taken as it is, with quotes, $ and what looks like a comment", name, path))
			}
		case "raw":
		default:
			return fmt.Errorf("env_file: format %v isn't supported: leave it out, or write raw", e["format"])
		}
		paths = append(paths, path)
	}
	delete(s, "env_file")
	if len(paths) > 0 {
		s["env_file"] = paths
	}
	return nil
}

// differs tells whether lines, taken as they are, say something else than read.
func differs(data []byte, read map[string]string) bool {
	for line := range strings.Lines(string(data)) {
		line = strings.TrimLeft(strings.TrimRight(line, "\r\n"), " \t")
		key, value, ok := strings.Cut(line, "=")
		if ok && !strings.HasPrefix(line, "#") && read[key] != value {
			return true
		}
	}
	return false
}

// fileMode is a file's mode as a number: in the Specification it may be a text, in octal.
func fileMode(file map[string]any) error {
	text, ok := file["mode"].(string)
	if !ok {
		return nil
	}
	mode, err := strconv.ParseUint(strings.TrimPrefix(text, "0o"), 8, 32)
	if err != nil {
		return fmt.Errorf("mode %q is no octal number", text)
	}
	file["mode"] = int(mode)
	return nil
}

// numbers has texts of digits as numbers.
func numbers(m map[string]any, keys ...string) error {
	for _, key := range keys {
		text, ok := m[key].(string)
		switch {
		case !ok:
		case text == "":
			delete(m, key)
		default:
			n, err := strconv.Atoi(text)
			if err != nil {
				return fmt.Errorf("%s %q is no port: in this way of writing it must be one", key, text)
			}
			m[key] = n
		}
	}
	return nil
}

// takeData takes out of the file what secrets and configs have that isn't a file, and what
// networks have, for which docker's types have no field.
func (l *loading) takeData(dict map[string]any, env map[string]string) error {
	for _, kind := range []string{"secret", "config"} {
		entries := mapping(dict[kind+"s"])
		for key, entry := range entries {
			e := mapping(entry)
			if e == nil {
				return fmt.Errorf("%s %s is empty: write file, content, environment or external", kind, key)
			}
			delete(e, composespec.SecretConfigXValue)
			stringify(e["labels"])
			var data []byte
			ways := 0
			for _, way := range []string{"file", "content", "environment", "driver", "external"} {
				if v, ok := e[way]; ok && v != false && v != "" {
					ways++
				}
			}
			if ways != 1 {
				return fmt.Errorf("%s %s: write one of file, content, environment and external", kind, key)
			}
			switch {
			case e["environment"] != nil:
				name, _ := e["environment"].(string)
				value, ok := env[name]
				if !ok {
					return fmt.Errorf("%s %s: variable %s of the environment isn't set", kind, key, name)
				}
				data = []byte(value)
			case e["content"] != nil:
				text, _ := e["content"].(string)
				data = []byte(text)
			case e["file"] != nil:
				path, _ := e["file"].(string)
				read, err := os.ReadFile(path)
				if err != nil {
					return fmt.Errorf("%s %s: %w", kind, key, err)
				}
				data = read
			default:
				continue
			}
			delete(e, "environment")
			delete(e, "content")
			l.data[kind+" "+key] = data
		}
	}
	for key, entry := range mapping(dict["networks"]) {
		n := mapping(entry)
		stringify(n["labels"])
		stringify(n["driver_opts"])
		var more networkMore
		if on, ok := n["enable_ipv6"].(bool); ok {
			more.ipv6 = &on
			delete(n, "enable_ipv6")
		}
		for _, pool := range list(mapping(n["ipam"])["config"]) {
			p := mapping(pool)
			text := func(key string) string { v, _ := p[key].(string); delete(p, key); return v }
			subnet, _ := p["subnet"].(string)
			found := network.IPAMConfig{Subnet: subnet, Gateway: text("gateway"), IPRange: text("ip_range")}
			for host, address := range mapping(p["aux_addresses"]) {
				if found.AuxAddress == nil {
					found.AuxAddress = map[string]string{}
				}
				found.AuxAddress[host] = fmt.Sprint(address)
			}
			delete(p, "aux_addresses")
			more.pools = append(more.pools, found)
		}
		l.networks[key] = more
	}
	for _, entry := range mapping(dict["volumes"]) {
		stringify(mapping(entry)["labels"])
		stringify(mapping(entry)["driver_opts"])
	}
	return nil
}

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

// CheckName refuses a name that no stack can have: services are named after it.
func CheckName(name string) error {
	if !stackName.MatchString(name) {
		return fmt.Errorf("%q can't be the name of a stack: letters, digits, - and _ can", name)
	}
	return nil
}

var stackName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]*$`)

// The file is of mappings and lists of anything.

func mapping(v any) map[string]any { m, _ := v.(map[string]any); return m }
func list(v any) []any             { l, _ := v.([]any); return l }

// within is the mapping that keys lead to, made if it isn't there.
func within(m map[string]any, keys ...string) map[string]any {
	for _, key := range keys {
		next := mapping(m[key])
		if next == nil {
			next = map[string]any{}
			m[key] = next
		}
		m = next
	}
	return m
}

// stringify has yes and no of a mapping as texts, which docker's schema wants quoted.
func stringify(v any) {
	for key, value := range mapping(v) {
		if b, ok := value.(bool); ok {
			mapping(v)[key] = strconv.FormatBool(b)
		}
	}
}

func texts(v any) (all []string) {
	if text, ok := v.(string); ok {
		return []string{text}
	}
	for _, element := range list(v) {
		all = append(all, fmt.Sprint(element))
	}
	return all
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for key, value := range v {
			c[key] = clone(value)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, value := range v {
			c[i] = clone(value)
		}
		return c
	}
	return v
}
