package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"skep/cluster"
	"skep/store"
)

// What a client with odd input can do to a cluster, and what it can't.

// listen serves the bench on a port.
func (b *bench) listen() (base string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, listener, b.handler) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
	return "http://" + listener.Addr().String()
}

// send makes a request of a listener.
func send(t testing.TB, method, url string, body any, headers ...string) answer {
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(method, url, strings.NewReader(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	client := http.Client{Timeout: time.Minute}
	defer client.CloseIdleConnections()
	got, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{got.StatusCode, got.Header, string(text)}
}

// get asks for a path as it stands, which Go's client would put right.
func get(t testing.TB, base, path string) answer {
	t.Helper()
	return exchange(t, base, "GET", path)
}

func exchange(t testing.TB, base, method, path string) answer {
	t.Helper()
	address := strings.TrimPrefix(base, "http://")
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", method, path); err != nil {
		t.Fatal(err)
	}
	got, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{got.StatusCode, got.Header, string(text)}
}

// Paths that would be others once they are cleaned are refused alike by the leader, by a
// manager that would forward them, and by a worker; the engine never sees dots.
func TestAttack_PathsThatAreNotClean(t *testing.T) {
	e := newFakeEngine(t)
	p := newPair(t)
	worker := newBench(t)
	worker.node.manager = nil
	bases := map[string]string{}
	for who, b := range map[string]*bench{"leader": p.other, "follower": p.here, "worker": worker} {
		b.server.engine = newEngine("unix://"+e.path, b.server.Log)
		bases[who] = b.listen()
	}
	seen := len(e.requests())
	for _, path := range []string{
		"/services/..", "/services/.", "/services/%2e%2e", "/services/../services", "/v1.41/services/..", "/v1.41/../services", "/services/a/../../nodes",
		"//services", "/v1.41//services", "/services//logs", "/../v1.41/services", "/x/../services",
		"/distribution/..%2f../json", "/distribution/..%2f..%2fcontainers/json", "/distribution/a/%2e%2e/%2e%2e/json", "/distribution//json",
		"/containers/../swarm", "/containers/%2e%2e%2fswarm/json", "/containers/..", "/containers/./json",
	} {
		for who, base := range bases {
			if got := get(t, base, path); got.status != 400 || !strings.Contains(got.body, "invalid path") {
				t.Errorf("%s: %s: %d %s", who, path, got.status, got.body)
			}
		}
	}
	if asked := e.requests()[seen:]; len(asked) > 0 {
		t.Errorf("the engine was asked %q", asked)
	}
	if n := p.asked.Load(); n > 0 {
		t.Errorf("the leader was asked %d times", n)
	}
	// Names with a slash, as lists have them, are the engine's matter.
	get(t, bases["leader"], "/containers//web/json").want(t, 200, "")
	get(t, bases["leader"], "/images/localhost:5000%2Fweb:1/json").want(t, 200, "")
}

// Networks of a swarm that the engine itself is in aren't taken for the cluster's.
func TestAttack_NetworksOfTheEnginesSwarm(t *testing.T) {
	b, e := newEngineBench(t)
	base := b.listen()
	e.networks = []network.Inspect{{ID: "one", Name: "own", Scope: "local"}, {ID: "two", Name: "foreign", Scope: "swarm"}}
	for _, filters := range []string{"", "{}", `{"scope":["swarm","local"]}`, `{"scope":{"local":true,"swarm":true}}`, `{"scope":["swarm"]}`} {
		if got := get(t, base, "/networks?filters="+url.QueryEscape(filters)).want(t, 200, "["); strings.Contains(got.body, "foreign") {
			t.Errorf("%s: %s", filters, got.body)
		}
	}
}

func numbered(n int, text string) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprint(text, i))
	}
	return list
}

func labelled(n int, text string) map[string]string {
	labels := map[string]string{}
	for i := range n {
		labels[fmt.Sprint(text, i)] = ""
	}
	return labels
}

