package api

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestNewer_IsRefused: what the engine (API 1.41) would ignore doesn't reach it.
func TestNewer_IsRefused(t *testing.T) {
	b, engine := newEngineBench(t)
	mount := func(options string) string {
		return `{"Image":"x","HostConfig":{"Mounts":[{"Type":"volume","Source":"v","Target":"/a"},{"Source":"v","Target":"/b",` + options + `}]}}`
	}
	for _, test := range []struct{ method, path, body, part string }{
		{"POST", "/containers/create", mount(`"Type":"volume","VolumeOptions":{"Subpath":"inner"}`), "HostConfig.Mounts[].VolumeOptions.Subpath needs an engine of API v1.45 or newer; the Docker Engine of this node has v1.41 and would ignore it"},
		{"POST", "/v1.45/containers/create?name=x", mount(`"Type":"volume","volumeoptions":{"SUBPATH":"inner"}`), "Subpath needs"},
		{"POST", "/v1.51/containers/create", mount(`"Type":"bind","BindOptions":{"CreateMountpoint":true}`), "CreateMountpoint needs"},
		{"POST", "/v1.51/containers/create", mount(`"Type":"bind","BindOptions":{"ReadOnlyForceRecursive":true}`), "ReadOnlyForceRecursive needs"},
		{"POST", "/v1.51/containers/create", mount(`"Type":"tmpfs","TmpfsOptions":{"Options":[["exec"]]}`), "TmpfsOptions.Options needs"},
		{"POST", "/v1.51/containers/create", `{"HostConfig":{"Annotations":{"a":"b"}}}`, "HostConfig.Annotations needs"},
		{"POST", "/v1.51/containers/create", `{"Healthcheck":{"StartInterval":5}} trailing`, "Healthcheck.StartInterval needs"},
		{"POST", "/v1.51/containers/create", `{"NetworkingConfig":{"EndpointsConfig":{"web":{"MacAddress":"02:42:ac:11:00:02"}}}}`, "NetworkingConfig.EndpointsConfig.*.MacAddress needs"},
		{"POST", "/v1.51/containers/create", `{"NetworkingConfig":{"EndpointsConfig":{"web":{"GwPriority":-3}}}}`, "GwPriority needs"},
		{"POST", "/v1.51/containers/create", `{"NetworkingConfig":{"EndpointsConfig":{"web":{"DriverOpts":{"com.docker.network.endpoint.sysctls":"x"}}}}}`, "sysctls needs"},
		{"POST", "/v1.51/containers/x/stop?signal=SIGINT", "", "signal needs an engine of API v1.42"},
		{"POST", "/v1.51/networks/create", `{"Name":"n","EnableIPv4":false}`, "EnableIPv4 needs"},
		{"POST", "/v1.51/networks/bridge/connect", `{"Container":"x","EndpointConfig":{"GwPriority":1}}`, "EndpointConfig.GwPriority needs"},
		{"POST", "/v1.51/volumes/create", `{"Name":"v","ClusterVolumeSpec":{"Group":"g"}}`, "ClusterVolumeSpec needs"},
		{"DELETE", "/v1.51/images/registry.example/a/b:1?platforms=x", "", "platforms needs an engine of API v1.50"},
		{"POST", "/v1.51/images/a/b/push?platform=linux", "", "platform needs an engine of API v1.46"},
		{"POST", "/v1.51/build/prune?reserved-space=1", "", "reserved-space needs"},
	} {
		before := len(engine.requests())
		b.do(test.method, test.path, test.body).want(t, 400, test.part)
		for _, request := range engine.requests()[before:] {
			if !strings.HasSuffix(request, "/version") && request != "GET /v1.41/networks" {
				t.Errorf("the engine was asked %s", request)
			}
		}
	}
	// What asks for nothing new goes on as it came, and so does what a client of an older API sends,
	// which can't have meant it.
	for _, test := range [][3]string{
		{"POST", "/v1.51/containers/create", mount(`"Type":"volume","VolumeOptions":{"NoCopy":true,"Subpath":""}`)},
		{"POST", "/v1.51/containers/create", `{"Image":"x","HostConfig":{"CgroupnsMode":"private","ConsoleSize":[24,80],"Annotations":null,"Mounts":[{"BindOptions":{"NonRecursive":true,"CreateMountpoint":false}}]},"NetworkingConfig":{"EndpointsConfig":{"web":{"Aliases":["a"],"MacAddress":"","DNSNames":["x"]}}}}`},
		{"POST", "/v1.43/containers/create", `{"NetworkingConfig":{"EndpointsConfig":{"web":{"MacAddress":"02:42:ac:11:00:02"}}}}`},
		{"POST", "/v1.51/containers/create", `no JSON`},
		{"POST", "/v1.51/networks/create", `{"Name":"n","EnableIPv4":true}`},
		{"POST", "/v1.51/containers/x/stop?t=3", ""},
	} {
		b.do(test[0], test[1], test[2]).want(t, 200, "engine: POST")
	}
	if got := b.do("POST", "/v1.51/images/load", "x"); got.status != 200 {
		t.Errorf("%+v", got)
	}
}

// notRefused are what engines may ignore, and why.
var notRefused = map[string]string{
	"?type": "shapes what is shown", "?shared-size": "shapes what is shown", "?manifests": "shapes what is shown", "?one-shot": "shapes what is shown",
	"?stdin": "is described only since", "?stdout": "is described only since", "?stderr": "is described only since",
	"ConsoleSize": "a terminal's first size, which it is told again",
	"HostConfig.Mounts[].BindOptions.ReadOnlyNonRecursive": "as older engines do",
	"NetworkingConfig.EndpointsConfig.*.DNSNames":          "is told by engines, not asked of them",
	"EndpointConfig.DNSNames":                              "is told by engines, not asked of them",
	"HostConfig.Capabilities":                              "was in no release but 1.40",
	"HostConfig.Mounts[].ImageOptions":                     "of a type of mount that older engines refuse",
	"ConfigOnly":                                           "is described only since", "ConfigFrom": "is described only since", "Scope": "is described only since",
	"IPAM.Config[].AuxiliaryAddresses": "is described only since", "IPAM.Config[].Gateway": "is described only since",
	"IPAM.Config[].IPRange": "is described only since", "IPAM.Config[].Subnet": "is described only since",
}

