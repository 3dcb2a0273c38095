package docker

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// leaf is one field of a spec that holds a value and no further fields.
type leaf struct {
	path string
	// at gives the field of a spec, and makes what it is in on the way.
	at func(root reflect.Value) reflect.Value
}

// leaves are all fields of a type, to the last.
func leaves(t reflect.Type) []leaf {
	var all []leaf
	var walk func(t reflect.Type, path string, at func(reflect.Value) reflect.Value)
	walk = func(t reflect.Type, path string, at func(reflect.Value) reflect.Value) {
		switch {
		case t.Kind() == reflect.Pointer && t.Elem().Kind() == reflect.Struct:
			walk(t.Elem(), path, func(root reflect.Value) reflect.Value {
				v := at(root)
				if v.IsNil() {
					v.Set(reflect.New(t.Elem()))
				}
				return v.Elem()
			})
		case t.Kind() == reflect.Slice && (t.Elem().Kind() == reflect.Struct || t.Elem().Kind() == reflect.Pointer):
			walk(t.Elem(), path+"[]", func(root reflect.Value) reflect.Value {
				v := at(root)
				if v.Len() == 0 {
					v.Set(reflect.MakeSlice(t, 1, 1))
				}
				return v.Index(0)
			})
		case t.Kind() == reflect.Struct && t.NumField() > 0:
			for _, f := range reflect.VisibleFields(t) {
				if len(f.Index) > 1 || f.Anonymous && f.Type.Kind() != reflect.Struct {
					continue // found in what is embedded
				}
				name := strings.TrimPrefix(path+"."+f.Name, ".")
				if f.Anonymous {
					name = path
				}
				walk(f.Type, name, func(root reflect.Value) reflect.Value { return at(root).FieldByIndex(f.Index) })
			}
		default:
			all = append(all, leaf{path, at})
		}
	}
	walk(t, "", func(root reflect.Value) reflect.Value { return root })
	return all
}

// fill puts something into a field.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("x")
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(7)
	case reflect.Float32, reflect.Float64:
		v.SetFloat(0.5)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Uint8:
		v.SetUint('x')
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.SetMapIndex(key, value)
	case reflect.Struct: // without fields
	default:
		panic("no sample for a " + v.Kind().String())
	}
}

const (
	byScheduler = "the scheduler's: it decides how many tasks there are, where and when"
	byAgent     = "the agent's: it asks the driver to stop with it"
	byFiles     = "agent.Assignment.Files: its test, and the conformance of drivers"
	byNetworks  = "the API moves it to TaskTemplate.Networks: cluster/api, TestNetworks_OfTheEngines"
)

// elsewhere are the fields of a service that make no difference to the container
// itself, with the reason why.
var elsewhere = map[string]string{
	"Mode.Replicated.Replicas":                                     byScheduler,
	"Mode.Global":                                                  byScheduler,
	"Mode.ReplicatedJob.MaxConcurrent":                             byScheduler,
	"Mode.ReplicatedJob.TotalCompletions":                          byScheduler,
	"Mode.GlobalJob":                                               byScheduler,
	"UpdateConfig.Parallelism":                                     byScheduler,
	"UpdateConfig.Delay":                                           byScheduler,
	"UpdateConfig.FailureAction":                                   byScheduler,
	"UpdateConfig.Monitor":                                         byScheduler,
	"UpdateConfig.MaxFailureRatio":                                 byScheduler,
	"UpdateConfig.Order":                                           byScheduler,
	"RollbackConfig.Parallelism":                                   byScheduler,
	"RollbackConfig.Delay":                                         byScheduler,
	"RollbackConfig.FailureAction":                                 byScheduler,
	"RollbackConfig.Monitor":                                       byScheduler,
	"RollbackConfig.MaxFailureRatio":                               byScheduler,
	"RollbackConfig.Order":                                         byScheduler,
	"TaskTemplate.RestartPolicy.Condition":                         byScheduler,
	"TaskTemplate.RestartPolicy.Delay":                             byScheduler,
	"TaskTemplate.RestartPolicy.MaxAttempts":                       byScheduler,
	"TaskTemplate.RestartPolicy.Window":                            byScheduler,
	"TaskTemplate.Placement.Constraints":                           byScheduler,
	"TaskTemplate.Placement.Preferences[].Spread.SpreadDescriptor": byScheduler,
	"TaskTemplate.Placement.MaxReplicas":                           byScheduler,
	"TaskTemplate.Placement.Platforms[].Architecture":              byScheduler,
	"TaskTemplate.Placement.Platforms[].OS":                        byScheduler,
	"TaskTemplate.Resources.Reservations.NanoCPUs":                 byScheduler,
	"TaskTemplate.Resources.Reservations.MemoryBytes":              byScheduler,
	"TaskTemplate.Resources.Reservations.GenericResources[].NamedResourceSpec.Kind":     byScheduler,
	"TaskTemplate.Resources.Reservations.GenericResources[].NamedResourceSpec.Value":    byScheduler,
	"TaskTemplate.Resources.Reservations.GenericResources[].DiscreteResourceSpec.Kind":  byScheduler,
	"TaskTemplate.Resources.Reservations.GenericResources[].DiscreteResourceSpec.Value": byScheduler,
	"TaskTemplate.ForceUpdate": "makes a new revision, so tasks are replaced (cluster.UpdateService)",

	"Networks[].Target":         byNetworks,
	"Networks[].Aliases":        byNetworks,
	"Networks[].DriverOpts":     byNetworks,
	"EndpointSpec.Mode":         "the names': agent/network/dns",
	"EndpointSpec.Ports[].Name": "a word of the user's",

	"TaskTemplate.ContainerSpec.StopGracePeriod":         byAgent,
	"TaskTemplate.ContainerSpec.Mounts[].ClusterOptions": "the API refuses it: cluster/api, TestRefuseService",

	"TaskTemplate.ContainerSpec.Secrets[].File.Name":  byFiles,
	"TaskTemplate.ContainerSpec.Secrets[].File.UID":   byFiles,
	"TaskTemplate.ContainerSpec.Secrets[].File.GID":   byFiles,
	"TaskTemplate.ContainerSpec.Secrets[].File.Mode":  byFiles,
	"TaskTemplate.ContainerSpec.Secrets[].SecretID":   byFiles,
	"TaskTemplate.ContainerSpec.Secrets[].SecretName": byFiles,
	"TaskTemplate.ContainerSpec.Configs[].File.Name":  byFiles,
	"TaskTemplate.ContainerSpec.Configs[].File.UID":   byFiles,
	"TaskTemplate.ContainerSpec.Configs[].File.GID":   byFiles,
	"TaskTemplate.ContainerSpec.Configs[].File.Mode":  byFiles,
	"TaskTemplate.ContainerSpec.Configs[].Runtime":    byFiles,
	"TaskTemplate.ContainerSpec.Configs[].ConfigID":   byFiles,
	"TaskTemplate.ContainerSpec.Configs[].ConfigName": byFiles,
}

