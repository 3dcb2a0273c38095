package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	dockernetwork "github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/agent"
	bridges "skep/agent/network"
	"skep/cluster"
)

// fakeEngine knows networks, and takes down what it is asked to change.
type fakeEngine struct {
	mu       sync.Mutex // guards the fields below
	networks []map[string]any
	said     []string // method, path and the parts of the body that matter here
	last     map[string]any
	// containers is the answer to a list of them; with race a network that is to be made is another node's already.
	containers []map[string]any
	race       bool
	// inspect is the answer to an inspection of a container, if it is there.
	inspect map[string]any
	// hidden is how often the list lacks them all, since that is being made.
	hidden int
}

var versioned = regexp.MustCompile(`^/v[0-9.]+`)

func (e *fakeEngine) serve(version string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		w.Header().Set("Api-Version", version)
		w.Header().Set("Content-Type", "application/json")
		path := versioned.ReplaceAllString(r.URL.Path, "")
		body := map[string]any{}
		if data, _ := io.ReadAll(r.Body); len(data) > 0 {
			_ = json.Unmarshal(data, &body)
		}
		answer := func(code int, v any) {
			w.WriteHeader(code)
			_ = json.NewEncoder(w).Encode(v)
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			e.said, e.last = append(e.said, strings.TrimSpace(fmt.Sprint(r.Method, " ", path, " ", r.URL.Query().Get("name")))), body
		}
		switch {
		case path == "/_ping":
		case path == "/networks":
			e.hidden--
			answer(200, slices.DeleteFunc(slices.Clone(e.networks), func(n map[string]any) bool {
				labels, _ := n["Labels"].(map[string]any)
				return labels[LabelNetwork] == nil || e.hidden > 0
			}))
		case path == "/networks/create":
			if slices.ContainsFunc(e.networks, func(n map[string]any) bool { return n["Name"] == body["Name"] }) {
				answer(409, map[string]string{"message": "network with name " + body["Name"].(string) + " already exists"})
				return
			}
			body["Id"] = fmt.Sprint("id-of-", body["Name"])
			e.networks = append(e.networks, body)
			if e.race {
				e.hidden = 3
				answer(403, map[string]string{"message": "Pool overlaps with other one on this address space"})
				return
			}
			answer(201, map[string]string{"Id": body["Id"].(string)})
		case strings.HasSuffix(path, "/disconnect"):
			for i := range e.containers {
				if e.containers[i]["Id"] == body["Container"] {
					delete(e.containers[i]["NetworkSettings"].(map[string]any)["Networks"].(map[string]any), strings.Split(path, "/")[2])
				}
			}
		case strings.HasPrefix(path, "/networks/") && len(e.on(path)) > 0 && r.Method == http.MethodDelete:
			answer(403, map[string]string{"message": "network has active endpoints"})
		case strings.HasPrefix(path, "/networks/") && r.Method == http.MethodGet:
			ref := strings.TrimPrefix(path, "/networks/")
			i := slices.IndexFunc(e.networks, func(n map[string]any) bool { return n["Name"] == ref || n["Id"] == ref })
			if i < 0 {
				answer(404, map[string]string{"message": "no such network"})
				return
			}
			found := maps.Clone(e.networks[i])
			found["Containers"] = e.on(path)
			answer(200, found)
		case r.Method == http.MethodDelete:
			e.networks = slices.DeleteFunc(e.networks, func(n map[string]any) bool { return n["Id"] == strings.TrimPrefix(path, "/networks/") })
			w.WriteHeader(http.StatusNoContent)
		case path == "/containers/json":
			answer(200, slices.DeleteFunc(slices.Clone(e.containers), func(c map[string]any) bool {
				labels, _ := c["Labels"].(map[string]any)
				return strings.Contains(r.URL.Query().Get("filters"), LabelNode) && labels[LabelNode] == nil
			}))
		case path == "/containers/create":
			answer(201, map[string]string{"Id": "c1"})
		case strings.HasSuffix(path, "/json") && e.inspect != nil:
			answer(200, e.inspect)
		case strings.HasSuffix(path, "/json"):
			answer(200, map[string]any{"Id": "c1", "NetworkSettings": map[string]any{"Networks": map[string]any{"web": map[string]any{}}}})
		}
	})
}

