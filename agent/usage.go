package agent

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"skep/cluster"
)

const (
	// usageFresh is for how long a look at a container serves all who ask.
	usageFresh = time.Second
	// usageTimeout bounds the look at one container, usageWait what who asks waits for.
	usageTimeout = 5 * time.Second
	usageWait    = 15 * time.Second
	// usageParallel is how many containers are looked at at a time.
	usageParallel = 8
	// maxUsageTasks is of how many tasks looks are kept; of others there is none but the last.
	maxUsageTasks = 1000
)

// Sampler is a driver that tells what containers use.
type Sampler interface {
	// Usage is what the task's container uses now.
	Usage(ctx context.Context, taskID string) (cluster.Usage, error)
}

// usageRequest asks watchUsage; answer has room for one.
type usageRequest struct {
	ctx       context.Context
	serviceID string // "" for all
	history   bool
	answer    chan []cluster.TaskUsage
}

// usageOf is what is known of a task's use of resources; watchUsage owns it.
type usageOf struct {
	serviceID string
	// kept are looks of each UsageEvery, the oldest first; last is the newest look, and err why it failed.
	kept []cluster.Usage
	last cluster.Usage
	err  error
	// looked is when, by the agent's clock.
	looked time.Time
}

// watchUsage looks at what the node's tasks use, each UsageEvery and when somebody asks, until
// ctx ends.
func (a *Agent) watchUsage(ctx context.Context, sampler Sampler) {
	known := map[string]*usageOf{}
	tick := time.NewTicker(cluster.UsageEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			a.lookAtUsage(ctx, sampler, known, "", cluster.UsageEvery/2)
			a.keepUsage(known)
		case asked := <-a.usage:
			if asked.ctx.Err() == nil {
				a.lookAtUsage(asked.ctx, sampler, known, asked.serviceID, usageFresh)
				asked.answer <- tellUsage(known, asked)
			}
		}
	}
}

// lookAtUsage looks at the running tasks, of one service or all, that weren't looked at for a while. It
// forgets those that don't run any more.
func (a *Agent) lookAtUsage(ctx context.Context, sampler Sampler, known map[string]*usageOf, serviceID string, after time.Duration) {
	running := map[string]string{} // services by task
	a.call(func(held *taskSet) {
		for id, t := range held.tasks {
			if t.status.State == cluster.StateRunning && t.assignment.Task != nil {
				running[id] = t.assignment.Task.ServiceID
			}
		}
	})
	for id := range known {
		if _, runs := running[id]; !runs {
			delete(known, id)
		}
	}
	now := a.cfg.Now()
	var looking sync.WaitGroup
	places := make(chan struct{}, usageParallel)
	for id, service := range running {
		if known[id] == nil {
			known[id] = &usageOf{serviceID: service}
		}
		of := known[id]
		if age := now.Sub(of.looked); serviceID != "" && service != serviceID || !of.looked.IsZero() && age >= 0 && age < after {
			continue
		}
		of.looked = now
		places <- struct{}{}
		looking.Go(func() {
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(ctx, usageTimeout)
			defer cancel()
			of.last, of.err = sampler.Usage(ctx, id)
		})
	}
	looking.Wait()
}

// keepUsage keeps the last looks.
func (a *Agent) keepUsage(known map[string]*usageOf) {
	keeping := 0
	for _, of := range known {
		if len(of.kept) > 0 {
			keeping++
		}
	}
	for _, of := range known {
		if of.err != nil || len(of.kept) == 0 && keeping >= maxUsageTasks {
			continue
		}
		if len(of.kept) == 0 {
			keeping++
		}
		if of.kept = append(of.kept, of.last); len(of.kept) > cluster.UsageKept {
			of.kept = of.kept[1:]
		}
	}
}

// tellUsage is the answer: the last look, and the ones before that were asked for, one at least.
func tellUsage(known map[string]*usageOf, asked usageRequest) []cluster.TaskUsage {
	answer := []cluster.TaskUsage{}
	for id, of := range known {
		if asked.serviceID != "" && of.serviceID != asked.serviceID {
			continue
		}
		told := cluster.TaskUsage{TaskID: id}
		if of.err != nil {
			told.Err = of.err.Error()
			answer = append(answer, told)
			continue
		}
		before := of.kept
		for len(before) > 0 && !before[len(before)-1].At.Before(of.last.At) {
			before = before[:len(before)-1]
		}
		if !asked.history {
			before = before[max(0, len(before)-1):]
		}
		told.Usage = append(append(told.Usage, before...), of.last)
		answer = append(answer, told)
	}
	return answer
}

// serveUsage answers a manager.
func (a *Agent) serveUsage(w http.ResponseWriter, r *http.Request) {
	if _, ok := a.cfg.Driver.(Sampler); !ok {
		refuseEngine(w, http.StatusNotImplemented, "this node's driver doesn't tell what containers use")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), usageWait)
	defer cancel()
	query := r.URL.Query()
	asked := usageRequest{ctx, query.Get("service"), query.Get("history") == "1", make(chan []cluster.TaskUsage, 1)}
	select {
	case a.usage <- asked:
	case <-ctx.Done():
		refuseEngine(w, http.StatusServiceUnavailable, "the node doesn't come to look at what its tasks use")
		return
	}
	select {
	case answer := <-asked.answer:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer) // Who doesn't read it has gone.
	case <-ctx.Done():
		refuseEngine(w, http.StatusServiceUnavailable, "the engine of this node takes too long to say what containers use")
	}
}
