package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/go-units"

	"skep/cluster"
	"skep/store"
)

// stocked is a bench with one of each object that users make, and a swarm that may
// have host options. All there is has a version below 100.
func stocked(t testing.TB) *bench {
	b := newBench(t)
	b.update(func(tx *store.Tx) error {
		record := *tx.Cluster()
		record.Spec.Labels = map[string]string{cluster.LabelAllowHostOptions.Name: "true"}
		record.Spec = cluster.CompleteSpec(record.Spec)
		secret, config := &cluster.Secret{ID: secretID}, &cluster.Config{ID: configID}
		secret.Spec.Name, secret.Spec.Data, config.Spec.Name = "key", []byte("secret"), "conf"
		return errors.Join(tx.Put(&record), tx.Put(secret), tx.Put(config))
	})
	b.update(func(tx *store.Tx) error {
		web := spec("web", func(s *swarm.ServiceSpec) { s.TaskTemplate.Runtime = swarm.RuntimeContainer })
		return apply(tx, nil, cluster.CreateService(serviceID, web, ""))
	})
	b.addTask(1, serviceID, 1, 1)
	return b
}

const (
	serviceID = "service000000000000000001"
	secretID  = "secret0000000000000000001"
	configID  = "config0000000000000000001"
)

// bodies are services as clients send them, and what they had better not.
func bodies(t testing.TB) [][]byte {
	var bodies [][]byte
	add := func(v any) {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, data)
	}
	delay, n, mode := 5*time.Second, uint64(2), fs.FileMode(0o444)
	rich := spec("api", func(s *swarm.ServiceSpec) {
		s.Labels = map[string]string{"a": "b", cluster.LabelAntiAffinity.Name: "web", cluster.LabelHost + "shm-size": "64m"}
		s.UpdateConfig = &swarm.UpdateConfig{Parallelism: 1, Delay: delay, FailureAction: "rollback", Monitor: delay, MaxFailureRatio: 0.5, Order: "start-first"}
		s.RollbackConfig = &swarm.UpdateConfig{FailureAction: "pause", Order: "stop-first"}
		s.EndpointSpec.Ports = []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: 8080, PublishMode: "host"}}
		task := &s.TaskTemplate
		task.RestartPolicy = &swarm.RestartPolicy{Condition: "on-failure", Delay: &delay, MaxAttempts: &n, Window: &delay}
		task.Resources.Reservations.NanoCPUs, task.Resources.Limits.MemoryBytes = 5e8, 64<<20
		task.Resources.Reservations.GenericResources = []swarm.GenericResource{{DiscreteResourceSpec: &swarm.DiscreteGenericResource{Kind: "gpu", Value: 1}}}
		task.Placement = &swarm.Placement{Constraints: []string{"node.role==worker"}, MaxReplicas: 1, Platforms: []swarm.Platform{{OS: "linux"}},
			Preferences: []swarm.PlacementPreference{{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.zone"}}}}
		task.LogDriver = &swarm.Driver{Name: "json-file", Options: map[string]string{"max-size": "1m"}}
		c := task.ContainerSpec
		c.Command, c.Args, c.Env, c.Dir, c.User, c.Groups, c.TTY = []string{"sh"}, []string{"-c", "x"}, []string{"A={{.Task.Slot}}"}, "/", "1:1", []string{"2"}, true
		c.Hostname, c.Hosts, c.StopSignal, c.StopGracePeriod, c.ReadOnly = "h", []string{"10.0.0.1 db"}, "SIGTERM", &delay, true
		c.Mounts = []mount.Mount{{Type: "volume", Source: "v", Target: "/v"}, {Type: "tmpfs", Target: "/t", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1 << 20}}}
		c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "true"}, Interval: delay, Retries: 3}
		c.DNSConfig = &swarm.DNSConfig{Nameservers: []string{"1.1.1.1"}}
		c.Secrets = []*swarm.SecretReference{{SecretID: secretID, SecretName: "key", File: &swarm.SecretReferenceFileTarget{Name: "key", UID: "0", GID: "0", Mode: mode}}}
		c.Configs = []*swarm.ConfigReference{{ConfigID: configID, ConfigName: "conf", File: &swarm.ConfigReferenceFileTarget{Name: "/conf", UID: "0", GID: "0", Mode: mode}}}
		c.Ulimits = []*units.Ulimit{{Name: "nofile", Soft: 1, Hard: 2}}
		c.CapabilityAdd, c.Sysctls = []string{"CAP_NET_ADMIN"}, map[string]string{"net.core.somaxconn": "1"}
	})
	add(spec("web"))
	add(rich)
	add(spec("", func(s *swarm.ServiceSpec) { s.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}} }))
	add(spec("job", func(s *swarm.ServiceSpec) {
		s.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: &n, TotalCompletions: &n}}
	}))
	for _, text := range []string{
		`{}`, `null`, `[]`, `{"TaskTemplate":{"ContainerSpec":{"Image":"a","Mounts":[{}],"Ulimits":[null],"Healthcheck":{"Interval":-1}}}}`,
		`{"TaskTemplate":{"ContainerSpec":{"Image":"a","Secrets":[null],"Configs":[null]},"Placement":{"Preferences":[{}]}}}`,
		`{"Mode":{"Replicated":{"Replicas":18446744073709551615}},"TaskTemplate":{"ContainerSpec":{"Image":"a"}}}`, `{"Name":"a\u0000b"}`,
		`{"UpdateConfig":{"MaxFailureRatio":1e38},"TaskTemplate":{"ContainerSpec":{"Image":"a"}}}`, `{"Labels":null,"TaskTemplate":{"ContainerSpec":{"Image":"a"},"RestartPolicy":{}}}`,
		strings.Repeat(`{"TaskTemplate":`, 50) + `1` + strings.Repeat(`}`, 50),
	} {
		bodies = append(bodies, []byte(text))
	}
	return bodies
}

