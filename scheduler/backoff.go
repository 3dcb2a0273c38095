package scheduler

import (
	"hash/fnv"
	"slices"
	"time"

	"skep/cluster"
)

// backoff makes the delay before a task's replacement grow while one task after
// the other ends soon. Its zero value is Swarm's constant delay.
type backoff struct {
	// limit is what the delay grows up to; 0 turns the back-off off.
	limit time.Duration
	// stable is how long a task must run for its end to count as the first again.
	stable time.Duration
}

// backoff is the service's, from its labels, which the API has checked.
func (v *serviceView) backoff() backoff {
	limit, ok := cluster.LabelRestartMaxDelay.Of(v.service.Spec.Labels)
	if !ok {
		return backoff{}
	}
	b := backoff{limit: limit, stable: 2 * limit}
	if stable, ok := cluster.LabelRestartStable.Of(v.service.Spec.Labels); ok {
		b.stable = stable
	}
	return b
}

// least is the delay after a first end: the policy's, but never nothing, or it
// couldn't be doubled.
func (b backoff) least(delay time.Duration) time.Duration { return max(delay, leastDelay) }

// ends is how many ends in a row bring the delay to its limit: so many a slot
// must keep.
func (b backoff) ends(delay time.Duration) int {
	if b.limit == 0 {
		return 0
	}
	n := 1
	for d := b.least(delay); d < b.limit; d *= 2 {
		n++
	}
	return n
}

// delay is what is waited after so many ends in a row, of which the last one was
// the given task's. From the second one on up to a quarter is taken off, by the
// task's ID, so that what failed together isn't tried again together; yet each
// delay is longer than the one before, until they come to the limit.
func (b backoff) delay(delay time.Duration, ends int, taskID string) time.Duration {
	d := b.least(delay)
	if ends <= 1 {
		return d
	}
	for ; ends > 1 && d < b.limit; ends-- {
		d *= 2
	}
	d = min(d, b.limit)
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(taskID)) // which never fails
	return max(d-time.Duration(hash.Sum32()%256)*(d/1024), b.least(delay))
}

// restartDelay is how long to wait after the end of a task before the next one.
func (v *serviceView) restartDelay(s *slot, t *cluster.Task) time.Duration {
	delay, b := restartPolicyOf(v.revision(t)).delay, v.backoff()
	if b.limit == 0 {
		return delay
	}
	return b.delay(delay, endsInARow(s, t, b.stable), t.ID)
}

// endsInARow counts the tasks of one revision that ended by themselves, one after
// the other: the given one, and those before it that the slot keeps, back to one
// that had run for long. What was stopped, or lost with its node, counts for
// nothing either way.
func endsInARow(s *slot, t *cluster.Task, stable time.Duration) int {
	ends := 1
	for i := slices.Index(s.tasks, t); i >= 0; i-- {
		other := s.tasks[i]
		if other.Revision != t.Revision {
			break
		}
		if other != t && endedItself(s, other) {
			ends++
		}
		if ran(other) >= stable {
			break
		}
	}
	return ends
}
