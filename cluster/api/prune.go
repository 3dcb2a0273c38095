package api

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

const (
	// pruneAfter is how long a node must have been down when the request doesn't say: as
	// long as it takes for its tasks to be given up.
	pruneAfter = 24 * time.Hour
	// maxPruned is how many nodes one request removes: it is one write, done or not, that
	// fits well into an entry of the log.
	maxPruned = 5000
)

// pruneNodes removes workers that have been down for long. With dry-run=1 it only says
// which these are.
func (s *Server) pruneNodes(ctx context.Context, r *request) (response, error) {
	until := pruneAfter
	if text := r.query.Get("until"); text != "" {
		var err error
		if until, err = time.ParseDuration(text); err != nil || until < 0 {
			return response{}, fail(cluster.ErrInvalid, "invalid value for until: %q is no time span such as 24h", text)
		}
	}
	dry, err := r.strictFlag("dry-run")
	if err != nil {
		return response{}, err
	}
	for name := range r.query {
		if name != "until" && name != "dry-run" {
			return response{}, fail(cluster.ErrInvalid, "prune nodes: unknown parameter %q", name)
		}
	}
	st := r.manager.Store()
	answer := cluster.PrunedNodes{Nodes: []cluster.PrunedNode{}, Kept: []cluster.PrunedNode{}}
	var dead []*cluster.Node
	view, now := st.View(), st.Now()
	for node := range view.Nodes() {
		switch is, why := prunable(view, node, until, now); {
		case is:
			dead = append(dead, node)
		case why != "":
			answer.Kept = append(answer.Kept, pruned(node, why))
		}
	}
	answer.Left = max(0, len(dead)-maxPruned)
	dead = dead[:len(dead)-answer.Left]
	if dry {
		for _, node := range dead {
			answer.Nodes = append(answer.Nodes, pruned(node, ""))
		}
		return response{body: answer}, nil
	}
	if len(dead) == 0 {
		return response{body: answer}, nil
	}
	err = st.Update(ctx, func(tx *store.Tx) error {
		answer.Nodes = answer.Nodes[:0]
		for _, old := range dead {
			node := tx.Node(old.ID)
			if node == nil {
				continue
			}
			if is, _ := prunable(tx.View, node, until, tx.Now()); !is {
				continue // It came back meanwhile.
			}
			if err := RemoveNode(tx, node); err != nil {
				return err
			}
			answer.Nodes = append(answer.Nodes, pruned(node, ""))
		}
		return nil
	})
	if err != nil {
		return response{}, fmt.Errorf("prune nodes: %w", err)
	}
	return response{body: answer}, nil
}

// prunable tells whether a node is one to remove, and why not when it is down for long
// all the same.
func prunable(view store.View, node *cluster.Node, until time.Duration, now time.Time) (is bool, why string) {
	if node.Status.State != cluster.NodeDown || now.Sub(node.Status.Since) < until {
		return false, ""
	}
	if node.Role == swarm.NodeRoleManager || node.Spec.Role == swarm.NodeRoleManager || node.ManagerAddr != "" {
		return false, `it is a manager: see "skep node demote"`
	}
	running := 0
	for task := range view.TasksOfNode(node.ID) {
		if task.Assigned() && !task.Status.State.Terminal() {
			running++
		}
	}
	if running > 0 {
		return false, fmt.Sprintf(`%d of its tasks may still run there; "skep node rm --force" gives them up`, running)
	}
	return true, ""
}

func pruned(node *cluster.Node, why string) cluster.PrunedNode {
	return cluster.PrunedNode{ID: node.ID, Hostname: node.Description.Hostname, Addr: node.Status.Addr, DownSince: node.Status.Since.UTC(), Message: node.Status.Message, Kept: why}
}
