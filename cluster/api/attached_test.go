package api

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// attachWorld is a cluster of two nodes that carry networks and one that doesn't, and two networks.
func attachWorld(t *testing.T) *store.Store {
	b := newBench(t)
	b.update(func(tx *store.Tx) error {
		for i, id := range []string{"n1", "n2", "n3"} {
			node := &cluster.Node{ID: id, Index: uint16(i + 1)}
			if id != "n3" {
				node.Description.Engine.Plugins = []swarm.PluginDescription{{Type: "Network", Name: "overlay"}}
			}
			if err := tx.Put(node); err != nil {
				return err
			}
		}
		for i, name := range []string{"open", "closed"} {
			n := &cluster.Network{ID: "id-" + name, VNI: cluster.FirstVNI + uint32(i)}
			n.Spec.Name, n.Spec.Attachable = name, name == "open"
			n.Subnets = []cluster.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/29"), Gateway: netip.MustParseAddr("10.9.0.1")}}
			if err := tx.Put(n); err != nil {
				return err
			}
		}
		return nil
	})
	return b.manager.store
}

func attachAs(t *testing.T, s *store.Store, nodeID string, r cluster.AttachRequest) (answer *cluster.Attached, err error) {
	t.Helper()
	err = s.Update(t.Context(), func(tx *store.Tx) error {
		answer, err = Attach(tx, nodeID, r)
		return err
	})
	return answer, err
}

func TestAttach_GivesAPlaceOnceForAnID(t *testing.T) {
	s := attachWorld(t)
	first, err := attachAs(t, s, "n1", cluster.AttachRequest{ID: "a1", Network: "open", Name: "box", Aliases: []string{"b"}})
	if err != nil || first.Attachment == nil || first.Attachment.Address.Host < 2 || first.Attachment.NodeID != "n1" || first.Attachment.NetworkID != "id-open" {
		t.Fatalf("%+v, %v", first, err)
	}
	again, err := attachAs(t, s, "n1", cluster.AttachRequest{ID: "a1", Network: "id-open", Name: "box"})
	if err != nil || again.Attachment.Address != first.Attachment.Address || s.View().AttachmentCount() != 1 {
		t.Errorf("asked again: %+v, %v; there are %d", again, err, s.View().AttachmentCount())
	}
	if _, err := attachAs(t, s, "n2", cluster.AttachRequest{ID: "a1", Network: "open"}); err == nil {
		t.Error("another node has the same attachment")
	}
	other, err := attachAs(t, s, "n2", cluster.AttachRequest{ID: "a2", Network: "open"})
	if err != nil || other.Attachment.Address == first.Attachment.Address {
		t.Errorf("another container has %+v, %v", other, err)
	}
}

func TestAttach_RefusesWhatCannotBe(t *testing.T) {
	s := attachWorld(t)
	if answer, err := attachAs(t, s, "n1", cluster.AttachRequest{ID: "a", Network: "closed"}); err != nil || answer.Network == nil || answer.Attachment != nil {
		t.Errorf("a network that isn't attachable: %+v, %v", answer, err)
	}
	for _, ref := range []string{"none", "OPEN", ""} {
		if answer, err := attachAs(t, s, "n1", cluster.AttachRequest{ID: "a", Network: ref}); err != nil || answer.Network != nil {
			t.Errorf("network %q: %+v, %v", ref, answer, err)
		}
	}
	if _, err := attachAs(t, s, "n3", cluster.AttachRequest{ID: "a", Network: "open"}); err == nil || !strings.Contains(err.Error(), "node n3 carries no overlay networks") {
		t.Errorf("a node that carries none: %v", err)
	}
	if _, err := attachAs(t, s, "n1", cluster.AttachRequest{ID: "a", Network: "open", Aliases: make([]string, maxAliases+1)}); err == nil {
		t.Error("any number of aliases")
	}
	if _, err := attachAs(t, s, "n1", cluster.AttachRequest{Network: "open"}); err == nil {
		t.Error("an attachment without an ID")
	}
	if n := s.View().AttachmentCount(); n != 0 {
		t.Errorf("%d attachments are left", n)
	}
}

