package agent

import (
	"fmt"
	"maps"
	"slices"

	"skep/cluster"
)

// maxIdleRevisions is how many revisions that no task uses are kept within a
// session before it is ended for a fresh start.
const maxIdleRevisions = 1000

// apply takes in what a manager wants. An error means that it makes no sense and
// the session must end; then nothing was changed.
func (s *taskSet) apply(m *cluster.Assignments) error {
	sent := make(map[string]*cluster.Revision, len(m.Revisions))
	for _, revision := range m.Revisions {
		sent[cluster.RevisionID(revision.ServiceID, revision.Number)] = revision
	}
	wanted := make(map[string]bool, len(m.Tasks))
	for _, task := range m.Tasks {
		if task.NodeID != s.agent.cfg.NodeID {
			return fmt.Errorf("take assignment: task %s is another node's: %w", task.ID, cluster.ErrInvalid)
		}
		wanted[task.ID] = true
	}
	if m.Full {
		s.forgetRevisions()
	}
	s.learn(sent)
	s.keep(m)
	if m.Full {
		s.full = true
		for taskID, t := range s.tasks {
			if !wanted[taskID] && !t.removing {
				s.remove(taskID, m.To)
			}
		}
		for taskID := range s.unknown {
			if !wanted[taskID] {
				s.removeUnknown(taskID)
			}
		}
		clear(s.unknown)
		s.networks.end(m.To)
		s.networksNews()
	}
	for _, task := range m.Tasks {
		s.assign(task, m.Traces[task.ServiceID])
	}
	for _, taskID := range m.Removed {
		s.remove(taskID, m.To)
	}
	for _, id := range m.Dropped {
		delete(s.secrets, id)
		delete(s.configs, id)
	}
	if s.outbox != nil {
		s.outbox.setFenced(s.anyFenced())
	}
	s.agent.touch()
	return nil
}

// learn takes in revisions. Tasks that had to wait for theirs can go on.
func (s *taskSet) learn(sent map[string]*cluster.Revision) {
	if len(sent) == 0 {
		return
	}
	maps.Copy(s.revisions, sent)
	for taskID, t := range s.tasks {
		if t.assignment.Revision == nil && !t.removing {
			t.assignment = s.assignment(t.assignment.Task)
			s.schedule(taskID)
		}
	}
}

// keep takes in secrets and configs. Tasks that had to wait for theirs can go on.
func (s *taskSet) keep(m *cluster.Assignments) {
	if m.Full {
		s.secrets, s.configs = make(map[string]*cluster.Secret), make(map[string]*cluster.Config)
	}
	for _, secret := range m.Secrets {
		s.secrets[secret.ID] = secret
	}
	for _, config := range m.Configs {
		s.configs[config.ID] = config
	}
	for _, id := range m.Gone { // whichever of the two it was
		s.secrets[id], s.configs[id] = nil, nil
	}
	if len(m.Secrets)+len(m.Configs)+len(m.Gone) == 0 {
		return
	}
	for taskID, t := range s.tasks {
		if t.status.State < cluster.StateReady && !t.removing {
			s.schedule(taskID)
		}
	}
}

// attachSecrets puts into an assignment what has come of the secrets and configs that its
// revision refers to.
func (s *taskSet) attachSecrets(a *Assignment) {
	if a.Revision == nil {
		return
	}
	for _, id := range cluster.References(a.Revision.Spec.ContainerSpec) {
		if secret, come := s.secrets[id]; come {
			if a.Secrets == nil {
				a.Secrets = make(map[string]*cluster.Secret)
			}
			a.Secrets[id] = secret
		}
		if config, come := s.configs[id]; come {
			if a.Configs == nil {
				a.Configs = make(map[string]*cluster.Config)
			}
			a.Configs[id] = config
		}
	}
}

// over tells whether managers want nothing of the task to run.
func over(task *cluster.Task) bool {
	return task.Desired >= cluster.StateShutdown || task.Status.State.Terminal()
}

