package api

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// attachBench is a node that carries networks, whose engine has a part of the attachable network open,
// which is called otherwise there.
func attachBench(t *testing.T) (*bench, *fakeEngine) {
	b, e := newEngineBench(t)
	b.update(func(tx *store.Tx) error {
		node := *tx.Node(nodeID(1))
		node.Index = 1
		node.Description.Engine.Plugins = []swarm.PluginDescription{{Type: "Network", Name: "overlay"}}
		n := &cluster.Network{ID: "id-open", VNI: cluster.FirstVNI, Subnets: []cluster.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/24"), Gateway: netip.MustParseAddr("10.9.0.1")}}}
		n.Spec.Name, n.Spec.Attachable = "open", true
		if err := tx.Put(n); err != nil {
			return err
		}
		return tx.Put(&node)
	})
	e.networks = []network.Inspect{{ID: "e1", Name: "1-open", Scope: "local", Driver: "bridge", Labels: map[string]string{cluster.EngineLabelNetwork: "id-open"}}}
	return b, e
}

// sentContainer is what the engine was sent last.
func (e *fakeEngine) sentContainer(t *testing.T) (sent container.CreateRequest) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.bodies) == 0 {
		t.Fatal("the engine was sent no container")
	}
	if err := json.Unmarshal([]byte(e.bodies[len(e.bodies)-1]), &sent); err != nil {
		t.Fatal(err)
	}
	return sent
}

func TestCreateContainer_GetsItsPlaceInANetworkOfTheCluster(t *testing.T) {
	b, e := attachBench(t)
	body := `{"Image":"x","Odd":[1],"HostConfig":{"NetworkMode":"open","Binds":["/a:/b"]},"NetworkingConfig":{"EndpointsConfig":{"open":{"Aliases":["db"]}}}}`
	b.do("POST", "/v1.51/containers/create?name=box", body).want(t, 201, "c0ffee")
	var a *cluster.Attachment
	for a = range b.view().Attachments() {
	}
	if a == nil || a.Name != "box" || a.NodeID != nodeID(1) || fmt.Sprint(a.Aliases) != "[db]" || !a.Ended.IsZero() {
		t.Fatalf("the attachment is %+v", a)
	}
	sent, addr := e.sentContainer(t), b.view().Network("id-open").Addrs(a.Address.Host)[0].String()
	settings := sent.NetworkingConfig.EndpointsConfig["1-open"]
	if sent.HostConfig.NetworkMode != "1-open" || len(sent.NetworkingConfig.EndpointsConfig) != 1 || settings == nil || settings.IPAMConfig.IPv4Address != addr || fmt.Sprint(settings.Aliases) != "[db]" ||
		fmt.Sprint(sent.HostConfig.DNS) != "[10.9.0.1]" || fmt.Sprint(sent.HostConfig.Binds) != "[/a:/b]" || !strings.Contains(e.bodies[0], `"Odd":[1]`) || settings.MacAddress != "" {
		t.Errorf("with address %s the engine was sent %s", addr, e.bodies[0])
	}
	// A network in use isn't removed.
	b.do("DELETE", "/networks/open", nil).want(t, 400, "in use by container box")

	// What the engine refuses has no place.
	e.refuses = true
	b.do("POST", "/containers/create?name=box", `{"HostConfig":{"NetworkMode":"id-open"}}`).want(t, 409, "in use")
	open := 0
	for a := range b.view().Attachments() {
		if a.Ended.IsZero() {
			open++
		}
	}
	if open != 1 || b.view().AttachmentCount() != 2 {
		t.Errorf("%d of %d attachments are in use", open, b.view().AttachmentCount())
	}
}

func TestCreateContainer_TakesTheAddressThatIsAskedFor(t *testing.T) {
	b, e := attachBench(t)
	create := func(settings string) string {
		return `{"HostConfig":{"NetworkMode":"open"},"NetworkingConfig":{"EndpointsConfig":{"open":` + settings + `}}}`
	}
	b.do("POST", "/containers/create", create(`{"IPAMConfig":{"IPv4Address":"10.9.0.77"}}`)).want(t, 201, "")
	if got := e.sentContainer(t).NetworkingConfig.EndpointsConfig["1-open"].IPAMConfig.IPv4Address; got != "10.9.0.77" {
		t.Errorf("got %s", got)
	}
	b.do("POST", "/containers/create", create(`{"IPAMConfig":{"IPv4Address":"10.9.0.77"}}`)).want(t, 400, "Address already in use")
	b.do("POST", "/containers/create", create(`{"IPAMConfig":{"IPv4Address":"10.8.0.7"}}`)).want(t, 400, "isn't in a subnet")
	b.do("POST", "/containers/create", create(`{"IPAMConfig":{"IPv4Address":"x"}}`)).want(t, 400, "invalid address x")
	b.do("POST", "/containers/create", create(`{"MacAddress":"02:00:00:00:00:01"}`)).want(t, 501, "leave it out")
}

func TestConnect_PutsAContainerOnANetworkOfTheCluster(t *testing.T) {
	b, e := attachBench(t)
	b.do("POST", "/v1.51/networks/open/connect", `{"Container":"box","EndpointConfig":{"Aliases":["db"]}}`).want(t, 201, "")
	if asked := strings.Join(e.requests(), "\n"); !strings.Contains(asked, "POST /v1.41/networks/e1/connect") || !strings.Contains(e.bodies[0], `"Aliases":["db"]`) || !strings.Contains(e.bodies[0], `"IPv4Address":"10.9.0.`) {
		t.Errorf("the engine was sent %s", e.bodies)
	}
	for a := range b.view().Attachments() {
		if a.Name != "box" {
			t.Errorf("attached %+v", a)
		}
	}
	b.do("POST", "/v1.51/networks/open/disconnect", `{"Container":"box"}`).want(t, 200, "engine: POST /v1.41/networks/e1/disconnect")
	for _, what := range []string{"connect", "disconnect"} {
		b.do("POST", "/networks/open/"+what, `{"Container":"task"}`).want(t, 501, "update its service")
	}
	if n := b.view().AttachmentCount(); n != 1 {
		t.Errorf("%d attachments", n)
	}
}
