package api

import (
	"testing"
	"time"

	"skep/cluster"
)

// TestStarting: a manager that is just starting is waited for, and isn't called a worker.
func TestStarting(t *testing.T) {
	b := newBench(t)
	manager := b.node.manager
	begin := func(starting error) {
		b.node.mu.Lock()
		defer b.node.mu.Unlock()
		b.node.manager, b.node.starting = nil, starting
	}
	begin(cluster.Errorf(cluster.ErrUnavailable, "This node is starting"))
	time.AfterFunc(50*time.Millisecond, func() {
		b.node.mu.Lock()
		defer b.node.mu.Unlock()
		b.node.manager, b.node.starting = manager, nil
	})
	b.create(spec("web"))

	begin(cluster.Errorf(cluster.ErrUnavailable, "This node is starting"))
	b.server.Hold = 50 * time.Millisecond
	b.do("POST", "/services/create", spec("late")).want(t, 503, "This node is starting")
	b.do("GET", "/services", nil).want(t, 503, "This node is starting")
	b.do("GET", "/skep/v1/status", nil).want(t, 503, "This node is starting")
	begin(nil)
	b.do("GET", "/services", nil).want(t, 503, "This node is not a swarm manager")
}
