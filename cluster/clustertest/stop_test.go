package clustertest

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// TestStop_NobodyWaits stops one leader after the other in order, while clients write
// without a pause by the two managers that stay. Here a sync and a message take no time, so
// whatever these clients wait is somebody's timer: a refusal that is tried again later.
func TestStop_NobodyWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const most = 5 * time.Millisecond
		c := Start(t, 3, 1, Options{})
		for round := range 8 {
			leader := c.Leader()
			done := make(chan struct{})
			var writers sync.WaitGroup
			for _, m := range c.Machines[:3] {
				if m == leader {
					continue
				}
				writers.Go(func() {
					for n := 0; ; n++ {
						select {
						case <-done:
							return
						case <-time.After(time.Millisecond):
						}
						began := time.Now()
						config := swarm.ConfigSpec{Annotations: swarm.Annotations{Name: fmt.Sprint(m.Name, "-", round, "-", n)}, Data: []byte("x")}
						if err := m.Try(http.MethodPost, "/configs/create", config, nil); err != nil {
							t.Errorf("round %d: %s: %v", round, m.Name, err)
						}
						if took := time.Since(began); took > most {
							t.Errorf("round %d: a write by %s took %v; want at most %v", round, m.Name, took, most)
						}
					}
				})
			}
			time.Sleep(100 * time.Millisecond)
			leader.Stop()
			time.Sleep(100 * time.Millisecond)
			close(done)
			writers.Wait()
			leader.Restart()
			c.vote(3)
		}
	})
}