// FuzzServiceBody creates a service, and sends the same to one that is there.
func FuzzServiceBody(f *testing.F) {
	for _, body := range bodies(f) {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		b := stocked(t)
		version := fmt.Sprint("version=", b.view().Service(serviceID).Version)
		b.try(t, "POST", "/services/"+serviceID+"/update", version, "", body)
		b.try(t, "POST", "/services/create", "", "", body)
	})
}

// FuzzRequest sends a request to one of the routes that change something.
func FuzzRequest(f *testing.F) {
	b := stocked(f)
	var routes []route
	for _, r := range b.server.routes {
		// Networks have a target of their own, containers are the engine's, and the console's pages answer browsers.
		elsewhere := slices.ContainsFunc([]string{"/networks", "/containers", "/console"}, func(prefix string) bool { return strings.HasPrefix(r.pattern, prefix) })
		if r.method != http.MethodGet && r.method != http.MethodHead && !elsewhere {
			routes = append(routes, r)
		}
	}
	view := b.view()
	token := view.Cluster().WorkerToken
	for i, r := range routes {
		add := func(query, ref string, bodies ...string) {
			for _, body := range bodies {
				f.Add(uint8(i), uint8(50), query, ref, "", []byte(body))
			}
		}
		version := func(n uint64) string { return fmt.Sprint("version=", n) }
		switch first, what := firstPart(r.pattern), strings.Contains(r.pattern, "update"); {
		case first == "services" || first == "skep":
			query := version(view.Service(serviceID).Version)
			add(query+"&to=1&registryAuthFrom=previous-spec", "web", string(bodies(f)[0]), "{}")
			add(query+"&rollback=previous&force=1", serviceID[:9], string(bodies(f)[1]))
			add("", "", `{"Key":"AAAAAAAAAAAAAAAAAAAAAA==","Path":"/backup","Availability":"active"}`, `{"Recipient":"age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"}`)
		case first == "secrets" && what:
			add(version(view.Secret(secretID).Version), "key", `{"Name":"key","Labels":{"a":"b"}}`, `{"Name":"key","Data":"c2VjcmV0"}`)
		case first == "configs" && what:
			add(version(view.Config(configID).Version), "conf", `{"Name":"conf","Labels":{"a":"b"},"Data":""}`)
		case first == "secrets", first == "configs":
			add("", secretID, `{"Name":"new","Labels":{"a":"b"},"Data":"ZGF0YQ==","Templating":{"Name":"golang"}}`, `{"Name":"key","Data":"ZA=="}`, `{"Name":"a","Driver":{"Name":"x"}}`)
			add("", configID, "{}")
		case first == "nodes":
			add(version(view.Node(nodeID(2)).Version)+"&force=1", "n2", `{"Role":"manager","Availability":"drain","Labels":{"zone":"a"}}`, `{"Role":"worker","Availability":"pause","Name":"x"}`)
			add(version(view.Node(nodeID(1)).Version), nodeID(1), `{"Role":"worker","Availability":"active"}`)
		default:
			add(version(view.Cluster().Version)+"&rotateWorkerToken=true&rotateManagerToken=1&rotateManagerUnlockKey=true", "",
				`{"Name":"default","Labels":{"a":"b"},"Raft":{"SnapshotInterval":100,"KeepOldSnapshots":1,"ElectionTick":10,"HeartbeatTick":1},"Dispatcher":{"HeartbeatPeriod":5000000000},`+
					`"CAConfig":{"NodeCertExpiry":7776000000000000,"ForceRotate":1},"TaskDefaults":{"LogDriver":{"Name":"json-file"}},"EncryptionConfig":{"AutoLockManagers":true},"Orchestration":{"TaskHistoryRetentionLimit":3}}`)
			add(version(view.Cluster().Version), "", `{"Name":"default","CAConfig":{"SigningCACert":"c","SigningCAKey":"k"}}`, `{}`,
				`{"ListenAddr":"0.0.0.0:2377","AdvertiseAddr":"127.0.1.1","Availability":"active","Spec":{"Labels":{"a":"b"}},"AutoLockManagers":true,"ForceNewCluster":true}`,
				`{"ListenAddr":"0.0.0.0:2377","RemoteAddrs":["127.0.1.1:2377"],"JoinToken":"`+token+`","Availability":"drain"}`,
				`{"UnlockKey":"`+cluster.NewUnlockKey(&lockedRandom{}).Text()+`"}`)
		}
	}
	f.Fuzz(func(t *testing.T, which, minor uint8, query, ref, auth string, body []byte) {
		b := stocked(t)
		r := routes[int(which)%len(routes)]
		if r.pattern == "/swarm/unlock" {
			b.node.info.LocalNodeState = swarm.LocalNodeStateLocked
		}
		path := strings.ReplaceAll(r.pattern, "{id}", url.PathEscape(ref))
		b.try(t, r.method, fmt.Sprintf("/v1.%d%s", minor, path), query, auth, body)
	})
}

