package dispatch

import (
	"maps"
	"slices"

	"skep/cluster"
	"skep/store"
)

// secretRefs is which secrets and configs an agent has, because tasks of its node
// may need them: from when a task is assigned until it has ended or is to end. Labels
// that change aren't sent: containers don't see them.
type secretRefs struct {
	// claims are the IDs that each task refers to, and count how many claims each ID has.
	claims map[string][]string
	count  map[string]int
	// sent are the IDs that the agent was sent, or sent that they are gone.
	sent map[string]bool
	// changed are the IDs whose count changed since the last message.
	changed map[string]struct{}
}

func newSecretRefs() secretRefs {
	return secretRefs{
		claims: make(map[string][]string), count: make(map[string]int),
		sent: make(map[string]bool), changed: make(map[string]struct{}),
	}
}

// needs tells whether a task's container may yet have to be made.
func needs(task *cluster.Task) bool { return task.Live() && !task.Status.State.Terminal() }

func (h *secretRefs) claim(taskID string, ids []string) {
	if len(ids) == 0 {
		return
	}
	h.claims[taskID] = ids
	for _, id := range ids {
		h.count[id]++
		h.changed[id] = struct{}{}
	}
}

func (h *secretRefs) release(taskID string) {
	for _, id := range h.claims[taskID] {
		if h.count[id]--; h.count[id] == 0 {
			delete(h.count, id)
		}
		h.changed[id] = struct{}{}
	}
	delete(h.claims, taskID)
}

// diff puts into the message what the agent lacks and what it is to forget. What
// the view doesn't have was removed for good, since IDs are never used again.
func (h *secretRefs) diff(message *cluster.Assignments, view store.View) {
	for _, id := range slices.Sorted(maps.Keys(h.changed)) {
		needed := h.count[id] > 0
		switch secret, config := view.Secret(id), view.Config(id); {
		case needed == h.sent[id]:
			continue
		case !needed:
			message.Dropped = append(message.Dropped, id)
			delete(h.sent, id)
			continue
		case secret != nil:
			message.Secrets = append(message.Secrets, secret)
		case config != nil:
			message.Configs = append(message.Configs, config)
		default:
			message.Gone = append(message.Gone, id)
		}
		h.sent[id] = true
	}
	clear(h.changed)
}
