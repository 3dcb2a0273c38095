package api

import (
	"context"
	"iter"
	"strings"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// taskFilter says which tasks a list is about.
type taskFilter struct {
	names, ids, labels []string
	services, nodes    map[string]bool
	states             []cluster.State
	upToDate           bool
	none               bool // asks for a runtime that no task has

	// compared keeps what comparing revisions showed: a service may have thousands
	// of tasks, but they are of few revisions on few nodes.
	compared map[placed]bool
}

// placed is a revision on a node, still wanted there or not.
type placed struct {
	service  string
	revision uint64
	node     string
	live     bool
}

func (s *Server) listTasks(ctx context.Context, r *request) (response, error) {
	view := r.manager.Store().View()
	filter, err := readTaskFilter(view, r)
	if err != nil {
		return response{}, err
	}
	tasks, shown := filter.candidates(view), newTaskList(view)
	return response{list: &listing{large: atLeast(tasks, largeList), objects: func(yield func(any, error) bool) {
		for task := range tasks {
			if filter.includes(view, task) && !yield(shown.show(task), nil) {
				return
			}
		}
	}}}, nil
}

func (s *Server) inspectTask(ctx context.Context, r *request) (response, error) {
	view := r.manager.Store().View()
	task, err := findTask(view, r.vars("id"))
	if err != nil {
		return response{}, err
	}
	return response{body: renderTask(view, task)}, nil
}

// readTaskFilter reads the filters. Services and nodes may be given by name or by
// the beginning of their ID, and must exist.
func readTaskFilter(view store.View, r *request) (*taskFilter, error) {
	args, err := parseFilters(r, "name", "id", "label", "service", "node", "desired-state", "_up-to-date", "runtime")
	if err != nil {
		return nil, err
	}
	f := &taskFilter{names: args.Get("name"), ids: args.Get("id"), labels: args.Get("label"), upToDate: len(args.Get("_up-to-date")) > 0, compared: map[placed]bool{}}
	for _, ref := range args.Get("service") {
		service, err := findService(view, ref)
		if err != nil {
			return nil, err
		}
		f.services = add(f.services, service.ID)
	}
	for _, ref := range args.Get("node") {
		node, err := findNode(view, ref)
		if err != nil {
			return nil, err
		}
		f.nodes = add(f.nodes, node.ID)
	}
	for _, word := range args.Get("desired-state") {
		state, err := cluster.ParseState(strings.ToLower(word))
		if err != nil {
			return nil, fail(cluster.ErrInvalid, "Invalid desired-state filter: '%s'", word)
		}
		f.states = append(f.states, state)
	}
	f.none = !anyOf(string(swarm.RuntimeContainer), args.Get("runtime"))
	return f, nil
}

func add(set map[string]bool, key string) map[string]bool {
	if set == nil {
		set = map[string]bool{}
	}
	set[key] = true
	return set
}

// candidates lists the tasks of the narrowest index that holds all wanted ones.
func (f *taskFilter) candidates(view store.View) iter.Seq[*cluster.Task] {
	switch {
	case f.none:
		return func(func(*cluster.Task) bool) {}
	case f.services != nil:
		return each(f.services, view.TasksOfService)
	case f.nodes != nil:
		return each(f.nodes, view.TasksOfNode)
	default:
		return view.Tasks()
	}
}

func each(keys map[string]bool, list func(string) iter.Seq[*cluster.Task]) iter.Seq[*cluster.Task] {
	return func(yield func(*cluster.Task) bool) {
		for key := range keys {
			for task := range list(key) {
				if !yield(task) {
					return
				}
			}
		}
	}
}

func (f *taskFilter) includes(view store.View, task *cluster.Task) bool {
	return !task.Gone() && (f.services == nil || f.services[task.ServiceID]) &&
		(f.nodes == nil || f.nodes[task.NodeID]) &&
		anyPrefix(task.ID, f.ids) &&
		(len(f.states) == 0 || hasState(f.states, task.Desired)) &&
		(len(f.names) == 0 || anyPrefix(taskName(view, task), f.names)) &&
		(len(f.labels) == 0 || hasLabels(serviceLabels(view, task), f.labels)) &&
		(!f.upToDate || f.current(view, task))
}

// current tells whether a task runs what its service wants now.
func (f *taskFilter) current(view store.View, task *cluster.Task) bool {
	key := placed{task.ServiceID, task.Revision, task.NodeID, task.Live()}
	known, ok := f.compared[key]
	if !ok {
		known = upToDate(view, task)
		f.compared[key] = known
	}
	return known
}

func hasState(states []cluster.State, state cluster.State) bool {
	for _, s := range states {
		if s == state {
			return true
		}
	}
	return false
}
