package networks

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// BenchmarkChange is one task's turn to running in a network of 2,000 services with 5 endpoints
// each, until 1,000 sessions have what to tell of it; and, beside it, what the whole account costs.
func BenchmarkChange(b *testing.B) {
	s := newStore(b)
	const services, endpoints, sessions = 2000, 5, 1000
	vnis := map[uint32]int{cluster.FirstVNI: 1}
	update(b, s, func(tx *store.Tx) error {
		n := &cluster.Network{ID: "w", VNI: cluster.FirstVNI}
		if err := tx.Put(n); err != nil {
			return err
		}
		for i := range sessions {
			node := &cluster.Node{ID: fmt.Sprintf("n%d", i), Index: uint16(i + 1), DataAddr: fmt.Sprintf("10.0.%d.%d", i/250, 1+i%250)}
			node.Status.State = cluster.NodeReady
			if err := tx.Put(node); err != nil {
				return err
			}
		}
		return nil
	})
	for i := range services {
		update(b, s, func(tx *store.Tx) error {
			web := &cluster.Service{ID: fmt.Sprintf("s%d", i), VirtualIPs: []cluster.Address{{VNI: cluster.FirstVNI, Host: cluster.Host(1 + i)}}}
			web.Spec.Name = fmt.Sprintf("web%d", i)
			web.Spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "w"}}
			if err := tx.Put(web); err != nil {
				return err
			}
			for k := range endpoints {
				at := i*endpoints + k
				task := &cluster.Task{
					ID: fmt.Sprintf("t%024d", at), ServiceID: web.ID, NodeID: fmt.Sprintf("n%d", at%sessions), Desired: cluster.StateRunning,
					Addresses: []cluster.Address{{VNI: cluster.FirstVNI, Host: cluster.Host(1 + services + at)}},
				}
				task.Status.State = cluster.StatePreparing
				if err := tx.Put(task); err != nil {
					return err
				}
			}
			return nil
		})
	}
	hub := NewHub()
	sub := s.Subscribe()
	defer sub.Close()
	hub.Record(nil, s.View(), true)
	readers := map[*Reader]bool{}
	for i := range sessions {
		r := hub.NewReader(fmt.Sprintf("n%d", i))
		defer r.Close()
		if _, err := r.Next(s.View(), true, false, maps.Keys(vnis)); err != nil {
			b.Fatal(err)
		}
		readers[r] = true
	}
	b.Run("difference", func(b *testing.B) {
		bytes := 0
		for b.Loop() {
			b.StopTimer()
			update(b, s, func(tx *store.Tx) error {
				task := *tx.Task("t" + fmt.Sprintf("%024d", 7))
				task.Status.State = cluster.StateRunning
				task.Status.Message = map[bool]string{true: cluster.MessageUnhealthy}[task.Status.Message == ""]
				return tx.Put(&task)
			})
			changes, view, _ := sub.Take()
			b.StartTimer()
			woken := slices.Collect(maps.Keys(hub.Record(changes, view, false)))
			if len(woken) != sessions {
				b.Fatalf("%d sessions are woken", len(woken))
			}
			for _, r := range woken {
				news, err := r.Next(view, true, false, maps.Keys(vnis))
				if err != nil || len(news.Updates) != 1 {
					b.Fatal(len(news.Updates), err)
				}
				bytes = len(news.Updates[0])
			}
		}
		b.ReportMetric(float64(bytes), "bytes")
	})
	b.Run("whole", func(b *testing.B) {
		bytes := 0
		for b.Loop() {
			parts, err := encode(fullUpdate(s.View(), "w"))
			if err != nil {
				b.Fatal(err)
			}
			bytes = 0
			for _, part := range parts {
				bytes += len(part)
			}
		}
		b.ReportMetric(float64(bytes), "bytes")
	})
}