func TestAttack_SpecsThatAreTooLarge(t *testing.T) {
	b := stocked(t)
	base := b.listen()
	long := strings.Repeat("x", 1<<20)
	for name, change := range map[string]func(s *swarm.ServiceSpec, c *swarm.ContainerSpec){
		"Labels":               func(s *swarm.ServiceSpec, _ *swarm.ContainerSpec) { s.Labels = labelled(120_000, "") },
		"a label's name":       func(s *swarm.ServiceSpec, _ *swarm.ContainerSpec) { s.Labels = map[string]string{long: ""} },
		"a label's value":      func(s *swarm.ServiceSpec, _ *swarm.ContainerSpec) { s.Labels = map[string]string{"a": long} },
		"ContainerSpec.Labels": func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) { c.Labels = labelled(120_000, "") },
		"Env":                  func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) { c.Env = numbered(100_000, "A=") },
		"Args":                 func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) { c.Args = numbered(100_000, "") },
		"an argument":          func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) { c.Args = []string{long} },
		"many long arguments":  func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) { c.Args = numbered(30, long[:30_000]) },
		"NUL in a command":     func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) { c.Command = []string{"sh\x00"} },
		"NUL in an argument":   func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) { c.Args = []string{"a\x00b"} },
		"NUL in a host's name": func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) { c.Hostname = "a\x00" },
		"ESC in a variable":    func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) { c.Env = []string{"A\x1b[2J=b"} },
		"ESC in a user":        func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) { c.User = "\x1b[2J" },
		"ESC in a label":       func(s *swarm.ServiceSpec, _ *swarm.ContainerSpec) { s.Labels = map[string]string{"a": "\x1b[2J"} },
		"a line of hosts more": func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) { c.Hosts = []string{"10.0.0.1 a\n10.0.0.2 b"} },
		"hosts":                func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) { c.Hosts = numbered(50_000, "10.0.0.1 a") },
		"a search domain": func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) {
			c.DNSConfig.Search = []string{"a\nnameserver 10.0.0.1"}
		},
		"groups":       func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) { c.Groups = numbered(100_000, "") },
		"capabilities": func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) { c.CapabilityAdd = numbered(100_000, "CAP_") },
		"sysctls":      func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) { c.Sysctls = labelled(50_000, "net.") },
		"mounts": func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) {
			for i := range 20_000 {
				c.Mounts = append(c.Mounts, mount.Mount{Type: mount.TypeTmpfs, Target: fmt.Sprint("/", i)})
			}
		},
		"a mount's target": func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) {
			c.Mounts = []mount.Mount{{Type: mount.TypeTmpfs, Target: "/" + long}}
		},
		"secrets": func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) {
			for i := range 10_000 {
				c.Secrets = append(c.Secrets, &swarm.SecretReference{SecretID: secretID, SecretName: "key", File: &swarm.SecretReferenceFileTarget{Name: fmt.Sprint(i)}})
			}
		},
		"configs": func(_ *swarm.ServiceSpec, c *swarm.ContainerSpec) {
			for i := range 10_000 {
				c.Configs = append(c.Configs, &swarm.ConfigReference{ConfigID: configID, ConfigName: "conf", File: &swarm.ConfigReferenceFileTarget{Name: fmt.Sprint("/", i)}})
			}
		},
		"ports": func(s *swarm.ServiceSpec, _ *swarm.ContainerSpec) {
			for i := range 10_000 {
				s.EndpointSpec.Ports = append(s.EndpointSpec.Ports, swarm.PortConfig{TargetPort: uint32(i + 1), PublishMode: swarm.PortConfigPublishModeHost})
			}
		},
		"a port's name": func(s *swarm.ServiceSpec, _ *swarm.ContainerSpec) {
			s.EndpointSpec.Ports = []swarm.PortConfig{{Name: long, TargetPort: 1, PublishMode: swarm.PortConfigPublishModeHost}}
		},
		"constraints": func(s *swarm.ServiceSpec, _ *swarm.ContainerSpec) {
			s.TaskTemplate.Placement.Constraints = numbered(20_000, "node.id!=")
		},
		"preferences": func(s *swarm.ServiceSpec, _ *swarm.ContainerSpec) {
			for i := range 10_000 {
				s.TaskTemplate.Placement.Preferences = append(s.TaskTemplate.Placement.Preferences, swarm.PlacementPreference{Spread: &swarm.SpreadOver{SpreadDescriptor: fmt.Sprint("node.labels.", i)}})
			}
		},
		"platforms": func(s *swarm.ServiceSpec, _ *swarm.ContainerSpec) {
			s.TaskTemplate.Placement.Platforms = make([]swarm.Platform, 100_000)
		},
		"log options": func(s *swarm.ServiceSpec, _ *swarm.ContainerSpec) {
			s.TaskTemplate.LogDriver = &swarm.Driver{Name: "json-file", Options: labelled(50_000, "")}
		},
		"resources": func(s *swarm.ServiceSpec, _ *swarm.ContainerSpec) {
			for i := range 10_000 {
				s.TaskTemplate.Resources.Reservations.GenericResources = append(s.TaskTemplate.Resources.Reservations.GenericResources,
					swarm.GenericResource{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: fmt.Sprint("a", i), Value: 1}})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := b.view().Index()
			for path, of := range map[string]string{"/services/create": "new", "/services/" + serviceID + "/update": "web"} {
				wanted := spec(of)
				change(&wanted, wanted.TaskTemplate.ContainerSpec)
				version := fmt.Sprint("?version=", b.view().Service(serviceID).Version)
				got := send(t, "POST", base+path+version, wanted)
				if got.status != 400 {
					t.Errorf("%s: %d %.200s", path, got.status, got.body)
				} else if got.want(t, 400, ""); len(got.body) > 1000 {
					t.Errorf("%s: %d bytes of reason: %.200s", path, len(got.body), got.body)
				}
			}
			if b.view().Index() != before {
				t.Error("something was written")
			}
		})
	}
}

