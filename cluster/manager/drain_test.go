package manager

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

func TestDrainsOver(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		name  string
		left  map[string]time.Duration // of drained nodes, by ID
		until map[string]string        // labels of nodes that are active
		over  []string
		wait  time.Duration
	}{
		{name: "no node is drained for a while"},
		{name: "the soonest comes first", left: map[string]time.Duration{"a": time.Hour, "b": time.Minute, "c": 2 * time.Minute}, wait: time.Minute},
		{name: "its time is over at the moment itself", left: map[string]time.Duration{"a": 0, "b": time.Second}, over: []string{"a"}, wait: time.Second},
		{name: "a leader that comes late ends all", left: map[string]time.Duration{"a": -time.Hour, "b": -time.Second}, over: []string{"a", "b"}},
		{name: "the label of a node that isn't drained means nothing", until: map[string]string{"a": "2030-01-02T03:04:04Z"}},
	}
	for _, test := range tests {
		memory := store.NewMemory(func() time.Time { return now })
		err := memory.Update(context.Background(), func(tx *store.Tx) error {
			for id, left := range test.left {
				spec, err := cluster.DrainFor(swarm.NodeSpec{}, now, time.Hour)
				if err != nil {
					return err
				}
				spec.Labels[cluster.LabelDrainUntil.Name] = now.Add(left).Format(time.RFC3339)
				if err := tx.Put(&cluster.Node{ID: id, Spec: spec}); err != nil {
					return err
				}
			}
			for id, label := range test.until {
				spec := swarm.NodeSpec{Availability: swarm.NodeAvailabilityActive}
				spec.Labels = map[string]string{cluster.LabelDrainUntil.Name: label}
				if err := tx.Put(&cluster.Node{ID: id, Spec: spec}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		nodes, wait := drainsOver(memory.View(), now)
		var over []string
		for _, node := range nodes {
			over = append(over, node.ID)
		}
		slices.Sort(over)
		if !slices.Equal(over, test.over) || wait != test.wait {
			t.Errorf("%s: over %v, the next in %v; want %v, %v", test.name, over, wait, test.over, test.wait)
		}
	}
}
