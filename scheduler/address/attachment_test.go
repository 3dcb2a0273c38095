package address_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skep/cluster"
	"skep/scheduler/address"
	"skep/store"
)

func attachmentNetwork() *cluster.Network {
	n := &cluster.Network{ID: "lan", VNI: 4100, Subnets: []cluster.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/29"), Gateway: netip.MustParseAddr("10.9.0.1")}}}
	n.Spec.Name = "lan"
	return n
}

// Attachments and tasks never have an address together: not while either is there, and not within
// the rest after a task's end.
func TestForAttachment_GivesNoAddressThatAnybodyHas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := attachmentNetwork()
		objects := []any{n}
		now := cluster.At(time.Unix(1000, 0))
		for i := range rapid.IntRange(0, 5).Draw(t, "taken") {
			at := []cluster.Address{{VNI: n.VNI, Host: cluster.Host(2 + i)}}
			id := string(rune('a' + i))
			switch rapid.SampledFrom([]string{"attachment", "task", "resting", "rested"}).Draw(t, "by") {
			case "attachment":
				objects = append(objects, &cluster.Attachment{ID: id, NetworkID: n.ID, Address: at[0]})
			case "task":
				objects = append(objects, &cluster.Task{ID: id, Addresses: at})
			case "resting":
				objects = append(objects, &cluster.Task{ID: id, Addresses: at, Status: cluster.TaskStatus{State: cluster.StateFailed, Applied: now.Add(time.Second - address.Rest)}})
			case "rested":
				objects = append(objects, &cluster.Task{ID: id, Addresses: at, Status: cluster.TaskStatus{State: cluster.StateFailed, Applied: now.Add(-address.Rest)}})
			}
		}
		view := viewOf(t, objects...)
		var asked netip.Addr
		if rapid.Bool().Draw(t, "ask") {
			asked = n.Subnets[0].Addr(cluster.Host(rapid.IntRange(0, 9).Draw(t, "host")))
		}
		a, from, err := address.ForAttachment(view, n, rapid.StringMatching(`[a-z]{8}`).Draw(t, "id"), asked, now)
		if err != nil {
			return
		}
		if asked.IsValid() && n.Subnets[0].Addr(a.Host) != asked {
			t.Fatalf("got %v, asked for %s", a, asked)
		}
		if a.Host < 2 || a.Host > 6 {
			t.Fatalf("%v isn't for containers", a)
		}
		holder, held := view.Holder(cluster.UniqueAddress(a))
		if !held {
			if from != nil {
				t.Fatalf("%s is to lose what it hasn't got", from.ID)
			}
			return
		}
		if from == nil || from.ID != holder.ID || address.RestsUntil(from) == 0 || address.RestsUntil(from) > now {
			t.Fatalf("%v is %v's", a, holder)
		}
	})
}

func TestForAttachment_SaysWhyThereIsNoAddress(t *testing.T) {
	n := attachmentNetwork()
	view := viewOf(t, n, &cluster.Attachment{ID: "x", NetworkID: "lan", Address: cluster.Address{VNI: n.VNI, Host: 4}})
	for asked, want := range map[string]string{
		"10.9.0.4": "Address already in use", "10.9.0.1": "is reserved", "10.9.0.7": "is reserved", "10.8.0.4": "isn't in a subnet",
	} {
		if _, _, err := address.ForAttachment(view, n, "y", netip.MustParseAddr(asked), 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", asked, err, want)
		}
	}
	objects := []any{n}
	for i := range 5 {
		objects = append(objects, &cluster.Attachment{ID: string(rune('a' + i)), NetworkID: "lan", Address: cluster.Address{VNI: n.VNI, Host: cluster.Host(2 + i)}})
	}
	if _, _, err := address.ForAttachment(viewOf(t, objects...), n, "y", netip.Addr{}, 0); err == nil || err.Error() != "no free address in network lan (5 in use)" {
		t.Errorf("a full network: %v", err)
	}
}

// viewOf is a View of a database of these objects.
func viewOf(t interface{ Fatal(...any) }, objects ...any) store.View {
	db := store.NewMemory(func() time.Time { return time.Unix(1, 0) })
	world{t, db}.must(func(tx *store.Tx) error {
		for _, o := range objects {
			if err := tx.Put(o); err != nil {
				return err
			}
		}
		return nil
	})
	return db.View()
}