// try sends a request. What is refused has a reason, which is never that something
// went wrong here, and has changed nothing; what is accepted can be shown, and what
// is shown can be sent back, as clients do that change one thing of it.
func (b *bench) try(t *testing.T, method, path, query, auth string, body []byte) {
	r, err := http.NewRequest(method, "http://a"+path, bytes.NewReader(body))
	if err != nil {
		t.Skip()
	}
	r.URL.RawQuery = query
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Registry-Auth", auth)
	before := b.view()
	w := httptest.NewRecorder()
	b.handler.ServeHTTP(w, r)
	got := answer{w.Code, w.Header(), w.Body.String()}
	if got.status >= 400 {
		got.want(t, got.status, "message")
		switch {
		case got.status == 501 || got.status < 500:
		case got.status == 500 && strings.Contains(got.body, "update out of sequence"):
		case got.status == 503 && strings.Contains(got.body, "can't restore /"), // the bench's node can't
			got.status == 503 && strings.HasPrefix(path[strings.Index(path[1:], "/")+1:], "/exec/") && strings.Contains(got.body, "no local Docker Engine"): // nor has it one
		default:
			t.Fatalf("%s %s: %d %s", method, r.URL, got.status, got.body)
		}
		if b.view().Index() != before.Index() {
			t.Fatalf("%s %s is refused, and something changed: %s", method, r.URL, got.body)
		}
		if !reflect.DeepEqual(b.node.init, swarm.InitRequest{}) || !reflect.DeepEqual(b.node.join, swarm.JoinRequest{}) {
			t.Fatalf("%s %s is refused, and was passed on to the node: %s", method, r.URL, got.body)
		}
		return
	}
	if b.view().Index() == before.Index() {
		return
	}
	for _, list := range []string{"/services?status=true", "/tasks", "/nodes", "/secrets", "/configs", "/info", "/skep/v1/status"} {
		ask(t, b.handler, "GET", list, nil).want(t, 200, "")
	}
	b.sendBack(t, "/swarm", "/swarm/update")
	for service := range b.view().Services() {
		ask(t, b.handler, "GET", "/services/"+service.ID+"?insertDefaults=true", nil).want(t, 200, service.ID)
		b.sendBack(t, "/services/"+service.ID, "/services/"+service.ID+"/update")
	}
	for node := range b.view().Nodes() {
		b.sendBack(t, "/nodes/"+node.ID, "/nodes/"+node.ID+"/update")
	}
	for secret := range b.view().Secrets() {
		b.sendBack(t, "/secrets/"+secret.ID, "/secrets/"+secret.ID+"/update")
	}
	for config := range b.view().Configs() {
		b.sendBack(t, "/configs/"+config.ID, "/configs/"+config.ID+"/update")
	}
}