// What a list of tasks of the largest service takes: little memory, and a place among the
// large lists, few as the tasks are.
func TestAttack_ListOfTheLargestTasks(t *testing.T) {
	const tasks = 400
	b := crowded(t, tasks)
	largest := spec("web", func(s *swarm.ServiceSpec) {
		s.TaskTemplate.ContainerSpec.Args = numbered(250, strings.Repeat("x", 1000))
	})
	b.post("web", "", largest).want(t, 200, "")
	revision := b.inspect("web").ID
	b.update(func(tx *store.Tx) error {
		for i := range tasks {
			next := *tx.Task(taskID(i))
			next.Revision = tx.Service(revision).Revision
			if err := tx.Put(&next); err != nil {
				return err
			}
		}
		return nil
	})
	base := b.listen()
	list := func() (size int64, err error) {
		got, err := http.Get(base + "/tasks")
		if err != nil {
			return 0, err
		}
		defer got.Body.Close()
		defer http.DefaultClient.CloseIdleConnections()
		return io.Copy(io.Discard, got.Body)
	}
	b.server.listWait = 10 * time.Millisecond
	for range maxLargeLists {
		b.server.lists <- struct{}{}
	}
	if size, err := list(); err == nil || size > 2*largeListBytes {
		t.Errorf("beside %d large lists it has %d MB: %v", maxLargeLists, size>>20, err)
	}
	for range maxLargeLists {
		<-b.server.lists
	}
	before, most := heapNow(), uint64(0)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				most = max(most, heapNow())
			}
		}
	}()
	size, err := list()
	close(stop)
	<-stopped
	if err != nil || size < tasks*250*1000 {
		t.Errorf("%d MB: %v", size>>20, err)
	}
	if took := int64(most) - int64(before); took > 16<<20 {
		t.Errorf("%d MB are in use for a list of %d MB", took>>20, size>>20)
	}
	t.Logf("%d MB, %d kB in use", size>>20, (int64(most)-int64(before))>>10)
}