// on are the containers on a network.
func (e *fakeEngine) on(path string) map[string]any {
	on := map[string]any{}
	for _, c := range e.containers {
		for _, settings := range c["NetworkSettings"].(map[string]any)["Networks"].(map[string]any) {
			if settings.(map[string]any)["NetworkID"] == strings.TrimPrefix(path, "/networks/") {
				on[c["Id"].(string)] = map[string]any{}
			}
		}
	}
	return on
}

func (e *fakeEngine) driver(t *testing.T, version string) *Driver {
	t.Helper()
	server := httptest.NewServer(e.serve(version))
	t.Cleanup(server.Close)
	d, err := New(Config{Host: "tcp://" + server.Listener.Addr().String(), Bridge: func(string) (int, bool) { return 1450, true }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func span(id, name string, vni uint32, prefixes ...string) *cluster.Network {
	n := &cluster.Network{ID: id, VNI: vni}
	n.Spec.Name = name
	for _, p := range prefixes {
		prefix := netip.MustParsePrefix(p)
		n.Subnets = append(n.Subnets, cluster.Subnet{Prefix: prefix, Gateway: prefix.Addr().Next()})
	}
	return n
}

func onNetworks(networks ...*cluster.Network) agent.Assignment {
	a := assignment(func(r *cluster.Revision) {})
	for i, n := range networks {
		if !n.Spec.Ingress {
			a.Revision.Spec.Networks = append(a.Revision.Spec.Networks, swarm.NetworkAttachmentConfig{Target: n.ID})
		}
		a.Networks = append(a.Networks, agent.Attachment{Network: n, Host: cluster.Host(5 + i)})
	}
	return a
}

func wanted(t *testing.T, v any, want string) {
	t.Helper()
	if got, _ := json.Marshal(v); string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestNetworks_OfAContainer has a container be on two networks, on engines of three ages.
func TestNetworks_OfAContainer(t *testing.T) {
	web, ingress := span("w", "web", 4098, "10.0.1.0/24", "fd00:1::/64"), span("in", "ingress", 4097, "10.255.0.0/24", "fd00:ff::/64")
	ingress.Spec.Ingress = true
	for version, want := range map[string]struct {
		said     []string
		networks string
	}{
		"1.41": {
			[]string{"POST /networks/create", "POST /networks/create", "POST /containers/create web.3.t1", "POST /networks/id-of-0-ingress/connect"},
			`{"Container":"c1","EndpointConfig":{"Aliases":null,"DriverOpts":null,"EndpointID":"","Gateway":"","GlobalIPv6Address":"","GlobalIPv6PrefixLen":0,"GwPriority":0,"IPAMConfig":{"IPv4Address":"10.255.0.6","IPv6Address":"fd00:ff::6"},"IPAddress":"","IPPrefixLen":0,"IPv6Gateway":"","Links":null,"MacAddress":"","NetworkID":""}}`,
		},
		"1.44": {
			[]string{"POST /networks/create", "POST /networks/create", "POST /containers/create web.3.t1"},
			`0-ingress 02:42:0a:ff:00:06 0, web 02:42:0a:00:01:05 0`,
		},
		"1.48": {
			[]string{"POST /networks/create", "POST /networks/create", "POST /containers/create web.3.t1"},
			`0-ingress 02:42:0a:ff:00:06 1, web 02:42:0a:00:01:05 0`,
		},
	} {
		t.Run(version, func(t *testing.T) {
			e := &fakeEngine{}
			d := e.driver(t, version)
			a := onNetworks(web, ingress)
			a.Revision.Spec.ContainerSpec.DNSConfig = &swarm.DNSConfig{Nameservers: []string{"9.9.9.9"}, Search: []string{"example.com"}}
			if _, err := d.Prepare(t.Context(), a); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(e.said, want.said) {
				t.Errorf("said %q, want %q", e.said, want.said)
			}
			if version == "1.41" {
				delete(e.last["EndpointConfig"].(map[string]any), "DNSNames")
				wanted(t, e.last, want.networks)
				return
			}
			var on []string
			for name, settings := range e.last["NetworkingConfig"].(map[string]any)["EndpointsConfig"].(map[string]any) {
				settings := settings.(map[string]any)
				on = append(on, fmt.Sprint(name, " ", settings["MacAddress"], " ", settings["GwPriority"]))
			}
			slices.Sort(on)
			if got := strings.Join(on, ", "); got != want.networks {
				t.Errorf("on %s, want %s", got, want.networks)
			}
			host := e.last["HostConfig"].(map[string]any)
			wanted(t, []any{host["NetworkMode"], host["Dns"], host["DnsSearch"], host["DnsOptions"]}, `["web",["10.0.1.1"],["example.com"],["attempts:2"]]`)
		})
	}
}

// TestNetworks_OnTheEngine looks at what the engine is asked to make, and keep, and remove.
func TestNetworks_OnTheEngine(t *testing.T) {
	e := &fakeEngine{networks: []map[string]any{
		{"Id": "mine", "Name": "web"}, // a user's own
		{"Id": "stale", "Name": "old", "Labels": map[string]any{LabelNetwork: "o1", LabelNetworkNode: "node1"}},
		{"Id": "other", "Name": "older", "Labels": map[string]any{LabelNetwork: "o2", LabelNetworkNode: "node2"}},
	}}
	d := e.driver(t, "1.41")
	web, low := span("w", "web", 4098, "10.0.1.0/24", "fd00:1::/64"), span("f", "0-first", 4099, "10.0.2.0/24")
	web.Spec.Internal = true
	if _, err := d.KeepNetworks(t.Context(), "node1", []*cluster.Network{web, low}); err != nil {
		t.Fatal(err)
	}
	names := func() (names []string) {
		for _, n := range e.networks {
			names = append(names, n["Name"].(string))
		}
		return names
	}
	if want := []string{"web", "older", "web.w", "1-0-first"}; !slices.Equal(names(), want) {
		t.Fatalf("the engine has %q, want %q", names(), want)
	}
	made := e.networks[2]
	delete(made, "CheckDuplicate")
	wanted(t, made, `{"Attachable":false,"ConfigFrom":null,"ConfigOnly":false,"Driver":"bridge","EnableIPv6":true,"IPAM":{"Config":[{"Gateway":"10.0.1.1","IPRange":"10.0.1.1/32","Subnet":"10.0.1.0/24"},{"Gateway":"fd00:1::1","IPRange":"fd00:1::1/128","Subnet":"fd00:1::/64"}],"Driver":"default","Options":null},"Id":"id-of-web.w","Ingress":false,"Internal":false,"Labels":{"skep.network":"w","skep.node":"node1"},"Name":"web.w","Options":{"com.docker.network.bridge.name":"skb1002","com.docker.network.driver.mtu":"1450"},"Scope":""}`)

	e.said = nil
	if _, err := d.KeepNetworks(t.Context(), "node1", []*cluster.Network{web, low}); err != nil || len(e.said) > 0 {
		t.Errorf("kept again: %q, %v", e.said, err)
	}
	// Another driver is that of another node on the same engine: it uses what is there, and at last removes it,
	// since the one that made it may be gone.
	second := e.driver(t, "1.41")
	second.cfg.Bridge = d.cfg.Bridge
	if _, err := second.KeepNetworks(t.Context(), "node3", []*cluster.Network{web}); err != nil || len(e.said) > 0 {
		t.Errorf("kept by another: %q, %v", e.said, err)
	}
	if _, err := second.KeepNetworks(t.Context(), "node3", nil); err != nil || !slices.Equal(names(), []string{"web", "older", "1-0-first"}) {
		t.Errorf("left %q, %v", names(), err)
	}
	if _, err := d.KeepNetworks(t.Context(), "node1", nil); err != nil || !slices.Equal(names(), []string{"web", "older"}) {
		t.Errorf("left %q, %v", names(), err)
	}
}

// TestNetworks_OfANodeThatIsGone are removed by the one that keeps the engine's networks after it: nobody else would.
// Another cluster's stay.
func TestNetworks_OfANodeThatIsGone(t *testing.T) {
	e := &fakeEngine{}
	d := e.driver(t, "1.41")
	d.clusterID = "c1"
	for id, labels := range map[string]map[string]any{
		"left": {LabelNetwork: "o1", LabelNetworkNode: "node2", LabelNetworkCluster: "c1"}, "its": {LabelNetwork: "o2", LabelNetworkNode: "node3", LabelNetworkCluster: "c2"},
		"old": {LabelNetwork: "o3", LabelNetworkNode: "node4"},
	} {
		e.networks = append(e.networks, map[string]any{"Id": id, "Name": id, "Labels": labels})
	}
	if used, err := d.KeepNetworks(t.Context(), "node1", nil); err != nil || len(used) > 0 {
		t.Fatalf("%v, %q", err, used)
	}
	var left []string
	for _, n := range e.networks {
		left = append(left, n["Id"].(string))
	}
	slices.Sort(left)
	if !slices.Equal(left, []string{"its", "old"}) {
		t.Errorf("left %q, want its and old", left)
	}
}

// TestNetworks_OfSeveralNodes is an engine that two nodes have: what one has made in the moment between the
// other's look and its attempt, as engines refuse it then, is both's; and who clears away what there is leaves
// all while another's containers are on a network, and nothing otherwise, whoever made it.
func TestNetworks_OfSeveralNodes(t *testing.T) {
	e := &fakeEngine{race: true}
	d := e.driver(t, "1.41")
	if _, err := d.KeepNetworks(t.Context(), "node1", []*cluster.Network{span("w", "web", 4098, "10.0.1.0/24")}); err != nil {
		t.Errorf("another node was faster: %v", err)
	}
	on := func(id, node, networkID string) map[string]any {
		labels := map[string]any{}
		if node != "" {
			labels[LabelNode] = node
		}
		return map[string]any{"Id": id, "Labels": labels, "NetworkSettings": map[string]any{"Networks": map[string]any{networkID: map[string]any{"NetworkID": networkID}}}}
	}
	e.containers = []map[string]any{on("a", "node1", "id-of-web"), on("b", "node2", "bridge"), on("c", "", "id-of-web")}
	if stay, err := d.KeepNetworks(t.Context(), "node1", nil); err != nil || !slices.Equal(stay, []string{"w"}) {
		t.Errorf("%q stay, want w (%v)", stay, err)
	}
	d.clusterID = "c1"
	e.networks = append(e.networks, map[string]any{"Id": "other", "Name": "older", "Labels": map[string]any{LabelNetwork: "o2", LabelNetworkNode: "node2", LabelNetworkCluster: "c1"}}, map[string]any{"Id": "mine", "Name": "a user's"},
		map[string]any{"Id": "its", "Name": "another's", "Labels": map[string]any{LabelNetwork: "o2", LabelNetworkNode: "node3", LabelNetworkCluster: "c2"}})
	// Somebody else's task is on one; then only a user's container, which is disconnected.
	e.containers = append(e.containers, on("d", "node2", "id-of-web"))
	if shared, err := d.ClearNetworks(t.Context(), "node1"); err != nil || !shared || len(e.networks) != 4 {
		t.Errorf("with another node's container on it: shared %v, %v, networks %v", shared, err, e.networks)
	}
	e.containers = e.containers[:3]
	if shared, err := d.ClearNetworks(t.Context(), "node1"); err != nil || shared || len(e.networks) != 2 || e.networks[0]["Id"] != "mine" {
		t.Errorf("alone: shared %v, %v, networks %v", shared, err, e.networks)
	}
}

// TestNetworks_WaitForTheBridge has no network be made before its bridge: the engine would make one of its own.
func TestNetworks_WaitForTheBridge(t *testing.T) {
	e := &fakeEngine{}
	d := e.driver(t, "1.41")
	d.cfg.Bridge = linkMTU
	web := span("w", "web", 4098, "10.0.1.0/24")
	if _, err := d.KeepNetworks(t.Context(), "node1", []*cluster.Network{web}); !errors.Is(err, cluster.ErrUnavailable) || len(e.said) > 0 {
		t.Errorf("kept: %v, %q", err, e.said)
	}
	if _, err := d.Prepare(t.Context(), onNetworks(web)); !errors.Is(err, cluster.ErrUnavailable) || len(e.said) > 0 {
		t.Errorf("prepared: %v, %q", err, e.said)
	}
}

// TestNetworks_WayOut refuses what an engine gets wrong that chooses the way out by itself.
func TestNetworks_WayOut(t *testing.T) {
	web, ingress := span("w", "web", 4098, "10.0.1.0/24", "fd00:1::/64"), span("in", "ingress", 4097, "10.255.0.0/24")
	ingress.Spec.Ingress = true
	if _, err := (&fakeEngine{}).driver(t, "1.47").Prepare(t.Context(), onNetworks(web, ingress)); !errors.Is(err, cluster.ErrUnsupported) {
		t.Errorf("an old engine: %v", err)
	}
	if _, err := (&fakeEngine{}).driver(t, "1.48").Prepare(t.Context(), onNetworks(web, ingress)); err != nil {
		t.Errorf("a new engine: %v", err)
	}
}

// TestNetworks_FromAConfiguration: what the node's network has that is a configuration, with labels that it is known
// by, which engines take no others beside.
func TestNetworks_FromAConfiguration(t *testing.T) {
	e := &fakeEngine{networks: []map[string]any{
		{"Id": "c", "Name": "cfg", "ConfigOnly": true, "Labels": map[string]string{"a": "b"}, "Options": map[string]string{"parent": "eth7"}, "IPAM": map[string]any{"Driver": "default", "Config": []map[string]string{{"Subnet": "192.0.2.0/24"}}}},
		{"Id": "o", "Name": "other"},
	}}
	d := e.driver(t, "1.41")
	lan := &cluster.Network{ID: "l", Spec: swarm.NetworkSpec{DriverConfiguration: &swarm.Driver{Name: "macvlan"}, ConfigFrom: &dockernetwork.ConfigReference{Network: "cfg"}}}
	lan.Spec.Name = "lan"
	if _, err := d.Prepare(t.Context(), onNetworks(lan)); err != nil {
		t.Fatal(err)
	}
	made := e.networks[2]
	wanted(t, []any{made["Driver"], made["Options"], made["Labels"], made["IPAM"], made["ConfigFrom"]},
		`["macvlan",{"parent":"eth7"},{"a":"b","skep.network":"l","skep.node":"n1"},{"Config":[{"Subnet":"192.0.2.0/24"}],"Driver":"default","Options":null},null]`)
	for name, want := range map[string]string{"none": `configuration network "none" does not exist`, "other": "is not a configuration network"} {
		lan.ID, lan.Spec.ConfigFrom = name, &dockernetwork.ConfigReference{Network: name}
		if _, err := d.Prepare(t.Context(), onNetworks(lan)); err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, cluster.ErrUnavailable) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

// TestNetworks_OfEachEngine is a network that every engine makes by itself, as the user said.
func TestNetworks_OfEachEngine(t *testing.T) {
	e := &fakeEngine{}
	d := e.driver(t, "1.41")
	lan := &cluster.Network{ID: "l", Spec: swarm.NetworkSpec{DriverConfiguration: &swarm.Driver{Name: "macvlan", Options: map[string]string{"parent": "eth0"}}, Attachable: true}}
	lan.Spec.Name, lan.Spec.Labels = "lan", map[string]string{"a": "b"}
	lan.Spec.IPAMOptions = &swarm.IPAMOptions{Configs: []swarm.IPAMConfig{{Subnet: "192.0.2.0/24", Range: "192.0.2.128/25", Gateway: "192.0.2.1"}}}
	if _, err := d.Prepare(t.Context(), onNetworks(lan)); err != nil {
		t.Fatal(err)
	}
	host := e.last["HostConfig"].(map[string]any)
	wanted(t, []any{host["NetworkMode"], host["Dns"], e.networks[0]["Driver"], e.networks[0]["Options"], e.networks[0]["Labels"], e.networks[0]["IPAM"]},
		`["lan",null,"macvlan",{"parent":"eth0"},{"a":"b","skep.network":"l","skep.node":"n1"},{"Config":[{"Gateway":"192.0.2.1","IPRange":"192.0.2.128/25","Subnet":"192.0.2.0/24"}],"Driver":"","Options":null}]`)
}

// TestNetworks_MACs: engines from 28 on make up a MAC for who is connected while it runs. Other nodes know it by
// another one, so the interface gets that.
func TestNetworks_MACs(t *testing.T) {
	web := span("net", "web", 4097, "10.0.1.0/24")
	for name, test := range map[string]struct {
		running bool
		mac     string
		set     bool
	}{
		"made up":         {true, "aa:bb:cc:dd:ee:ff", true},
		"as asked for":    {true, "02:42:0A:00:01:05", false},
		"not running yet": {false, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			settings := map[string]any{"NetworkID": "id-of-web", "EndpointID": "e1", "IPAddress": "10.0.1.5", "MacAddress": test.mac}
			on := map[string]any{"Networks": map[string]any{"web": settings, "bridge": map[string]any{"NetworkID": "other", "IPAddress": "172.17.0.2", "MacAddress": "aa:bb:cc:dd:ee:00"}}}
			e := &fakeEngine{
				containers: []map[string]any{{"Id": "c1", "Labels": map[string]any{LabelNode: "n", LabelTaskID: "t"}, "NetworkSettings": on}},
				inspect:    map[string]any{"Id": "c1", "State": map[string]any{"Running": test.running, "Pid": 42}, "NetworkSettings": on},
			}
			d := e.driver(t, "1.51")
			a := onNetworks(web)
			a.Task.ID, a.Task.NodeID = "t", "n"
			if err := d.Connect(t.Context(), a); (err != nil) != test.set {
				t.Errorf("without a way to set it: %v", err)
			}
			var set []string
			fail := true
			d.cfg.SetMAC = func(pid int, addr netip.Addr, mac bridges.MAC) error {
				if set = append(set, fmt.Sprint(pid, " ", addr, " ", mac)); fail {
					return errors.New("not now")
				}
				return nil
			}
			if _, err := d.Attached(t.Context()); (err != nil) != test.set {
				t.Errorf("look at containers, when it can't be set: %v", err)
			}
			fail = false
			for range 2 { // The second time it is set.
				have, err := d.Attached(t.Context())
				if err != nil || !have["net"][netip.MustParseAddr("10.0.1.5")] {
					t.Errorf("look at containers: %v, %v", have, err)
				}
			}
			if err := d.Connect(t.Context(), a); err != nil {
				t.Error(err)
			}
			var want []string
			if test.set {
				want = slices.Repeat([]string{"42 10.0.1.5 02:42:0a:00:01:05"}, 3)
			}
			if !slices.Equal(set, want) {
				t.Errorf("set %v, want %v", set, want)
			}
		})
	}
}
