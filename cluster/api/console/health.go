package console

import (
	"context"
	"time"

	"skep/cluster"
)

const (
	// healthAge is how old the health may be that a page shows, when somebody can be asked.
	healthAge = 2 * time.Second
	// healthWait is how long one waits for the leader's word.
	healthWait = 2 * time.Second
)

// health is the cluster's: the leader's account, since it knows the most; without a leader, or when it doesn't say,
// what this manager knows. It is what was last said when nobody says anything in a moment.
func (c *Console) health(ctx context.Context, manager Manager) (cluster.Status, time.Time) {
	leader := manager.LeaderID()
	status, at, _ := c.statuses.get(ctx, "", leader, healthAge, func(ctx context.Context) (cluster.Status, error) {
		if leader != "" && leader != manager.NodeID() {
			var status cluster.Status
			ctx, cancel := context.WithTimeout(ctx, healthWait)
			defer cancel()
			if err := c.call(ctx, "GET", "/skep/v1/status", nil, &status); err == nil {
				return status, nil
			}
		}
		return manager.Status(ctx, false) // It has limits of its own.
	})
	return status, at
}
