package dispatch

import "skep/cluster"

// split cuts a message that is too large for a frame in two, to be sent one after
// the other, each task with its revision or after it. A complete set must name
// all tasks, since an agent drops what isn't in it, and all revisions of tasks that
// are to run; so all that can follow later is secrets and configs, for which tasks
// wait, and the revisions of the others. When there are none, ok is false.
func split(m *cluster.Assignments) (first, second *cluster.Assignments, ok bool) {
	rest := cluster.Assignments{From: m.To, To: m.To}
	data := len(m.Secrets) + len(m.Configs)
	switch {
	case m.Full && data > 0:
		rest.Secrets, rest.Configs = m.Secrets, m.Configs
		return &cluster.Assignments{Full: true, To: m.To, Tasks: m.Tasks, Revisions: m.Revisions, Gone: m.Gone}, &rest, true
	case m.Full:
		needed := make(map[revisionKey]bool)
		for _, task := range m.Tasks {
			if task.Live() && !task.Status.State.Terminal() {
				needed[revisionOf(task)] = true
			}
		}
		head := &cluster.Assignments{Full: true, To: m.To, Tasks: m.Tasks, Gone: m.Gone}
		for _, revision := range m.Revisions {
			if needed[keyOf(revision)] {
				head.Revisions = append(head.Revisions, revision)
			} else {
				rest.Revisions = append(rest.Revisions, revision)
			}
		}
		return head, &rest, len(rest.Revisions) > 0
	case data > 1 || data > 0 && len(m.Tasks)+len(m.Revisions) > 0:
		head := &cluster.Assignments{From: m.From, To: m.To, Removed: m.Removed}
		rest.Revisions, rest.Tasks, rest.Gone, rest.Dropped = m.Revisions, m.Tasks, m.Gone, m.Dropped
		switch half := (data + 1) / 2; {
		case len(m.Configs) == 0:
			head.Secrets, rest.Secrets = m.Secrets[:half], m.Secrets[half:]
		case len(m.Secrets) == 0:
			head.Configs, rest.Configs = m.Configs[:half], m.Configs[half:]
		default:
			head.Secrets, rest.Configs = m.Secrets, m.Configs
		}
		return head, &rest, true
	case len(m.Tasks) > 1:
		half := len(m.Tasks) / 2
		head := &cluster.Assignments{From: m.From, To: m.To, Tasks: m.Tasks[:half], Removed: m.Removed}
		rest.Tasks, rest.Gone, rest.Dropped = m.Tasks[half:], m.Gone, m.Dropped
		early := make(map[revisionKey]bool)
		for _, task := range head.Tasks {
			early[revisionOf(task)] = true
		}
		for _, revision := range m.Revisions {
			if early[keyOf(revision)] {
				head.Revisions = append(head.Revisions, revision)
			} else {
				rest.Revisions = append(rest.Revisions, revision)
			}
		}
		return head, &rest, true
	case len(m.Revisions) > 1:
		half := len(m.Revisions) / 2
		head := &cluster.Assignments{From: m.From, To: m.To, Revisions: m.Revisions[:half], Removed: m.Removed}
		rest.Revisions, rest.Tasks, rest.Gone, rest.Dropped = m.Revisions[half:], m.Tasks, m.Gone, m.Dropped
		return head, &rest, true
	}
	return nil, nil, false
}
