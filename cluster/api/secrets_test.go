package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"

	"skep/store"
)

// secret makes a secret and returns its ID.
func (b *bench) secret(name, data string, change ...func(*swarm.SecretSpec)) string {
	b.t.Helper()
	spec := swarm.SecretSpec{Annotations: swarm.Annotations{Name: name}, Data: []byte(data)}
	for _, c := range change {
		c(&spec)
	}
	var made swarm.SecretCreateResponse
	b.do("POST", "/secrets/create", spec).want(b.t, 201, `"ID"`).into(b.t, &made)
	return made.ID
}

// config makes a config and returns its ID.
func (b *bench) config(name, data string) string {
	b.t.Helper()
	var made swarm.ConfigCreateResponse
	spec := swarm.ConfigSpec{Annotations: swarm.Annotations{Name: name}, Data: []byte(data)}
	b.do("POST", "/configs/create", spec).want(b.t, 201, `"ID"`).into(b.t, &made)
	return made.ID
}

func TestSecret_IsNeverShown(t *testing.T) {
	b := newBench(t)
	id := b.secret("key", "canary")
	b.config("site", "canary")
	for _, path := range []string{"/secrets", "/secrets/key", "/secrets/" + id, "/secrets/" + id[:7]} {
		body := b.do("GET", path, nil).want(t, 200, `"Name":"key"`).body
		if strings.Contains(body, "Data") || strings.Contains(body, "canary") || strings.Contains(body, "Y2FuYXJ5") {
			t.Errorf("%s shows the secret: %s", path, body)
		}
	}
	b.do("GET", "/configs/site", nil).want(t, 200, `"Data":"Y2FuYXJ5"`)
	for _, bad := range []string{
		`{"Name":"a","Data":"canary!!"}`, `{"Name":"a","Data":canary}`, `{"Name":"a","canary":1}`, `{"Name":"a","Data":[999]}`, `{"Name":"canary","Data":1}x`,
	} {
		got := b.do("POST", "/secrets/create", bad).want(t, 400, "invalid secret")
		if strings.Contains(got.body, "canary") || strings.Contains(got.body, "999") {
			t.Errorf("%s: the error quotes it: %s", bad, got.body)
		}
	}
	b.do("POST", "/secrets/create", swarm.SecretSpec{Annotations: swarm.Annotations{Name: "canary key"}, Data: []byte("canary")}).want(t, 400, "invalid name")
}

func TestSecret_Limits(t *testing.T) {
	b := newBench(t)
	b.secret("largest", strings.Repeat("x", 500<<10-1))
	b.secret("x", "x")
	b.secret("a-b_c.d9"+strings.Repeat("x", 56), "x")
	b.config("largest", strings.Repeat("x", 1000<<10-1))
	for _, bad := range []struct {
		part string
		spec swarm.SecretSpec
	}{
		{"secret data must be larger than 0 and less than 512000 bytes", swarm.SecretSpec{Annotations: swarm.Annotations{Name: "a"}, Data: make([]byte, 500<<10)}},
		{"secret data must be larger than 0", swarm.SecretSpec{Annotations: swarm.Annotations{Name: "a"}}},
		{"name must be provided", swarm.SecretSpec{Data: []byte("x")}},
		{"invalid name, only 64", swarm.SecretSpec{Annotations: swarm.Annotations{Name: strings.Repeat("a", 65)}, Data: []byte("x")}},
		{"invalid name", swarm.SecretSpec{Annotations: swarm.Annotations{Name: "a/b"}, Data: []byte("x")}},
		{"invalid name", swarm.SecretSpec{Annotations: swarm.Annotations{Name: "a."}, Data: []byte("x")}},
		{"name conflicts", swarm.SecretSpec{Annotations: swarm.Annotations{Name: "X"}, Data: []byte("x")}},
	} {
		status := 400
		if bad.part == "name conflicts" {
			status, bad.part = 409, "secret X already exists"
		}
		b.do("POST", "/secrets/create", bad.spec).want(t, status, bad.part)
	}
	b.do("POST", "/configs/create", swarm.ConfigSpec{Annotations: swarm.Annotations{Name: "a"}, Data: make([]byte, 1000<<10)}).want(t, 400, "config data must be larger than 0 and less than 1024000 bytes")
	driven := swarm.SecretSpec{Annotations: swarm.Annotations{Name: "a"}, Driver: &swarm.Driver{Name: "vault"}}
	b.do("POST", "/secrets/create", driven).want(t, 501, "SecretSpec.Driver")
	templated := swarm.SecretSpec{Annotations: swarm.Annotations{Name: "a"}, Data: []byte("x"), Templating: &swarm.Driver{Name: "jinja"}}
	b.do("POST", "/secrets/create", templated).want(t, 501, "--template-driver golang")
	templated.Templating.Name = "golang"
	b.do("POST", "/v1.36/secrets/create", templated).want(t, 400, "templating is not supported on the specified API version: 1.36")
	b.do("POST", "/secrets/create", templated).want(t, 201, "")
}

