package clustertest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"skep/agent"
	"skep/cluster"
)

// TestOneEngine_AttachesByEachNode: of nodes that share an engine one carries the networks, and users run containers on
// them by any. A place is free when its container is gone, not before, whichever daemon runs.
func TestOneEngine_AttachesByEachNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{OneEngine: true})
		engine := c.Machines[0].Driver
		run := func(m *Machine, box string) {
			t.Helper()
			m.NewNetwork("of-" + box)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			answer, err := m.node.Attach(ctx, cluster.AttachRequest{ID: box, Network: "of-" + box, Name: box})
			if err != nil || answer.Attachment == nil {
				t.Fatalf("%s: %+v, %v", m.Name, answer, err)
			}
			at := agent.Attachment{Network: answer.Network, Host: answer.Attachment.Address.Host}
			c.Eventually(10*time.Second, "a container runs by "+m.Name, func() error { return engine.Run(box, at) })
		}
		attached := func(want ...string) error {
			var got []string
			for a := range c.Leader().manager().Store().View().Attachments() {
				if a.Ended.IsZero() {
					got = append(got, a.Name)
				}
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				return fmt.Errorf("%q are attached, want %q", got, want)
			}
			return nil
		}
		stay := func(want ...string) {
			t.Helper()
			time.Sleep(2 * time.Minute) // Twice as long as a container may take to be there.
			if err := attached(want...); err != nil {
				t.Error(err)
			}
		}
		for i, m := range c.Machines {
			run(m, fmt.Sprint("box-", i))
		}
		stay("box-0", "box-1", "box-2")
		engine.Discard("box-1")
		c.Eventually(20*time.Second, "its place is free", func() error { return attached("box-0", "box-2") })

		// Whichever node carried them.
		for i, m := range c.Machines {
			m.Crash()
			next := c.Machines[(i+1)%3]
			box := fmt.Sprint("while-", i, "-was-off")
			run(next, box)
			stay("box-0", "box-2", box)
			engine.Discard(box)
			c.Eventually(20*time.Second, "its place is free", func() error { return attached("box-0", "box-2") })
			m.Restart()
			c.allReady(time.Minute, next)
		}
		stay("box-0", "box-2")
		if faults := engine.Faults(); len(faults) > 0 {
			t.Errorf("the engine: %q", faults)
		}
	})
}
