package scheduler

import "skep/cluster"

// endIterations removes what belongs to earlier iterations of a job. Their tasks
// stay in the slots until they have stopped, so that the new ones wait for them.
func (w *servicePlan) endIterations() {
	for i := range w.slots {
		s := &w.slots[i]
		s.newest = nil
		for _, t := range s.tasks {
			switch {
			case t.Desired == cluster.StateRemove:
			case t.Revision == w.current.Number:
				s.newest = t
			default:
				w.intend(w.stop(s, cluster.StateRemove, "", t))
			}
		}
	}
}

// complete tells whether the slot's part of the job is done. Whatever else there
// still runs, since its node was lost for a while, is stopped.
func (w *servicePlan) complete(s *slot) bool {
	for _, t := range s.tasks {
		if w.completed(t) {
			w.drop(s, "", w.unfinished(s)...)
			return true
		}
	}
	return false
}

func (v *serviceView) completed(t *cluster.Task) bool {
	return v.job && t.Revision == v.current.Number && t.Desired != cluster.StateRemove && t.Status.State == cluster.StateComplete
}