// TestTemplates_AreReadAtOnce: a node would reject each task.
func TestTemplates_AreReadAtOnce(t *testing.T) {
	b := newBench(t)
	for text, part := range map[string]string{
		"a\nb{{canary}}": "is not valid: line 2: more isn't said, since that may quote it", "{{": "line 1", strings.Repeat("{{/**/}}", 20_000): "is not valid",
		"a{{range 9}}canary{{end}}": "line 1: range can't be used here", `{{define "canary"}}{{end}}`: "define and block can't be used here",
	} {
		data := swarm.SecretSpec{Annotations: swarm.Annotations{Name: "bad"}, Data: []byte(text), Templating: &swarm.Driver{Name: "golang"}}
		for _, kind := range []string{"secret", "config"} {
			if got := b.do("POST", "/"+kind+"s/create", data).want(t, 400, "the template in the "+kind); !strings.Contains(got.body, part) || strings.Contains(got.body, "canary") {
				t.Errorf("%s %.20q: %s", kind, text, got.body)
			}
		}
		data.Name, data.Templating = fmt.Sprint("plain-", len(text)), nil
		b.do("POST", "/secrets/create", data).want(t, 201, "")
	}
	good := swarm.SecretSpec{Annotations: swarm.Annotations{Name: "good"}, Data: []byte(`{{env "A"}}{{secret "b"}}{{config "c"}}{{join "," "a"}}{{.Service.Name}}`), Templating: &swarm.Driver{Name: "golang"}}
	b.do("POST", "/secrets/create", good).want(t, 201, "")

	for part, change := range map[string]func(*swarm.ContainerSpec){
		`the hostname is not valid: line 1: unclosed action`:             func(c *swarm.ContainerSpec) { c.Hostname = "{{.Node.Hostname" },
		`environment variable A is not valid: line 1: function \"nope\"`: func(c *swarm.ContainerSpec) { c.Env = []string{"B={{.Task.ID}}", "A={{nope}}"} },
		`environment variable S is not valid: line 1: function \"secret`: func(c *swarm.ContainerSpec) { c.Env = []string{`S={{secret "x"}}`} },
		`the hostname is not valid: line 1: range can't be used`:         func(c *swarm.ContainerSpec) { c.Hostname = "{{range 9}}x{{end}}" },
		`mount source is not valid`:                                      func(c *swarm.ContainerSpec) { c.Mounts[0].Source = "{{end}}" },
		`mount target is not valid`:                                      func(c *swarm.ContainerSpec) { c.Mounts[0].Target = "/{{if}}" },
		`volume label l is not valid`:                                    func(c *swarm.ContainerSpec) { c.Mounts[0].VolumeOptions.Labels = map[string]string{"l": "{{1"} },
		`volume driver option o is not val`: func(c *swarm.ContainerSpec) {
			c.Mounts[0].VolumeOptions.DriverConfig.Options = map[string]string{"o": "{{"}
		},
		`invalid mount target, must not have .. in it: /a/../etc`: func(c *swarm.ContainerSpec) { c.Mounts[0].Target = "/a/../etc" },
		`duplicate mount point: /v/./`: func(c *swarm.ContainerSpec) {
			c.Mounts = append(c.Mounts, mount.Mount{Type: "volume", Target: "/v/./"})
		},
	} {
		s := spec("bad")
		s.TaskTemplate.ContainerSpec.Mounts = []mount.Mount{{Type: "volume", Source: "v", Target: "/v", VolumeOptions: &mount.VolumeOptions{DriverConfig: &mount.Driver{Name: "local"}}}}
		change(s.TaskTemplate.ContainerSpec)
		b.do("POST", "/services/create", s).want(t, 400, part)
	}
	b.create(spec("fine", func(s *swarm.ServiceSpec) {
		s.TaskTemplate.ContainerSpec.Env = []string{`A={{.Service.Name}}{{join "-" "a" "b"}}`, "{{=x", "B"}
	}))
}