// TestNewer_KnowsDockersDescriptions compares the table with Docker's description of each version of
// the API: a new version's fields must be put into the table, or be named here.
func TestNewer_KnowsDockersDescriptions(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/docker/docker").Output()
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]string{}
	for route, things := range newerThings {
		for _, thing := range things {
			name := "?" + thing.query
			if thing.field != "" {
				name = strings.ReplaceAll(strings.ReplaceAll(thing.field, "/[]", "[]"), "/", ".")
			}
			table[strings.ReplaceAll(route, "...", "")+" "+name] = thing.since
		}
	}
	before := map[string]map[string]bool{}
	found := 0
	for minor := 39; ; minor++ {
		version := fmt.Sprint("1.", minor)
		data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "docs", "api", "v"+version+".yaml"))
		if err != nil {
			break
		}
		now := describe(t, data)
		for route, things := range now {
			for thing := range things {
				old, known := before[route]
				switch {
				case !known || old[thing]:
				case covered(table, route, thing, version):
					found++
				case reasoned(thing):
				default:
					t.Errorf("API %s has something new in %s: %s", version, route, thing)
				}
			}
		}
		before = now
		if version == APIVersion {
			if found < 20 {
				t.Errorf("only %d of Docker's descriptions were found in the table", found)
			}
			return
		}
	}
	t.Errorf("there is no description of API %s", APIVersion)
}

// covered tells whether the table has the thing, or what it is in.
func covered(table map[string]string, route, thing, version string) bool {
	for name, since := range table {
		if rest, ok := strings.CutPrefix(route+" "+thing, name); ok && since == version && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}

func reasoned(thing string) bool {
	for name := range notRefused {
		if rest, ok := strings.CutPrefix(thing, name); ok && (rest == "" || rest[0] == '.') {
			return true
		}
	}
	return false
}

// describe lists the parameters and fields of each route of the engine.
func describe(t *testing.T, data []byte) map[string]map[string]bool {
	t.Helper()
	var root map[string]any
	if err := yaml.Unmarshal(data, &root); err != nil {
		t.Fatal(err)
	}
	in := func(value any, names ...string) any {
		for _, name := range names {
			object, _ := value.(map[string]any)
			value = object[name]
		}
		return value
	}
	deref := func(value any) any {
		for {
			ref, ok := in(value, "$ref").(string)
			if !ok {
				return value
			}
			value = in(root, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
		}
	}
	routes := map[string]map[string]bool{}
	for path, operations := range root["paths"].(map[string]any) {
		if swarmPaths[firstPart(path)] {
			continue
		}
		for method, operation := range operations.(map[string]any) {
			things := map[string]bool{}
			var walk func(schema any, at string, depth int)
			walk = func(schema any, at string, depth int) {
				schema = deref(schema)
				if depth > 12 {
					return
				}
				parts, _ := in(schema, "allOf").([]any)
				for _, part := range parts {
					walk(part, at, depth+1)
				}
				properties, _ := in(schema, "properties").(map[string]any)
				for name, property := range properties {
					inner := strings.TrimPrefix(at+"."+name, ".")
					things[inner] = true
					walk(property, inner, depth+1)
				}
				if items := in(schema, "items"); items != nil {
					walk(items, at+"[]", depth+1)
				}
				if more, ok := in(schema, "additionalProperties").(map[string]any); ok {
					walk(more, at+".*", depth+1)
				}
			}
			parameters, _ := in(operation, "parameters").([]any)
			for _, parameter := range parameters {
				parameter = deref(parameter)
				switch in(parameter, "in") {
				case "query":
					things["?"+in(parameter, "name").(string)] = true
				case "body":
					walk(in(parameter, "schema"), "", 0)
				}
			}
			routes[strings.ToUpper(method)+" "+path] = things
		}
	}
	return routes
}

// TestContainers_IsTask: the engine knows its own swarm's tasks only.
func TestContainers_IsTask(t *testing.T) {
	b, _ := newEngineBench(t)
	list := func(query string) string {
		t.Helper()
		var containers []struct{ ID string }
		b.do("GET", "/v1.51/containers/json?"+query, nil).want(t, 200, "[").into(t, &containers)
		var ids []string
		for _, c := range containers {
			ids = append(ids, c.ID)
		}
		return strings.Join(ids, " ")
	}
	for query, want := range map[string]string{
		`filters={"is-task":["true"]}`:                "t1 t2",
		`filters={"is-task":{"1":true}}`:              "t1 t2",
		`filters={"is-task":["false"]}`:               "c1 c2",
		`filters={"is-task":["false"]}&limit=1`:       "c1",
		`filters={"is-task":["true"]}&limit=5&size=1`: "t1 t2",
	} {
		if got := list(query); got != want {
			t.Errorf("%s lists %q; want %q", query, got, want)
		}
	}
	b.do("GET", `/containers/json?filters={"is-task":["perhaps"]}`, nil).want(t, 400, "invalid filter 'is-task=[perhaps]'")
	b.do("GET", `/v1.51/containers/json?filters={"name":["x"]}`, nil).want(t, 200, "engine: GET")
	b.do("GET", `/v1.51/containers/json?filters=x`, nil).want(t, 200, "engine: GET")
}
