package console

import (
	"context"
	"sync"
	"time"
)

const (
	// pageWait is how long a page waits for what others are asked for. Who looks without a leader has the page at
	// once; what the others say comes into it when they have said it.
	pageWait = 300 * time.Millisecond
	// staleLimit is how old an answer may be that stands in for one that doesn't come: what was so before is no answer
	// when something goes wrong.
	staleLimit = 15 * time.Second
	// askLimit is how long others have at most.
	askLimit = 30 * time.Second
	// keptTimelines and keptCharts are how many answers are kept: a timeline may have some megabytes.
	keptTimelines, keptCharts = 4, 32
)

// answers are what others were asked for, and said. The same question is put once for all who have it. Its goroutines
// are a question each, and end with it.
type answers[T any] struct {
	now func() time.Time
	// most is how many questions' answers are kept, and old how old one may be that is shown while it is asked again.
	most int
	old  time.Duration

	mu   sync.Mutex // guards the rest, and all questions
	kept map[string]*question[T]
}

// question is one that was put, with its last answer.
type question[T any] struct {
	// said is the last answer, and at when the question was put that it answers; the zero time for none yet. err is why
	// the last question, of the time tried, has none.
	said      T
	at, tried time.Time
	err       error
	// of is what the question under way is about, or else the last one, and over is closed when it is answered; nil for
	// none under way. put counts them, and answered is the last one that was.
	of            string
	over          chan struct{}
	put, answered int
}

// get is the answer to the question that key names, which is good for a while and as long as it is about the same. It
// waits for it until ctx ends: then the last one has to do, unless it is old. at is when that was asked for, the zero time for
// never.
func (a *answers[T]) get(ctx context.Context, key, of string, good time.Duration, ask func(context.Context) (T, error)) (said T, at time.Time, err error) {
	over := a.put(ctx, key, of, good, ask)
	if over != nil {
		select {
		case <-over:
		case <-ctx.Done():
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.kept[key]
	if q == nil {
		return said, at, nil
	}
	if now := a.now(); now.Sub(q.tried) <= a.old {
		if err = q.err; now.Sub(q.at) <= a.old {
			said, at = q.said, q.at
		}
	}
	return said, at, err
}

// put asks unless there is an answer that is good, or the question is under way. The channel is closed when there is
// an answer; nil for at once.
func (a *answers[T]) put(ctx context.Context, key, of string, good time.Duration, ask func(context.Context) (T, error)) <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	q := a.kept[key]
	now := a.now()
	if q != nil && q.of == of {
		if q.over != nil {
			return q.over
		}
		if age := now.Sub(q.tried); !q.tried.IsZero() && age >= 0 && age < good {
			return nil
		}
	}
	if q == nil {
		q = &question[T]{}
		a.keepLocked(key, q)
	}
	q.put++
	n, over := q.put, make(chan struct{})
	q.of, q.over = of, over
	go func() {
		defer close(over)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askLimit) // It is for others, too.
		defer cancel()
		said, err := ask(ctx)
		a.mu.Lock()
		defer a.mu.Unlock()
		if n > q.answered {
			q.err, q.tried, q.answered = err, now, n
			if err == nil {
				q.said, q.at = said, now
			}
		}
		if n == q.put {
			q.over = nil
		}
	}()
	return over
}

// keepLocked keeps one more question; when there are too many, any other that isn't under way goes.
func (a *answers[T]) keepLocked(key string, q *question[T]) {
	if a.kept == nil {
		a.kept = map[string]*question[T]{}
	}
	for other, old := range a.kept {
		if len(a.kept) < a.most {
			break
		}
		if old.over == nil {
			delete(a.kept, other)
		}
	}
	a.kept[key] = q
}
