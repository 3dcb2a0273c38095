package networks

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// TestEncode_ALargeAccountComesInParts: an account of 30,000 endpoints comes in parts that each fit
// in a frame many times, all but the last say that there is more, and together they are the
// account.
func TestEncode_ALargeAccountComesInParts(t *testing.T) {
	want := &cluster.NetworkUpdate{NetworkID: "w", Full: true, To: 9, Network: &cluster.Network{ID: "w"}, GoneNodes: []uint16{1}, Gone: []string{"x", "y", "z"}}
	for i := range 30_000 {
		want.Endpoints = append(want.Endpoints, cluster.NetworkEndpoint{ID: fmt.Sprintf("t%024d", i), Name: fmt.Sprintf("web.%d.t%024d", i, i), ServiceID: "s", Node: 1, Host: cluster.Host(i)})
	}
	for i := range 300 {
		want.Services = append(want.Services, cluster.NetworkService{ID: fmt.Sprint(i), Name: fmt.Sprint("s", i)})
	}
	parts, err := encode(want)
	if err != nil || len(parts) < 3 {
		t.Fatalf("%d parts, %v", len(parts), err)
	}
	var got *cluster.NetworkUpdate
	for i, part := range parts {
		u := new(cluster.NetworkUpdate)
		if err := cluster.Decode(part, u); err != nil {
			t.Fatal(err)
		}
		if len(part) > maxPart || u.More != (i < len(parts)-1) {
			t.Errorf("part %d of %d has %d bytes, more: %v", i+1, len(parts), len(part), u.More)
		}
		if got == nil {
			got = u
		} else if err := got.Join(u); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("parts make an account of %d endpoints, %d services, %v gone", len(got.Endpoints), len(got.Services), got.Gone)
	}
	if got.Join(&cluster.NetworkUpdate{NetworkID: "other", From: 9, To: 9}) == nil || got.Join(&cluster.NetworkUpdate{NetworkID: "w", From: 8, To: 9}) == nil {
		t.Error("an update that doesn't go on with it is taken for one that does")
	}
}

// TestSharedEngine_OnlyOnOneMachine: a worker that says it has another node's engine doesn't
// get what is sent to that node's tasks; and one that says it has its address isn't in
// the account, if it joined later. Of those on one machine one carries networks that can.
func TestSharedEngine_OnlyOnOneMachine(t *testing.T) {
	s := newStore(t)
	put := func(id string, index uint16, addr, engine string) {
		update(t, s, func(tx *store.Tx) error {
			n := &cluster.Node{ID: id, Index: index, DataAddr: addr, Engine: engine}
			n.Status.State = cluster.NodeReady
			if id != "incapable" {
				n.Description.Engine.Plugins = []swarm.PluginDescription{{Type: "Network", Name: cluster.OverlayDriver}}
			}
			return tx.Put(n)
		})
	}
	put("incapable", 3, "127.0.1.3", "F")
	put("victim", 9, "10.0.0.9", "E")
	put("liar", 1, "10.0.0.1", "E")
	put("thief", 2, "10.0.0.9", "")
	put("a", 5, "127.0.1.1", "F")
	put("b", 4, "127.0.1.2", "F")
	nodes := newCarriers(s.View())
	for id, want := range map[string]uint16{"victim": 9, "liar": 1, "a": 4, "b": 4, "incapable": 4} {
		if got := nodes.of(id).index; got != want {
			t.Errorf("%s is carried by %d, want %d", id, got, want)
		}
	}
	account := accountIn(s.View(), nodesAccount).Nodes
	if len(account) != 3 || account[9].ID != "victim" || account[1].ID != "liar" || account[4].ID != "b" {
		t.Errorf("the account of nodes: %+v", account)
	}
}