func TestSecret_Filters(t *testing.T) {
	b := newBench(t)
	label := func(k, v string) func(*swarm.SecretSpec) {
		return func(s *swarm.SecretSpec) { s.Labels = map[string]string{k: v, "all": ""} }
	}
	one, _, three := b.secret("app-one", "x", label("tier", "a")), b.secret("app-two", "x", label("tier", "b")), b.secret("db", "x", label("tier", "b"))
	for filter, want := range map[string]int{
		``: 3, `{"name":["app"]}`: 2, `{"name":{"app":true,"db":true}}`: 3, `{"names":["app"]}`: 0, `{"names":["app-one","db"]}`: 2,
		`{"id":["` + three + `"]}`: 1, `{"id":["` + one[:12] + `"],"name":["db"]}`: 2, `{"id":["` + one + `"],"name":["db"],"label":["tier=b"]}`: 1,
		`{"label":["tier"]}`: 3, `{"label":["tier=b"]}`: 2, `{"label":["tier=b","all"]}`: 2, `{"label":["none"]}`: 0, `{"name":["none"]}`: 0,
	} {
		var secrets []swarm.Secret
		b.do("GET", "/secrets?filters="+filter, nil).want(t, 200, "").into(t, &secrets)
		if len(secrets) != want {
			t.Errorf("%s: %d secrets, want %d", filter, len(secrets), want)
		}
	}
	b.do("GET", `/configs?filters={"names":["a"]}`, nil).want(t, 400, "invalid filter 'names'")
	if got := b.do("GET", `/configs`, nil).want(t, 200, "").body; strings.TrimSpace(got) != "[]" {
		t.Errorf("no configs are listed as %s", got)
	}
}

// TestSecret_IsFoundByPrefix relies on IDs that begin alike.
func TestSecret_IsFoundByPrefix(t *testing.T) {
	b := newBench(t)
	count := map[string]int{}
	for i := range 40 {
		count[b.secret(fmt.Sprint("s", i), "x")[:1]]++
	}
	for prefix, n := range count {
		switch got := b.do("GET", "/secrets/"+prefix, nil); {
		case n == 1:
			got.want(t, 200, "")
		default:
			got.want(t, 400, fmt.Sprintf("secret %s is ambiguous (%d matches found)", prefix, n))
		}
	}
	b.do("GET", "/secrets/-", nil).want(t, 404, "secret - not found")
}

func TestSecret_OnlyLabelsChange(t *testing.T) {
	b := newBench(t)
	for kind, id := range map[string]string{"secret": b.secret("key", "data"), "config": b.config("key", "data")} {
		version := func() uint64 {
			var o swarm.Secret
			b.do("GET", "/"+kind+"s/"+id, nil).want(t, 200, "").into(t, &o)
			return o.Version.Index
		}
		update := func(spec map[string]any) answer {
			return b.do("POST", fmt.Sprintf("/%ss/%s/update?version=%d", kind, id, version()), spec)
		}
		update(map[string]any{"Name": "key", "Labels": map[string]string{"a": "b"}}).want(t, 200, "")
		update(map[string]any{"Name": "key", "Labels": map[string]string{"c": "d"}, "Data": []byte("data")}).want(t, 200, "")
		b.do("GET", "/"+kind+"s/key", nil).want(t, 200, `"Labels":{"c":"d"}`)
		update(map[string]any{"Name": "key", "Data": []byte("other")}).want(t, 400, "only updates to Labels are allowed")
		update(map[string]any{"Name": "other"}).want(t, 400, "only updates to Labels are allowed")
		update(map[string]any{"Name": "key", "Templating": map[string]any{"Name": "golang"}}).want(t, 400, "only updates to Labels are allowed")
		b.do("POST", fmt.Sprintf("/%ss/key/update?version=%d", kind, version()-1), map[string]any{"Name": "key"}).want(t, 500, "update out of sequence")
		b.do("POST", "/"+kind+"s/key/update", map[string]any{"Name": "key"}).want(t, 400, "invalid "+kind+" version")
		b.do("POST", fmt.Sprintf("/%ss/none/update?version=1", kind), map[string]any{"Name": "key"}).want(t, 404, kind+" none not found")
		update(map[string]any{"Name": "key"}).want(t, 200, "")
		b.do("GET", "/"+kind+"s/key", nil).want(t, 200, `"Labels":{}`)
	}
	if string(b.view().SecretNamed("key").Spec.Data) != "data" {
		t.Error("the data was changed")
	}
}