// sendBack updates an object to what it is, and wants it to stay what it is.
func (b *bench) sendBack(t *testing.T, from, to string) {
	var shown, again struct {
		Version swarm.Version
		Spec    json.RawMessage
	}
	ask(t, b.handler, "GET", from, nil).want(t, 200, "").into(t, &shown)
	ask(t, b.handler, "POST", fmt.Sprintf("%s?version=%d", to, shown.Version.Index), string(shown.Spec)).want(t, 200, "")
	ask(t, b.handler, "GET", from, nil).want(t, 200, "").into(t, &again)
	if !bytes.Equal(again.Spec, shown.Spec) {
		t.Fatalf("%s is %s, and sent back it is %s", from, shown.Spec, again.Spec)
	}
}

// FuzzQuery tries filters and other parameters on every route that only reads.
func FuzzQuery(f *testing.F) {
	b := stocked(f)
	for _, seed := range []string{
		`{"name":{"web":true}}`, `{"name":["web"]}`, `{}`, `null`, `{"label":["a=b=c","="]}`, `{"desired-state":[""]}`, `{"service":[""]}`, `{"name":null}`,
		`{"_up-to-date":{}}`, `{"id":{"":false}}`, `[[]]`, `{"role":["MANAGER"]}`,
	} {
		f.Add(seed, "1", "web")
	}
	f.Fuzz(func(t *testing.T, filters, value, ref string) {
		query := url.Values{"filters": {filters}, "status": {value}, "since": {value}, "until": {"1"}, "tail": {value}, "stdout": {value}, "insertDefaults": {value}}
		for _, route := range b.server.routes {
			if route.method != http.MethodGet {
				continue
			}
			path := strings.NewReplacer("{id}", url.PathEscape(ref), "{name}", url.PathEscape(ref)).Replace(route.pattern)
			w := httptest.NewRecorder()
			request, err := http.NewRequest("GET", "http://a"+path+"?"+query.Encode(), nil)
			if err != nil {
				t.Skip()
			}
			b.handler.ServeHTTP(w, request)
			if w.Code == 500 {
				t.Fatalf("%s: %s", request.URL, w.Body)
			}
			if got := w.Body.String(); w.Code == 200 && strings.HasPrefix(got, "null") {
				t.Fatalf("%s: %s", request.URL, got)
			}
		}
	})
}
