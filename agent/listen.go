package agent

import (
	"context"
	"time"

	"skep/cluster"
)

// listenTime is how long a program without a health check is waited for to listen at a published port; one that
// never does counts as running then. It is as long as docker's command watches a task that has started.
const listenTime = 5 * time.Second

// awaited are the published ports at one of which a program is to listen before anything is led to it. A job works,
// and doesn't answer.
func (s *taskSet) awaited(t *taskState) (ports []cluster.PublishedPort) {
	if _, is := s.agent.cfg.Driver.(Listener); !is || t.assignment.Revision == nil || t.assignment.Revision.Job {
		return nil
	}
	for _, address := range t.assignment.Task.Addresses {
		if a := byVNI(s.networks.accounts, address.VNI); a != nil {
			if service := a.service(t.assignment.Task.ServiceID); service != nil {
				ports = append(ports, service.Ports...)
			}
		}
	}
	return ports
}

// awaitListening returns true when a program listens at one of these ports, or was waited for long enough; false at
// ctx's end.
func (a *Agent) awaitListening(ctx context.Context, pid int, ports []cluster.PublishedPort) bool {
	const first, longest = 2 * time.Millisecond, 50 * time.Millisecond
	limited, cancel := context.WithTimeout(ctx, listenTime)
	defer cancel()
	for wait := first; !a.cfg.Driver.(Listener).Listens(pid, ports) && cluster.Sleep(limited, wait); wait = min(2*wait, longest) {
	}
	return ctx.Err() == nil
}
