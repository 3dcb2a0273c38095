package api

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

func (s *Server) listNodes(ctx context.Context, r *request) (response, error) {
	args, err := parseFilters(r, "name", "id", "label", "node.label", "role", "membership")
	if err != nil {
		return response{}, err
	}
	roles, memberships := args.Get("role"), args.Get("membership")
	if err := checkValues("role", roles, string(swarm.NodeRoleWorker), string(swarm.NodeRoleManager)); err != nil {
		return response{}, err
	}
	if err := checkValues("membership", memberships, "accepted", "pending"); err != nil {
		return response{}, err
	}
	names, ids, labels, nodeLabels := args.Get("name"), args.Get("id"), args.Get("label"), args.Get("node.label")
	return response{list: listOf(r.manager.Store().View().Nodes(), func(node *cluster.Node) bool {
		return anyPrefix(node.Description.Hostname, names) && anyPrefix(node.ID, ids) &&
			hasLabels(node.Description.Engine.Labels, labels) && hasLabels(node.Spec.Labels, nodeLabels) &&
			anyOf(string(node.Role), roles) && anyOf("accepted", memberships)
	}, func(node *cluster.Node) swarm.Node { return renderNode(node, r.manager) })}, nil
}

func (s *Server) inspectNode(ctx context.Context, r *request) (response, error) {
	node, err := findNode(r.manager.Store().View(), r.vars("id"))
	if err != nil {
		return response{}, err
	}
	shown := renderNode(node, r.manager)
	shown.Status.Message = cluster.Sentences(shown.Status.Message, node.Clashes(r.manager.Store().View().Networks()))
	return response{body: shown}, nil
}

func (s *Server) updateNode(ctx context.Context, r *request) (response, error) {
	var spec swarm.NodeSpec
	if err := r.decode(&spec); err != nil {
		return response{}, err
	}
	index, err := r.index("node")
	if err != nil {
		return response{}, err
	}
	if spec.Role != swarm.NodeRoleWorker && spec.Role != swarm.NodeRoleManager {
		return response{}, fail(cluster.ErrInvalid, "invalid Role: %q", string(spec.Role))
	}
	if err := checkAvailability(spec.Availability, false); err != nil {
		return response{}, err
	}
	if err := cluster.CheckLabels(cluster.OnNode, spec.Labels); err != nil {
		return response{}, err
	}
	node, err := findNode(r.manager.Store().View(), r.vars("id"))
	if err != nil {
		return response{}, err
	}
	if node.Spec.Role == swarm.NodeRoleManager && spec.Role == swarm.NodeRoleWorker {
		if err := lastManager(r.manager.Store().View(), node.ID); err != nil {
			return response{}, err
		}
		if err := r.manager.CanLose(node.ID); err != nil {
			return response{}, err
		}
	}
	return response{}, r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		old := tx.Node(node.ID)
		if old == nil {
			return fail(cluster.ErrNotFound, "node %s not found", r.vars("id"))
		}
		if old.Version != index {
			return fmt.Errorf("update node %s: %w", node.ID, cluster.ErrConflict)
		}
		if old.Spec.Role == swarm.NodeRoleManager && spec.Role == swarm.NodeRoleWorker {
			if err := lastManager(tx.View, node.ID); err != nil {
				return err
			}
		}
		next := *old
		if next.Spec, err = cluster.CheckDrainUntil(old.Spec, spec); err != nil {
			return err
		}
		return tx.Put(&next)
	})
}

// drainNode drains a node for a while, by the database's time: the client's clock needn't be right.
func (s *Server) drainNode(ctx context.Context, r *request) (response, error) {
	length, err := time.ParseDuration(r.query.Get("for"))
	if err != nil {
		return response{}, fail(cluster.ErrInvalid, "for=%q: it takes a duration such as 30m", r.query.Get("for"))
	}
	node, err := findNode(r.manager.Store().View(), r.vars("id"))
	if err != nil {
		return response{}, err
	}
	var drained cluster.Drained
	err = r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		old := tx.Node(node.ID)
		if old == nil {
			return fail(cluster.ErrNotFound, "node %s not found", r.vars("id"))
		}
		next := *old
		if next.Spec, err = cluster.DrainFor(old.Spec, tx.Now(), length); err != nil {
			return err
		}
		drained = cluster.Drained{NodeID: old.ID, Until: cluster.DrainsUntil(next.Spec)}
		return tx.Put(&next)
	})
	return response{body: drained}, err
}

// lastManager refuses to let go of the only node that is a manager and is to stay
// one: two demotions at once must not both succeed.
func lastManager(view store.View, id string) error {
	for node := range view.Nodes() {
		if node.ID != id && node.Role == swarm.NodeRoleManager && node.Spec.Role == swarm.NodeRoleManager {
			return nil
		}
	}
	return fail(cluster.ErrPrecondition, "attempting to demote the last manager of the swarm")
}

func (s *Server) removeNode(ctx context.Context, r *request) (response, error) {
	force := r.flag("force")
	node, err := findNode(r.manager.Store().View(), r.vars("id"))
	if err != nil {
		return response{}, err
	}
	return response{}, r.manager.Store().Update(ctx, func(tx *store.Tx) error {
		node := tx.Node(node.ID)
		if node == nil {
			return fail(cluster.ErrNotFound, "node %s not found", r.vars("id"))
		}
		if node.Role == swarm.NodeRoleManager || node.Spec.Role == swarm.NodeRoleManager {
			return fail(cluster.ErrPrecondition, "node %s is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal", node.ID)
		}
		if !force && node.Status.State == cluster.NodeReady {
			return fail(cluster.ErrPrecondition, "node %s is not down and can't be removed", node.ID)
		}
		return RemoveNode(tx, node)
	})
}

// RemoveNode removes a node. Nobody will report on its tasks any more: what they hold is
// freed, and they are replaced elsewhere. Containers of users stay on the engine, if other nodes have it, too.
func RemoveNode(tx *store.Tx, node *cluster.Node) error {
	var orphans []*cluster.Task
	for task := range tx.TasksOfNode(node.ID) {
		if task.Status.State.Terminal() {
			continue
		}
		status := task.Status
		status.State, status.Since = cluster.StateOrphaned, cluster.At(tx.Now())
		status.Message, status.Err = "Task belonged to a node that has been deleted", ""
		if next := task.Advance(status, cluster.At(tx.Now())); next != nil {
			orphans = append(orphans, next)
		}
	}
	for _, task := range orphans {
		if err := tx.Put(task); err != nil {
			return err
		}
	}
	if err := leaveAttachments(tx, node); err != nil {
		return err
	}
	tx.Delete(node)
	return nil
}