// TestAttack_PropertyWhatIsStoredIsBounded changes parts of requests that would be
// accepted into anything at all. Whatever comes of it, what is in the database is short.
func TestAttack_PropertyWhatIsStoredIsBounded(t *testing.T) {
	var b *bench
	rapid.Check(t, func(rt *rapid.T) {
		if b == nil || rapid.IntRange(0, 9).Draw(rt, "anew") == 0 {
			b = stocked(t)
		}
		view := b.view()
		version := func(n uint64) string { return fmt.Sprint("?version=", n) }
		web := view.Service(serviceID)
		service := func() any { s := spec("web"); return &s }
		path, body := "", any(nil)
		switch rapid.SampledFrom([]string{"create", "service", "node", "secret", "config", "swarm", "new secret", "new config"}).Draw(rt, "what") {
		case "create":
			path, body = "/services/create", service()
		case "service":
			path, body = "/services/"+serviceID+"/update"+version(web.Version), service()
		case "node":
			node := view.Node(nodeID(2))
			path, body = "/nodes/"+node.ID+"/update"+version(node.Version), &swarm.NodeSpec{Role: "worker", Availability: "active"}
		case "secret":
			path, body = "/secrets/"+secretID+"/update"+version(view.Secret(secretID).Version), &swarm.SecretSpec{Annotations: swarm.Annotations{Name: "key"}}
		case "config":
			path, body = "/configs/"+configID+"/update"+version(view.Config(configID).Version), &swarm.ConfigSpec{Annotations: swarm.Annotations{Name: "conf"}}
		case "swarm":
			record := cluster.CompleteSpec(view.Cluster().Spec)
			path, body = "/swarm/update"+version(view.Cluster().Version), &record
		case "new secret":
			path, body = "/secrets/create", &swarm.SecretSpec{Annotations: swarm.Annotations{Name: "new"}, Data: []byte("x")}
		case "new config":
			path, body = "/configs/create", &swarm.ConfigSpec{Annotations: swarm.Annotations{Name: "new"}, Data: []byte("x")}
		}
		for range rapid.IntRange(1, 2).Draw(rt, "changes") {
			disturb(rt, reflect.ValueOf(body).Elem())
		}
		auth := rapid.SampledFrom([]string{"", "x", strings.Repeat("x", 60_000)}).Draw(rt, "auth")
		got := b.do("POST", path, body, "X-Registry-Auth", auth)
		if got.status >= 500 && got.status != 501 && !strings.Contains(got.body, "out of sequence") {
			rt.Fatalf("%s: %d %.300s", path, got.status, got.body)
		}
		if got.status >= 400 && len(got.body) > 8000 {
			rt.Fatalf("%s: %d bytes of reason: %.300s", path, len(got.body), got.body)
		}
		b.wantBounded(rt)
	})
}

// disturb walks down to some field, at random, and makes something else of it.
func disturb(t *rapid.T, v reflect.Value) {
	text := func() string {
		piece := rapid.SampledFrom([]string{"a", "/", "A=b", "10.0.0.1 b", "node.id==a", "\x00", "\x1b[2J", "{{.Task.ID}}", "é", "\n"}).Draw(t, "piece")
		return strings.Repeat(piece, rapid.SampledFrom([]int{0, 1, 10, 5_000, 100_000}).Draw(t, "times"))
	}
	few := func(elem reflect.Type) int {
		return rapid.SampledFrom([]int{1, 3, 500, 20_000}).Draw(t, "elements of "+elem.String())
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		disturb(t, v.Elem())
	case reflect.Struct:
		if v.NumField() == 0 {
			return
		}
		disturb(t, v.Field(rapid.IntRange(0, v.NumField()-1).Draw(t, v.Type().String())))
	case reflect.String:
		v.SetString(text())
	case reflect.Slice:
		n := few(v.Type())
		list := reflect.MakeSlice(v.Type(), n, n)
		disturb(t, list.Index(0))
		if one, err := json.Marshal(list.Index(0).Interface()); err == nil {
			n = min(n, max(1, maxData/len(one))) // More fits into no request.
			list = list.Slice(0, n)
		}
		for i := 1; i < n; i++ {
			list.Index(i).Set(list.Index(0))
			if elem := list.Index(i); elem.Kind() == reflect.String && elem.Len() < 100 {
				elem.SetString(elem.String() + fmt.Sprint(i))
			}
		}
		v.Set(list)
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		key, value := text(), text()
		for i := range few(v.Type()) {
			if i*(len(key)+len(value)) > maxData {
				break
			}
			m.SetMapIndex(reflect.ValueOf(key+fmt.Sprint(i)), reflect.ValueOf(value))
		}
		v.Set(m)
	case reflect.Int, reflect.Int64:
		v.SetInt(rapid.Int64().Draw(t, "int"))
	case reflect.Bool:
		v.SetBool(!v.Bool())
	}
}

