package scheduler

import (
	"container/heap"
	"time"
)

// wakes are the times at which services and nodes must be planned again; one of
// neither is for all services that wait.
type wakes struct {
	at    map[Wake]time.Time // by Wake without At
	queue *wakeQueue         // may have outdated ones
}

func newWakes() wakes { return wakes{at: make(map[Wake]time.Time), queue: &wakeQueue{}} }

func (w wakes) set(wake Wake) {
	key := wake
	key.At = time.Time{}
	w.at[key] = wake.At
	heap.Push(w.queue, wake)
}

func (w wakes) has(key Wake) bool {
	_, has := w.at[key]
	return has
}

func (w wakes) drop(key Wake) { delete(w.at, key) }

// next is the earliest time, if there is one.
func (w wakes) next() (time.Time, bool) {
	for w.queue.Len() > 0 {
		first := (*w.queue)[0]
		key := first
		key.At = time.Time{}
		if at, ok := w.at[key]; ok && at.Equal(first.At) {
			return first.At, true
		}
		heap.Pop(w.queue)
	}
	return time.Time{}, false
}

// due takes out what is due at now.
func (w wakes) due(now time.Time) []Wake {
	var due []Wake
	for {
		at, ok := w.next()
		if !ok || at.After(now) {
			return due
		}
		wake := heap.Pop(w.queue).(Wake)
		wake.At = time.Time{}
		delete(w.at, wake)
		due = append(due, wake)
	}
}

// wakeQueue is a heap with the earliest at the top.
type wakeQueue []Wake

func (q wakeQueue) Len() int           { return len(q) }
func (q wakeQueue) Less(i, j int) bool { return q[i].At.Before(q[j].At) }
func (q wakeQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }

// Push is there for heap.Interface.
func (q *wakeQueue) Push(x any) { *q = append(*q, x.(Wake)) }

// Pop removes the last one, for heap.Interface.
func (q *wakeQueue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
}
