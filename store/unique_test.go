package store

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"skep/cluster"
)

// TestPut_NoNumberHasTwoOwners puts and deletes objects that want numbers, at random, in
// transactions of which some fail: what is refused is what another has, and who has what is
// the same after a restart.
func TestPut_NoNumberHasTwoOwners(tt *testing.T) {
	const vni = cluster.FirstVNI
	rapid.Check(tt, func(t *rapid.T) {
		s, _ := lead(tt)
		owners := map[cluster.Unique]Holder{}
		give := errors.New("never mind")
		for range rapid.IntRange(1, 30).Draw(t, "updates") {
			next := map[cluster.Unique]Holder{}
			for u, h := range owners {
				next[u] = h
			}
			undo := rapid.Bool().Draw(t, "undo")
			err := s.Update(tt.Context(), func(tx *Tx) error {
				for range rapid.IntRange(1, 3).Draw(t, "changes") {
					id := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "id")
					var hosts []cluster.Address
					for _, n := range rapid.SliceOfNDistinct(rapid.Uint32Range(1, 4), 0, 2, rapid.ID).Draw(t, "hosts") {
						hosts = append(hosts, cluster.Address{VNI: vni, Host: cluster.Host(n)})
					}
					holder, object := Holder{"task", id}, any(&cluster.Task{ID: id, Addresses: hosts})
					if rapid.Bool().Draw(t, "service") {
						web := service(id, "web-"+id)
						web.VirtualIPs = hosts
						holder, object = Holder{"service", id}, web
					}
					if len(hosts) < 2 && rapid.Bool().Draw(t, "attachment") {
						attachment := &cluster.Attachment{ID: id, NodeID: "n"}
						for _, attachment.Address = range hosts {
						}
						holder, object = Holder{"attachment", id}, attachment
					}
					if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
						hosts = nil
						tx.Delete(object)
					} else {
						taken := false
						for _, a := range hosts {
							owner, held := next[cluster.UniqueAddress(a)]
							taken = taken || held && owner != holder
						}
						if err := tx.Put(object); (err != nil) != taken || err != nil && !errors.Is(err, cluster.ErrPrecondition) {
							t.Fatalf("put %v with %v: %v; taken %v, of %v", holder, hosts, err, taken, next)
						} else if err != nil {
							continue
						}
					}
					for u, owner := range next {
						if owner == holder {
							delete(next, u)
						}
					}
					for _, a := range hosts {
						next[cluster.UniqueAddress(a)] = holder
					}
				}
				if undo {
					return give
				}
				return nil
			})
			if undo && errors.Is(err, give) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			owners = next
		}
		again := newStore(tt)
		if err := again.FSM().Restore(reader(snapshotOf(tt, s.View()))); err != nil {
			t.Fatal(err)
		}
		for _, view := range []View{s.View(), again.View()} {
			if got := view.AddressesIn(vni); got != len(owners) {
				t.Fatalf("%d addresses are in use, want %d", got, len(owners))
			}
			found := map[Holder]bool{}
			for task := range view.TasksOfNetwork(vni) {
				found[Holder{"task", task.ID}] = true
			}
			for _, owner := range owners {
				if (owner.Kind == "task") != found[owner] {
					t.Fatalf("tasks with addresses: %v, of %v", found, owners)
				}
			}
			if len(slices.Collect(view.TasksOfNetwork(vni+1))) != 0 {
				t.Fatal("another network has tasks")
			}
			for n := range uint32(6) {
				u := cluster.UniqueAddress(cluster.Address{VNI: vni, Host: cluster.Host(n)})
				holder, held := view.Holder(u)
				if want, is := owners[u]; held != is || holder != want {
					t.Fatalf("%s is %v's, %v, want %v, %v", u, holder, held, want, is)
				}
			}
		}
	})
}

func TestAddressHolders_StopWhenTold(t *testing.T) {
	s, _ := lead(t)
	const vni = cluster.FirstVNI
	err := s.Update(t.Context(), func(tx *Tx) error {
		web := service("s1", "web")
		web.VirtualIPs = []cluster.Address{{VNI: vni, Host: 2}, {VNI: vni + 1, Host: 9}}
		if err := tx.Put(web); err != nil {
			return err
		}
		return tx.Put(&cluster.Task{ID: "t1", Addresses: []cluster.Address{{VNI: vni, Host: 4}, {VNI: vni + 1, Host: 4}}})
	})
	if err != nil {
		t.Fatal(err)
	}
	all := map[cluster.Host]Holder{}
	for host, holder := range s.View().AddressHolders(vni) {
		all[host] = holder
	}
	if len(all) != 2 || all[2] != (Holder{"service", "s1"}) || all[4] != (Holder{"task", "t1"}) {
		t.Errorf("%v", all)
	}
	for range s.View().AddressHolders(vni) {
		break // and nothing is given to who has gone
	}
}

// What doesn't fit into its transaction any more has no number either, for others that go into the
// same entry.
func TestPut_WhatIsRefusedHasNoNumber(t *testing.T) {
	tx := user()
	tx.size = maxUpdate
	a := cluster.Address{VNI: cluster.FirstVNI, Host: 7}
	if err := tx.Put(&cluster.Task{ID: "a", Addresses: []cluster.Address{a}}); !errors.Is(err, ErrUpdateTooLarge) {
		t.Fatal(err)
	}
	if holder, held := tx.Holder(cluster.UniqueAddress(a)); held {
		t.Errorf("%v has an address", holder)
	}
}
