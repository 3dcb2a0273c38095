package campaign

import (
	"context"
	"errors"
	"syscall"
	"time"
)

const (
	// probes is how often a port is looked at, probePause the time in between: a process that
	// ends closes its connections and its port in any order.
	probes     = 4
	probePause = 10 * time.Millisecond
)

// probe tells whether nobody listens at the port of a leader whose connection ended; the
// leader is "" when somebody does.
func (c *Campaign) probe(ctx context.Context, leader, addr string, probed chan<- refusal) {
	result := refusal{}
	if c.refuses(ctx, addr) {
		result = refusal{leader, c.config.Now()}
	}
	select {
	case probed <- result:
	case <-ctx.Done():
	}
}

// refuses tells whether nobody listens at addr, on a machine that is there.
func (c *Campaign) refuses(ctx context.Context, addr string) bool {
	ctx, cancel := context.WithTimeout(ctx, c.config.HeartbeatTimeout)
	defer cancel()
	for range probes {
		conn, err := c.config.Dial(ctx, addr)
		if err != nil {
			return errors.Is(err, syscall.ECONNREFUSED)
		}
		conn.Close()
		select {
		case <-time.After(probePause):
		case <-ctx.Done():
		}
	}
	return false
}

// Refused tells whether nobody listens at another manager's port, when a third asks. It
// looks once: whoever asks has found so a moment ago.
func (c *Campaign) Refused(ctx context.Context, nodeID string) bool {
	for _, server := range c.config.Servers() {
		if string(server.ID) != nodeID || nodeID == c.config.NodeID {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, c.config.HeartbeatTimeout/3)
		defer cancel()
		conn, err := c.config.Dial(ctx, string(server.Address))
		if err != nil {
			return errors.Is(err, syscall.ECONNREFUSED)
		}
		conn.Close()
	}
	return false
}
