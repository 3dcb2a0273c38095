package api

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"pgregory.net/rapid"

	"skep/cluster"
	"skep/store"
)

// TestTaskList_AsEncoded: tasks with anything in their fields, of revisions with anything in their specs, have the bytes
// that the whole has from encoding/json.
func TestTaskList_AsEncoded(t *testing.T) {
	random := rapid.Custom(func(r *rapid.T) store.View {
		db := store.NewMemory(time.Now)
		text := rapid.SampledFrom([]string{"", "web", "<&>\u2028", "a\"b\\c", "\x7f\t", "ä", "ok"})
		number := rapid.SampledFrom([]int{0, 1, 7, 1 << 30})
		networks := []string{"lan", "two", "ingress", "gone", cluster.PredefinedNetworks()[0].ID}
		err := db.Update(t.Context(), func(tx *store.Tx) error {
			for i, id := range networks[:3] {
				n := &cluster.Network{ID: id, VNI: uint32(4097 + i)}
				n.Spec.Name, n.Spec.Ingress = id, id == "ingress"
				n.Spec.Labels = rapid.SampledFrom([]map[string]string{nil, {"a": "<"}}).Draw(r, "labels")
				n.Subnets = []cluster.Subnet{{Prefix: netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/24", i))}, {Prefix: netip.MustParsePrefix(fmt.Sprintf("fd0%d::/64", i))}}[:rapid.IntRange(1, 2).Draw(r, "subnets")]
				if err := tx.Put(n); err != nil {
					return err
				}
			}
			for number := range uint64(3) {
				revision := &cluster.Revision{ServiceID: "s", Number: number, ServiceName: "web", Job: rapid.Bool().Draw(r, "job")}
				if rapid.Bool().Draw(r, "container") {
					revision.Spec.ContainerSpec = &swarm.ContainerSpec{Image: text.Draw(r, "image"), Env: []string{text.Draw(r, "env")}}
				}
				for _, n := range networks {
					if rapid.Bool().Draw(r, "on") {
						revision.Spec.Networks = append(revision.Spec.Networks, swarm.NetworkAttachmentConfig{Target: n})
					}
				}
				if err := tx.Put(revision); err != nil {
					return err
				}
			}
			for i := range rapid.IntRange(0, 20).Draw(r, "tasks") {
				task := &cluster.Task{
					ID: fmt.Sprint(i, text.Draw(r, "id")), ServiceID: rapid.SampledFrom([]string{"s", "s", "s", ""}).Draw(r, "service"),
					Revision: rapid.Uint64Range(0, 3).Draw(r, "revision"), Slot: uint32(number.Draw(r, "slot")), NodeID: text.Draw(r, "node"),
					Desired: rapid.SampledFrom([]cluster.State{0, cluster.StateRunning, cluster.StateRemove}).Draw(r, "desired"),
				}
				task.Status = cluster.TaskStatus{
					State: rapid.SampledFrom([]cluster.State{0, cluster.StateRunning, cluster.StateFailed}).Draw(r, "state"), Since: cluster.Time(number.Draw(r, "since")),
					Message: text.Draw(r, "message"), Err: text.Draw(r, "err"), ContainerID: text.Draw(r, "container"),
					PID: int32(number.Draw(r, "pid")), ExitCode: int32(-number.Draw(r, "exit")), Ports: rapid.SampledFrom([]string{"", "80:8080/tcp"}).Draw(r, "ports"),
				}
				if rapid.Bool().Draw(r, "claims") {
					task.Generic = []cluster.Claim{{Kind: text.Draw(r, "kind"), Names: rapid.SampledFrom([][]string{nil, {"a", "<"}}).Draw(r, "names"), Count: int64(number.Draw(r, "count"))}}
				}
				for n := range 3 {
					if rapid.Bool().Draw(r, "address") {
						task.Addresses = append(task.Addresses, cluster.Address{VNI: uint32(4097 + n), Host: cluster.Host(2 + i)})
					}
				}
				if err := tx.Put(task); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			r.Fatal(err)
		}
		return db.View()
	})
	rapid.Check(t, func(r *rapid.T) {
		view := random.Draw(r, "view")
		list := newTaskList(view)
		got := []byte{'['}
		for task := range view.Tasks() {
			if len(got) > 1 {
				got = append(got, ',')
			}
			var err error
			if got, err = list.show(task).appendJSON(got); err != nil {
				r.Fatal(err)
			}
		}
		if got, want := string(got)+"]\n", string(whole(t, view)); got != want {
			r.Fatalf("%s\nwant %s", got, want)
		}
	})
}
