package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	composeloader "github.com/compose-spec/compose-go/v2/loader"
	composespec "github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/sirupsen/logrus"
	"gopkg.in/yaml.v3"
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

// CheckName refuses a name that no stack can have: services are named after it.
func CheckName(name string) error {
	if !stackName.MatchString(name) {
		return fmt.Errorf("%q can't be the name of a stack: letters, digits, - and _ can", name)
	}
	return nil
}

var stackName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_-]*$`)

// The file is of mappings and lists of anything.