// use makes a spec with references to a secret and a config.
func use(name, secretID, secretName, configID, configName string) swarm.ServiceSpec {
	return spec(name, func(s *swarm.ServiceSpec) {
		c := s.TaskTemplate.ContainerSpec
		if secretID != "" {
			c.Secrets = []*swarm.SecretReference{{SecretID: secretID, SecretName: secretName, File: &swarm.SecretReferenceFileTarget{Name: "k", UID: "0", GID: "0", Mode: 0o444}}}
		}
		if configID != "" {
			c.Configs = []*swarm.ConfigReference{{ConfigID: configID, ConfigName: configName, File: &swarm.ConfigReferenceFileTarget{Name: "/c", Mode: 0o444}}}
		}
	})
}

func TestSecret_InUseStays(t *testing.T) {
	b := newBench(t)
	key, site := b.secret("key", "x"), b.config("site", "x")
	web := b.create(use("web", key, "key", site, "site"))
	b.do("DELETE", "/secrets/key", nil).want(t, 400, "secret 'key' is in use by the following service: web")
	b.create(use("api", key, "key", "", ""))
	b.do("DELETE", "/secrets/"+key, nil).want(t, 400, "secret 'key' is in use by the following services: api, web")
	b.do("DELETE", "/configs/site", nil).want(t, 400, "config 'site' is in use by the following service: web")
	b.addTask(1, web, 1, 1) // still runs, and doesn't matter
	b.do("DELETE", "/services/api", nil).want(t, 200, "")
	b.do("DELETE", "/services/web", nil).want(t, 200, "")
	for _, path := range []string{"/secrets/key", "/configs/" + site} {
		if got := b.do("DELETE", path, nil).want(t, 204, ""); got.body != "" {
			t.Errorf("%s: body %q", path, got.body)
		}
		b.do("DELETE", path, nil).want(t, 404, "not found")
	}
}

