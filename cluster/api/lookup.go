package api

import (
	"iter"

	"skep/cluster"
	"skep/store"
)

// Objects are found by their whole ID, then by their whole name, then by the
// beginning of their ID; never by the beginning of a name.

func findService(view store.View, ref string) (*cluster.Service, error) {
	if service := view.Service(ref); service != nil {
		return service, nil
	}
	if service := view.ServiceNamed(ref); service != nil && service.Spec.Name == ref {
		return service, nil
	}
	return only("service", ref, view.ServicesWithPrefix(ref))
}

func findSecret(view store.View, ref string) (*cluster.Secret, error) {
	if secret := view.Secret(ref); secret != nil {
		return secret, nil
	}
	if secret := view.SecretNamed(ref); secret != nil && secret.Spec.Name == ref {
		return secret, nil
	}
	return only("secret", ref, view.SecretsWithPrefix(ref))
}

func findConfig(view store.View, ref string) (*cluster.Config, error) {
	if config := view.Config(ref); config != nil {
		return config, nil
	}
	if config := view.ConfigNamed(ref); config != nil && config.Spec.Name == ref {
		return config, nil
	}
	return only("config", ref, view.ConfigsWithPrefix(ref))
}

func findNode(view store.View, ref string) (*cluster.Node, error) {
	if node := view.Node(ref); node != nil {
		return node, nil
	}
	named := func(yield func(*cluster.Node) bool) {
		for node := range view.Nodes() {
			if node.Description.Hostname == ref && !yield(node) {
				return
			}
		}
	}
	for range named {
		return only("node", ref, named)
	}
	return only("node", ref, view.NodesWithPrefix(ref))
}

func findTask(view store.View, ref string) (*cluster.Task, error) {
	if task := view.Task(ref); task != nil && !task.Gone() {
		return task, nil
	}
	for task := range view.TasksWithPrefix(lastPart(ref)) {
		if taskName(view, task) == ref && !task.Gone() {
			return task, nil
		}
	}
	return only("task", ref, func(yield func(*cluster.Task) bool) {
		for task := range view.TasksWithPrefix(ref) {
			if !task.Gone() && !yield(task) {
				return
			}
		}
	})
}

// only returns the one object there is, or says that there are none or many.
func only[T any](kind, ref string, found iter.Seq[*T]) (*T, error) {
	var first *T
	count := 0
	for object := range found {
		if count++; count == 1 {
			first = object
		}
	}
	switch count {
	case 0:
		return nil, fail(cluster.ErrNotFound, "%s %s not found", kind, ref)
	case 1:
		return first, nil
	default:
		return nil, fail(cluster.ErrInvalid, "%s %s is ambiguous (%d matches found): use its whole ID", kind, ref, count)
	}
}

// lastPart is what follows the last dot: a task's name ends in its ID.
func lastPart(name string) string {
	for i := len(name) - 1; i >= 0; i-- {
		if name[i] == '.' {
			return name[i+1:]
		}
	}
	return name
}

// taskName is <service>.<slot>.<task>, as the task's container is called.
func taskName(view store.View, task *cluster.Task) string {
	revision := view.Revision(task.ServiceID, task.Revision)
	if revision == nil {
		revision = &cluster.Revision{ServiceName: task.ServiceID}
	}
	return revision.TaskName(task)
}

// serviceLabels are the labels of a task's service, as they were when it went.
func serviceLabels(view store.View, task *cluster.Task) map[string]string {
	if service := view.Service(task.ServiceID); service != nil {
		return service.Spec.Labels
	}
	if revision := view.Revision(task.ServiceID, task.Revision); revision != nil {
		return revision.ServiceLabels
	}
	return nil
}