// assign takes in one task as a manager has it. What we know better stays: the
// status, and the highest desired state we were told. A new one is traced below traceparent.
func (s *taskSet) assign(task *cluster.Task, traceparent string) {
	s.newest = max(s.newest, task.Version)
	if len(task.Addresses) > 0 {
		s.agent.networksChanged()
	}
	t := s.tasks[task.ID]
	if t == nil {
		t = &taskState{assignment: s.assignment(task), status: task.Status}
		t.startTrace(s.agent.cfg.Trace, traceparent)
		s.tasks[task.ID] = t
		s.schedule(task.ID)
		return
	}
	before := t.assignment.Task
	if t.removing || task.Version < before.Version {
		return
	}
	if task.Desired < before.Desired {
		kept := *task
		kept.Desired = before.Desired
		task = &kept
	}
	next := s.assignment(task)
	if next.Revision == nil {
		next.Revision = t.assignment.Revision
	}
	t.assignment = next
	switch {
	case over(task) && !over(before) && !t.fenced: // a fenced one is being stopped already
		s.drain(t)
		s.interrupt(task.ID)
	case task.Desired != before.Desired, !slices.Equal(task.Addresses, before.Addresses):
		s.schedule(task.ID)
	}
}

// remove has a task whose record is gone, as of index, stopped and forgotten.
func (s *taskSet) remove(taskID string, index uint64) {
	t := s.tasks[taskID]
	if t == nil || t.removing {
		return
	}
	s.newest = max(s.newest, index)
	t.removing = true
	t.endTrace(errNotRun)
	s.agent.networksChanged()
	if t.status.State.Terminal() || over(t.assignment.Task) {
		s.schedule(taskID) // what is under way is the stop
		return
	}
	s.interrupt(taskID)
}

// removeUnknown has a container of this node removed that belongs to no task.
func (s *taskSet) removeUnknown(taskID string) {
	s.agent.log.Info("removing a container that belongs to no task", "task", taskID)
	s.tasks[taskID] = &taskState{
		assignment: Assignment{Task: &cluster.Task{ID: taskID, NodeID: s.agent.cfg.NodeID, Desired: cluster.StateRemove}},
		removing:   true,
	}
	s.schedule(taskID)
}

// found takes in the containers that the driver has for this node.
func (s *taskSet) found(containers []Container) {
	clear(s.unknown)
	for _, c := range containers {
		switch {
		case s.tasks[c.TaskID] != nil:
		case s.full:
			s.removeUnknown(c.TaskID)
		default:
			s.unknown[c.TaskID] = true
		}
	}
}

// forgetRevisions drops the revisions that no task uses.
func (s *taskSet) forgetRevisions() {
	used := s.usedRevisions()
	for id := range s.revisions {
		if used[id] == nil {
			delete(s.revisions, id)
		}
	}
}

// usedRevisions returns the revisions of the tasks that aren't being removed.
func (s *taskSet) usedRevisions() map[string]*cluster.Revision {
	used := make(map[string]*cluster.Revision)
	for _, t := range s.tasks {
		if r := t.assignment.Revision; r != nil && !t.removing {
			used[cluster.RevisionID(r.ServiceID, r.Number)] = r
		}
	}
	return used
}

// merge returns the complete set that full becomes by the difference diff.
func merge(full, diff *cluster.Assignments) *cluster.Assignments {
	if diff.Full {
		return diff
	}
	gone := make(map[string]bool)
	for _, task := range diff.Tasks {
		gone[task.ID] = true
	}
	for _, taskID := range diff.Removed {
		gone[taskID] = true
	}
	merged := &cluster.Assignments{Full: true, To: diff.To}
	merged.Revisions = append(append(merged.Revisions, full.Revisions...), diff.Revisions...)
	for _, task := range full.Tasks {
		if !gone[task.ID] {
			merged.Tasks = append(merged.Tasks, task)
		}
	}
	merged.Tasks = append(merged.Tasks, diff.Tasks...)
	merged.Traces = maps.Clone(full.Traces)
	if merged.Traces == nil {
		merged.Traces = cluster.Traces{}
	}
	maps.Copy(merged.Traces, diff.Traces)
	mergeData(merged, full, diff)
	return merged
}

// mergeData does the same for secrets and configs.
func mergeData(merged, full, diff *cluster.Assignments) {
	dropped := func(id string) bool { return slices.Contains(diff.Dropped, id) }
	merged.Secrets = append(slices.DeleteFunc(slices.Clone(full.Secrets), func(s *cluster.Secret) bool { return dropped(s.ID) }), diff.Secrets...)
	merged.Configs = append(slices.DeleteFunc(slices.Clone(full.Configs), func(c *cluster.Config) bool { return dropped(c.ID) }), diff.Configs...)
	merged.Gone = append(slices.DeleteFunc(slices.Clone(full.Gone), dropped), diff.Gone...)
}