func TestAttach_ANodeHasSoManyAtMost(t *testing.T) {
	s := attachWorld(t)
	err := s.Update(t.Context(), func(tx *store.Tx) error {
		for i := range maxNodeAttachments {
			if err := tx.Put(&cluster.Attachment{ID: strconv.Itoa(i), NodeID: "n1"}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := attachAs(t, s, "n1", cluster.AttachRequest{ID: "one-more", Network: "open"}); err == nil || !strings.Contains(err.Error(), "may have no more") {
		t.Errorf("one more: %v", err)
	}
	if _, err := attachAs(t, s, "n2", cluster.AttachRequest{ID: "another", Network: "open"}); err != nil {
		t.Errorf("another node: %v", err)
	}
}

// An address is freed by its own node only, and rests; then the record goes, and others may have it.
func TestDetach_AddressesRest(t *testing.T) {
	s := attachWorld(t)
	for _, id := range []string{"a1", "a2"} {
		if _, err := attachAs(t, s, "n1", cluster.AttachRequest{ID: id, Network: "open"}); err != nil {
			t.Fatal(err)
		}
	}
	detach := func(nodeID string, ids ...string) error {
		return s.Update(t.Context(), func(tx *store.Tx) error { return Detach(tx, nodeID, ids) })
	}
	if err := detach("n2", "a1"); err == nil {
		t.Error("a node frees another one's")
	}
	if err := detach("n1", "a1", "unknown", "a1"); err != nil {
		t.Fatal(err)
	}
	a := s.View().Attachment("a1")
	if a == nil || a.Ended.IsZero() || !s.View().Attachment("a2").Ended.IsZero() {
		t.Fatalf("a1 is %+v", a)
	}
	if user := networkUser(s.View(), s.View().Network("id-open")); !strings.Contains(user, "container a2") {
		t.Errorf("the network's user is %q", user)
	}
	if rested, next := RestedAttachments(s.View(), a.Ended, 10); len(rested) != 0 || next <= a.Ended {
		t.Errorf("at its end %d have rested, the next at %v", len(rested), next)
	} else if rested, _ := RestedAttachments(s.View(), next, 10); len(rested) != 1 || rested[0].ID != "a1" {
		t.Errorf("then %v", rested)
	}
	err := s.Update(t.Context(), func(tx *store.Tx) error { return RemoveNode(tx, tx.Node("n1")) })
	if err != nil || s.View().Attachment("a2").Ended.IsZero() {
		t.Errorf("a2 is %+v after its node was removed: %v", s.View().Attachment("a2"), err)
	}
}

// Of nodes on one engine any may free an address, and one that is removed leaves its containers to another: they are on the
// engine as before. Who only says that it has another one's engine, and isn't on the same machine, gets neither.
func TestDetach_OnASharedEngine(t *testing.T) {
	s := attachWorld(t)
	change := func(what func(tx *store.Tx) error) {
		t.Helper()
		if err := s.Update(t.Context(), what); err != nil {
			t.Fatal(err)
		}
	}
	change(func(tx *store.Tx) error {
		for id, addr := range map[string]string{"n1": "127.0.1.1", "n2": "127.0.1.2", "n3": "192.0.2.3"} {
			node := *tx.Node(id)
			node.Engine, node.Status.Addr = "one", addr
			if err := tx.Put(&node); err != nil {
				return err
			}
		}
		return nil
	})
	for _, id := range []string{"a1", "a2"} {
		if _, err := attachAs(t, s, "n2", cluster.AttachRequest{ID: id, Network: "open"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Update(t.Context(), func(tx *store.Tx) error { return Detach(tx, "n3", []string{"a1"}) }); err == nil {
		t.Error("a node of another machine frees one")
	}
	change(func(tx *store.Tx) error { return Detach(tx, "n1", []string{"a1"}) })
	change(func(tx *store.Tx) error { return RemoveNode(tx, tx.Node("n2")) })
	if a1, a2 := s.View().Attachment("a1"), s.View().Attachment("a2"); a1.Ended.IsZero() || !a2.Ended.IsZero() || a2.NodeID != "n1" {
		t.Errorf("a1 is %+v, a2 %+v", a1, a2)
	}
	change(func(tx *store.Tx) error { return RemoveNode(tx, tx.Node("n1")) })
	if a2 := s.View().Attachment("a2"); a2.Ended.IsZero() {
		t.Errorf("after the last one a2 is %+v", a2)
	}
}
