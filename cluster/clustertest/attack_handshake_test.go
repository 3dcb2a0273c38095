package clustertest

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"skep/cluster"
	"skep/cluster/manager"
)

// handshakes has an address do one handshake after the other with a manager, every apart,
// and counts those that the manager did.
func handshakes(ctx context.Context, to *Machine, ip string, apart time.Duration, done *atomic.Int64) {
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{cluster.ProtocolHTTP}}
	for ctx.Err() == nil {
		go func() {
			if conn, err := manager.Dial(ctx, machineNetwork{to.cluster.wire, ip}, to.IP+":2377", config); err == nil {
				done.Add(1)
				conn.Close()
			}
		}()
		time.Sleep(apart)
	}
}

// A handshake costs a manager more than it costs to ask for one to be begun. So strangers
// get a few hundred in a second, whoever else comes gets a turn among them, and nodes that
// are here needn't wait for one.
func TestAttack_ManyHandshakes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 2, Options{})
		leader, worker := c.Leader(), c.Machines[3]
		term := c.term()
		c.wire.delay(worker.IP, 150*time.Millisecond)
		id := c.Machines[0].Create(Spec("web", "app:1", 6))
		c.Runs(20*time.Second, id, "app:1", 6)
		worker.Crash()
		time.Sleep(3 * time.Second)

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		const addresses = 80
		var done atomic.Int64
		for i := range addresses {
			go handshakes(ctx, leader, fmt.Sprint("127.0.66.", i+1), 100*time.Millisecond, &done)
		}
		time.Sleep(time.Second)
		before := done.Load()
		const span = 2 * time.Second
		time.Sleep(span)
		if n := float64(done.Load()-before) / span.Seconds(); n > 300 || n < 100 {
			t.Errorf("it did %.0f handshakes in a second with strangers; want 100 to 300", n)
		}

		worker.Restart()
		c.Eventually(3*time.Second, "a worker far away that was restarted is ready", func() error {
			node := leader.node.Manager().Store().View().Node(nodeID(worker))
			if node == nil || node.Status.State != cluster.NodeReady {
				return fmt.Errorf("it is %+v", node)
			}
			return nil
		})
		joins := time.Now()
		c.add(6).Join(leader, false)
		if took := time.Since(joins); took > 2*time.Second {
			t.Errorf("a join took %v", took)
		}
		began := time.Now()
		conn, err := manager.Dial(ctx, machineNetwork{c.wire, c.Machines[(indexOf(c, leader)+1)%3].IP}, leader.IP+":2377", &tls.Config{InsecureSkipVerify: true})
		if took := time.Since(began); err != nil || took > 100*time.Millisecond {
			t.Errorf("a handshake from another manager's address took %s, %v", took, err)
		} else {
			conn.Close()
		}
		leader.writes("meanwhile", time.Second)
		if now := c.term(); now > term+1 {
			t.Errorf("%d elections", now-term)
		}
		cancel()
		c.Same()
	})
}