// sample has values where any word or number won't do.
var sample = map[string]any{
	"TaskTemplate.Runtime":                                  swarm.RuntimePlugin,
	"TaskTemplate.ContainerSpec.Hosts":                      []string{"10.0.0.1 db"},
	"TaskTemplate.ContainerSpec.Privileges.Seccomp.Mode":    swarm.SeccompModeUnconfined,
	"TaskTemplate.ContainerSpec.Privileges.AppArmor.Mode":   swarm.AppArmorModeDisabled,
	"TaskTemplate.ContainerSpec.StopGracePeriod":            time.Second,
	"TaskTemplate.ContainerSpec.Mounts[].Type":              mount.TypeTmpfs,
	"TaskTemplate.ContainerSpec.Mounts[].Source":            "/other",
	"TaskTemplate.ContainerSpec.Mounts[].Target":            "/other",
	"TaskTemplate.ContainerSpec.Mounts[].TmpfsOptions.Mode": os.FileMode(0o700),
	"Labels":                           map[string]string{cluster.LabelHost + "privileged": "true"},
	"EndpointSpec.Ports[].Protocol":    swarm.PortConfigProtocolUDP,
	"EndpointSpec.Ports[].PublishMode": swarm.PortConfigPublishModeIngress,
}

// sound makes a spec to change one field of, which the driver takes as it is.
func sound(path string) *swarm.ServiceSpec {
	s := &swarm.ServiceSpec{TaskTemplate: swarm.TaskSpec{ContainerSpec: &swarm.ContainerSpec{Image: "web:1"}}}
	c := s.TaskTemplate.ContainerSpec
	switch {
	case strings.Contains(path, "Mounts[].VolumeOptions"):
		c.Mounts = []mount.Mount{{Type: mount.TypeVolume, Target: "/t"}}
	case strings.Contains(path, "Mounts[].TmpfsOptions"):
		c.Mounts = []mount.Mount{{Type: mount.TypeTmpfs, Target: "/t"}}
	case strings.Contains(path, "Mounts[].ImageOptions"):
		c.Mounts = []mount.Mount{{Type: mount.TypeImage, Source: "web:1", Target: "/t"}}
	case strings.Contains(path, "Mounts[]"):
		c.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: "/s", Target: "/t"}}
	case strings.Contains(path, "Seccomp.Profile"):
		c.Privileges = &swarm.Privileges{Seccomp: &swarm.SeccompOpts{Mode: swarm.SeccompModeCustom, Profile: []byte("{}")}}
	case strings.Contains(path, "Ports[]"):
		s.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{{TargetPort: 80, Protocol: "tcp", PublishMode: "host"}}}
	}
	return s
}

// made is what the driver makes of a spec, as JSON, or its refusal.
func made(t *testing.T, d *Driver, s *swarm.ServiceSpec) (string, error) {
	t.Helper()
	settings, err := d.settings(assignment(func(r *cluster.Revision) {
		r.ServiceName, r.ServiceLabels, r.Spec, r.Endpoint = s.Name, s.Labels, s.TaskTemplate, s.EndpointSpec
	}))
	if err != nil {
		return "", err
	}
	data, err := json.Marshal([]any{settings.config, settings.host, settings.network})
	if err != nil {
		t.Fatal(err)
	}
	return string(data), nil
}