// wantBounded looks at all that users wrote: by its encoding, since what is checked
// before it is written mustn't be checked by the same code.
func (b *bench) wantBounded(t *rapid.T) {
	view := b.view()
	check := func(what string, object any, limit int) {
		data, err := cluster.Encode(object)
		if err != nil || len(data) > limit {
			t.Fatalf("%s has %d bytes: %v", what, len(data), err)
		}
		var text func(v reflect.Value, where string)
		text = func(v reflect.Value, where string) {
			switch v.Kind() {
			case reflect.Pointer:
				if !v.IsNil() {
					text(v.Elem(), where)
				}
			case reflect.Struct:
				for i := range v.NumField() {
					if v.Type().Field(i).IsExported() {
						text(v.Field(i), where+"."+v.Type().Field(i).Name)
					}
				}
			case reflect.Slice:
				if v.Type().Elem().Kind() != reflect.Uint8 && v.Len() > 4096 {
					t.Fatalf("%s%s has %d elements", what, where, v.Len())
				}
				for i := 0; v.Type().Elem().Kind() != reflect.Uint8 && i < v.Len(); i++ {
					text(v.Index(i), where)
				}
			case reflect.Map:
				if v.Len() > 1024 {
					t.Fatalf("%s%s has %d elements", what, where, v.Len())
				}
				for _, key := range v.MapKeys() {
					text(key, where)
					text(v.MapIndex(key), where)
				}
			case reflect.String:
				if s := v.String(); len(s) > 128<<10 || strings.Contains(s, "\x00") {
					t.Fatalf("%s%s: %d bytes: %.100q", what, where, len(s), s)
				}
			}
		}
		text(reflect.ValueOf(object), "")
	}
	const some = 400 << 10
	for s := range view.Services() {
		check("service "+s.Spec.Name, s, 2*some)
		for r := range view.RevisionsOf(s.ID) {
			check("revision", r, some)
		}
	}
	for n := range view.Nodes() {
		check("node", n, some)
	}
	for s := range view.Secrets() {
		check("secret", s, cluster.SecretLimit+some)
	}
	for c := range view.Configs() {
		check("config", c, cluster.ConfigLimit+some)
	}
	check("cluster", view.Cluster(), some)
}

// A client that makes one object after the other is told when the database is full, and has to
// make room; nothing else is held up by it.
func TestAttack_TheDatabaseIsFull(t *testing.T) {
	b := newBench(t)
	const each = 5000
	for from := 0; from < 20_000; from += each {
		b.update(func(tx *store.Tx) error {
			for i := from; i < from+each; i++ {
				secret := &cluster.Secret{ID: taskID(i), Spec: swarm.SecretSpec{Annotations: swarm.Annotations{Name: fmt.Sprint("old", i)}, Data: []byte("x")}}
				if err := tx.Put(secret); err != nil {
					return err
				}
			}
			return nil
		})
	}
	more := swarm.SecretSpec{Annotations: swarm.Annotations{Name: "more"}, Data: []byte("x")}
	b.do("POST", "/secrets/create", more).want(t, 400, "the cluster has 20000 secrets, and takes no more: remove those that nobody needs")
	b.create(spec("web"))
	b.do("DELETE", "/secrets/old1", nil).want(t, 204, "")
	b.do("POST", "/secrets/create", more).want(t, 201, "")
	many := func(name string) swarm.ServiceSpec {
		return spec(name, func(s *swarm.ServiceSpec) {
			million := uint64(1_000_000)
			s.Mode = swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &million}}
		})
	}
	b.create(many("a"))
	b.do("POST", "/services/create", many("b")).want(t, 400, "give them fewer replicas")
}