func TestReferences_AreChecked(t *testing.T) {
	b := newBench(t)
	key, site := b.secret("key", "x"), b.config("site", "x")
	b.create(use("fine", key, "key", site, "site"))
	for part, s := range map[string]swarm.ServiceSpec{
		"secret not found: gone":  use("a", "0000000000000000000000000", "gone", "", ""),
		"secret not found: other": use("a", key, "other", "", ""),
		"config not found: site":  use("a", "", "", key, "site"),
	} {
		b.do("POST", "/services/create", s).want(t, 400, part)
		b.post("fine", "", func() swarm.ServiceSpec { s.Name = "fine"; return s }()).want(t, 400, part)
	}
	for part, change := range map[string]func(*swarm.ContainerSpec){
		"malformed secret reference":                                                               func(c *swarm.ContainerSpec) { c.Secrets[0].SecretID = "" },
		"malformed config reference":                                                               func(c *swarm.ContainerSpec) { c.Configs[0].ConfigName = "" },
		"malformed secret reference, no target provided":                                           func(c *swarm.ContainerSpec) { c.Secrets[0].File = nil },
		"malformed file config reference, invalid target":                                          func(c *swarm.ContainerSpec) { c.Configs[0].File.Name = "" },
		"secret references 'key' and 'key' have a conflicting tar":                                 func(c *swarm.ContainerSpec) { c.Secrets = append(c.Secrets, c.Secrets[0]) },
		"config references 'key' and 'site' have a conflicting":                                    func(c *swarm.ContainerSpec) { c.Configs[0].File.Name = "/run/secrets/./k" },
		"duplicate mount point: /c/":                                                               func(c *swarm.ContainerSpec) { c.Mounts = []mount.Mount{{Type: "tmpfs", Target: "/c/"}} },
		"target \"/\" is no file":                                                                  func(c *swarm.ContainerSpec) { c.Configs[0].File.Name = "/" },
		"target \"a/\" is no file":                                                                 func(c *swarm.ContainerSpec) { c.Secrets[0].File.Name = "a/" },
		"user and group of the file must be numbers":                                               func(c *swarm.ContainerSpec) { c.Secrets[0].File.UID = "root" },
		"must be numbers, not \"-1\"":                                                              func(c *swarm.ContainerSpec) { c.Configs[0].File.GID = "-1" },
		"target \"../../etc/passwd\" must not have .. in it: a file that isn't below /run/secrets": func(c *swarm.ContainerSpec) { c.Secrets[0].File.Name = "../../etc/passwd" },
		"target \"../etc/passwd\" must not have .. in it: a file that isn't below / needs":         func(c *swarm.ContainerSpec) { c.Configs[0].File.Name = "../etc/passwd" },
		"target \"/run/../etc/passwd\" must not have ..":                                           func(c *swarm.ContainerSpec) { c.Configs[0].File.Name = "/run/../etc/passwd" },
		"target \"a/..\" must not have ..":                                                         func(c *swarm.ContainerSpec) { c.Secrets[0].File.Name = "a/.." },
		"mode 04755 must be from 0 to 0777":                                                        func(c *swarm.ContainerSpec) { c.Secrets[0].File.Mode = 0o4755 },
	} {
		s := use("bad", key, "key", site, "site")
		change(s.TaskTemplate.ContainerSpec)
		escaped, _ := json.Marshal(part)
		b.do("POST", "/services/create", s).want(t, 400, strings.Trim(string(escaped), `"`))
	}
	for i, name := range []string{"/etc/app/key", "..key", "a..b/c", "sub/key"} {
		s := use(fmt.Sprint("good-", i), key, "key", site, "site")
		s.TaskTemplate.ContainerSpec.Secrets[0].File.Name = name
		b.create(s)
	}
	s := use("bad", key, "key", site, "site")
	s.TaskTemplate.ContainerSpec.Configs[0].File, s.TaskTemplate.ContainerSpec.Configs[0].Runtime = nil, &swarm.ConfigReferenceRuntimeTarget{}
	b.do("POST", "/services/create", s).want(t, 501, "credential specs")
}

func TestRollback_ToWhatIsGoneIsRefused(t *testing.T) {
	b := newBench(t)
	key := b.secret("key", "x")
	id := b.create(use("web", key, "key", "", ""))
	b.post(id, "", use("web", "", "", "", "")).want(t, 200, "")
	b.do("DELETE", "/secrets/key", nil).want(t, 204, "")
	b.secret("key", "x") // another of the same name isn't the same
	before := b.inspect(id)
	b.post(id, "rollback=previous", swarm.ServiceSpec{}).want(t, 400, "service web can't go back to its previous spec: secret not found: key")
	if after := b.inspect(id); after.Version != before.Version {
		t.Error("the service was changed")
	}
}

func TestEvents_OfSecretsAndConfigs(t *testing.T) {
	b := newBench(t)
	b.record()
	before := b.view()
	id := b.secret("key", "canary")
	b.do("POST", fmt.Sprintf("/secrets/key/update?version=%d", b.view().Secret(id).Version), map[string]any{"Name": "key", "Labels": map[string]string{"a": "b"}}).want(t, 200, "")
	b.do("DELETE", "/secrets/key", nil).want(t, 204, "")
	b.config("site", "x")
	until(t, "the last event", func() bool { return len(b.replay(`filters={"type":["config"]}`)) == 1 })
	var got []string
	for _, m := range b.replay(`filters={"secret":["key"]}`) {
		got = append(got, fmt.Sprintf("%s %s %s %s", m.Type, m.Action, m.Actor.Attributes["name"], m.Scope))
	}
	if want := "secret create key swarm\nsecret update key swarm\nsecret remove key swarm"; strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	if got := b.replay(`filters={"config":["site"]}`); len(got) != 1 || got[0].Action != "create" {
		t.Errorf("%+v", got)
	}
	after := b.view()
	if got := difference(before, after); len(got) != 1 || got[0].Before != nil {
		t.Errorf("difference = %+v", got)
	}
	if got := difference(after, before); len(got) != 1 || got[0] != (store.Change{Before: after.ConfigNamed("site")}) {
		t.Errorf("difference back = %+v", got)
	}
}