// driverOf returns a driver on an engine of an API version, which answers pings only.
func driverOf(t *testing.T, version string) *Driver {
	t.Helper()
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", version)
		if !strings.HasSuffix(r.URL.Path, "/_ping") {
			http.Error(w, `{"message":"not here"}`, http.StatusNotImplemented)
		}
	}))
	t.Cleanup(engine.Close)
	d, err := New(Config{Host: "tcp://" + engine.Listener.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// What an engine is too old for, and would leave out, is the end of the task.
func TestFields_OfNewerEngines(t *testing.T) {
	old, newer := driverOf(t, "1.41"), driverOf(t, "1.51")
	for name, change := range map[string]func(*swarm.ContainerSpec){
		"health-check start interval": func(c *swarm.ContainerSpec) { c.Healthcheck = &container.HealthConfig{StartInterval: time.Second} },
		"bind-create-src":             func(c *swarm.ContainerSpec) { c.Mounts[0].BindOptions = &mount.BindOptions{CreateMountpoint: true} },
		"bind-recursive=readonly": func(c *swarm.ContainerSpec) {
			c.Mounts[0].BindOptions = &mount.BindOptions{ReadOnlyForceRecursive: true}
		},
		"volume-subpath": func(c *swarm.ContainerSpec) {
			c.Mounts[0] = mount.Mount{Type: "volume", Target: "/t", VolumeOptions: &mount.VolumeOptions{Subpath: "s"}}
		},
		"tmpfs-options": func(c *swarm.ContainerSpec) {
			c.Mounts[0] = mount.Mount{Type: "tmpfs", Target: "/t", TmpfsOptions: &mount.TmpfsOptions{Options: [][]string{{"exec"}}}}
		},
		"mount of an image": func(c *swarm.ContainerSpec) {
			c.Mounts[0] = mount.Mount{Type: "image", Source: "web:1", Target: "/t", ImageOptions: &mount.ImageOptions{Subpath: "s"}}
		},
	} {
		s := sound("Mounts[]")
		change(s.TaskTemplate.ContainerSpec)
		if _, err := made(t, old, s); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s on an old engine: %v", name, err)
		}
		if _, err := made(t, newer, s); err != nil {
			t.Errorf("%s on a new engine: %v", name, err)
		}
	}
}

// TestFields_NoneIsIgnored looks at every field that a service's spec has, to the
// last leaf: setting it must change the container, or be refused, or the field is
// listed above with who sees to it. A field that a newer Docker brings fails here
// until somebody has decided.
func TestFields_NoneIsIgnored(t *testing.T) {
	d := driverOf(t, "1.51")
	seen := map[string]bool{}
	for _, l := range leaves(reflect.TypeFor[swarm.ServiceSpec]()) {
		seen[l.path] = true
		base := sound(l.path)
		l.at(reflect.ValueOf(base).Elem()) // with what the field is in, but without the field
		plain, plainErr := made(t, d, base)

		changed := sound(l.path)
		field := l.at(reflect.ValueOf(changed).Elem())
		if value := reflect.ValueOf(sample[l.path]); !value.IsValid() {
			fill(field)
		} else if field.Kind() == reflect.Pointer {
			field.Set(reflect.New(field.Type().Elem()))
			field.Elem().Set(value)
		} else {
			field.Set(value)
		}
		after, err := made(t, d, changed)
		acts := err != nil || plainErr != nil || after != plain
		switch reason := elsewhere[l.path]; {
		case !acts && reason == "":
			t.Errorf("%s is accepted and ignored: translate it, refuse it, or say in elsewhere who sees to it", l.path)
		case acts && reason != "" && err == nil:
			t.Errorf("%s changes the container: it needs no reason why not", l.path)
		}
	}
	for path := range elsewhere {
		if !seen[path] {
			t.Errorf("%s is no field of a service", path)
		}
	}
	for path := range sample {
		if !seen[path] {
			t.Errorf("%s is no field of a service", path)
		}
	}
}

// The test above is worth what its list of fields is.
func TestFields_AreAllFound(t *testing.T) {
	var paths []string
	for _, l := range leaves(reflect.TypeFor[swarm.ServiceSpec]()) {
		paths = append(paths, l.path)
	}
	for _, path := range []string{
		"Name", "Labels", "TaskTemplate.ContainerSpec.Env", "TaskTemplate.ContainerSpec.Mounts[].VolumeOptions.DriverConfig.Options",
		"TaskTemplate.ContainerSpec.Ulimits[].Soft", "TaskTemplate.ContainerSpec.Mounts[].TmpfsOptions.Options", "TaskTemplate.RestartPolicy.Window",
		"TaskTemplate.Networks[].Aliases", "TaskTemplate.PluginSpec.Privileges[].Value", "EndpointSpec.Ports[].PublishMode",
	} {
		if !slices.Contains(paths, path) {
			t.Errorf("%s isn't among the %d fields found: %v", path, len(paths), paths)
		}
	}
}
