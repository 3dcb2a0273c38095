package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/client"

	"skep/cluster"
	"skep/cluster/timeline"
	"skep/cmd/lab/report"
)

const (
	// watchPause is what a watcher waits between two looks.
	watchPause = 30 * time.Millisecond
	// watchLimit is the most that a look may take.
	watchLimit = 3 * time.Second
)

// watch looks at the cluster through one manager, again and again, and records what
// changes.
func (x *experiment) watch(ctx context.Context, m *member) {
	for ctx.Err() == nil {
		x.mu.Lock()
		there := !m.away
		x.mu.Unlock()
		if there && m.proc.running() {
			if v, err := x.look(ctx, m); err == nil {
				x.record(v)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchPause):
		}
	}
}

// look asks a manager what it knows.
func (x *experiment) look(ctx context.Context, m *member) (report.View, error) {
	ctx, cancel := context.WithTimeout(ctx, watchLimit)
	defer cancel()
	nodes, err := x.nodes(ctx, m)
	if err != nil {
		return report.View{}, err
	}
	services, err := m.api.ServiceList(ctx, swarm.ServiceListOptions{})
	if err != nil {
		return report.View{}, err
	}
	tasks, err := m.api.TaskList(ctx, swarm.TaskListOptions{})
	if err != nil {
		return report.View{}, err
	}
	v := viewOf(nodes, services, tasks)
	v.At, v.Through = x.now(), m.name
	v.Until = v.At
	return v, nil
}

// viewOf is what a manager's answers say, as the report keeps it.
func viewOf(nodes []swarm.Node, services []swarm.Service, tasks []swarm.Task) report.View {
	v := report.View{Nodes: map[string]string{}, Voting: map[string]bool{}, Wanted: map[string]int{}, Running: map[string]map[string]int{}, Updates: map[string]string{}}
	names, serviceNames := map[string]string{}, map[string]string{}
	for _, n := range nodes {
		names[n.ID] = n.Description.Hostname
		v.Nodes[n.Description.Hostname] = string(n.Status.State)
		if n.ManagerStatus == nil {
			continue
		}
		if n.ManagerStatus.Leader {
			v.Leader = n.Description.Hostname
		}
		if n.ManagerStatus.Reachability == swarm.ReachabilityReachable {
			v.Voting[n.Description.Hostname] = true
		}
	}
	for _, s := range services {
		serviceNames[s.ID] = s.Spec.Name
		if r := s.Spec.Mode.Replicated; r != nil && r.Replicas != nil {
			v.Wanted[s.Spec.Name] = int(*r.Replicas)
		}
		v.Running[s.Spec.Name] = map[string]int{}
		if s.UpdateStatus != nil {
			v.Updates[s.Spec.Name] = string(s.UpdateStatus.State)
		}
	}
	for _, t := range tasks {
		service, known := serviceNames[t.ServiceID]
		if known && t.DesiredState == swarm.TaskStateRunning && t.Status.State == swarm.TaskStateRunning {
			v.Running[service][names[t.NodeID]]++
		}
	}
	return v
}

// record keeps a view when it says something else than the manager's last one.
func (x *experiment) record(v report.View) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if i, ok := x.latest[v.Through]; ok {
		last := &x.round.Views[i]
		same := *last
		same.At, same.Until = v.At, v.Until
		if reflect.DeepEqual(same, v) {
			last.Until = v.Until
			return
		}
	}
	x.latest[v.Through] = len(x.round.Views)
	x.round.Views = append(x.round.Views, v)
}

// leader asks who leads.
func (x *experiment) leader(ctx context.Context) (name string, err error) {
	err = until(ctx, 30*time.Second, "a leader", func(ctx context.Context) error {
		err := errors.New("no manager is there to be asked")
		for _, m := range x.present() {
			asked, cancel := context.WithTimeout(ctx, askLimit)
			var list []swarm.Node
			list, err = x.nodes(asked, m)
			cancel()
			for _, n := range list {
				if n.ManagerStatus != nil && n.ManagerStatus.Leader {
					name = n.Description.Hostname
					return nil
				}
			}
		}
		if err == nil {
			err = errors.New("nobody leads")
		}
		return err
	})
	return name, err
}

// sessions asks with which manager each agent speaks, by name. Docker Swarm doesn't tell.
func (x *experiment) sessions(ctx context.Context) (map[string]string, error) {
	if x.swarm {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	present := x.present()
	if len(present) == 0 {
		return nil, errors.New("no manager is there to be asked")
	}
	status, err := clusterStatus(ctx, present[0].api)
	if err != nil {
		return nil, err
	}
	x.mu.Lock()
	names := maps.Clone(x.names)
	x.mu.Unlock()
	with := map[string]string{}
	for _, n := range status.Nodes {
		if n.Session != "" {
			with[n.Hostname] = names[n.Session]
		}
	}
	return with, nil
}

// clusterStatus asks a node of skep's what `skep cluster status` shows.
func clusterStatus(ctx context.Context, api *client.Client) (status cluster.Status, err error) {
	err = askSkep(ctx, api, "status", &status)
	return status, err
}

// askSkep reads one of skep's own routes.
func askSkep(ctx context.Context, api *client.Client, route string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://skep/skep/v1/"+route, nil)
	if err != nil {
		return err
	}
	resp, err := api.HTTPClient().Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask for /skep/v1/%s: %s", route, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// readTimeline asks the managers that are there what they did in the round, each of which asks all: the answer that lacks the
// fewest counts. Docker Swarm doesn't tell.
func (x *experiment) readTimeline(ctx context.Context) error {
	if x.swarm {
		return nil
	}
	x.round.Began = x.began
	missing := func(t *timeline.Timeline) (n int) {
		for _, lane := range t.Managers {
			if lane.Missing != "" {
				n++
			}
		}
		return n
	}
	var errs []error
	for _, m := range x.present() {
		asked, cancel := context.WithTimeout(ctx, askLimit)
		var t timeline.Timeline
		err := askSkep(asked, m.api, fmt.Sprintf("timeline?since=%d.%09d", x.began.Unix(), x.began.Nanosecond()), &t)
		cancel()
		errs = append(errs, err)
		if err == nil && (x.round.Timeline == nil || missing(&t) < missing(x.round.Timeline)) {
			x.round.Timeline = &t
		}
	}
	if x.round.Timeline == nil {
		return fmt.Errorf("ask the managers what they did: %w", errors.Join(errs...))
	}
	return nil
}

// readSessions finds in the nodes' logs when their agents lost or opened a session.
func (x *experiment) readSessions() error {
	if x.swarm {
		return nil
	}
	for _, m := range x.members {
		log, err := os.ReadFile(m.proc.logFile)
		if err != nil {
			return err
		}
		x.round.Sessions = append(x.round.Sessions, sessionsIn(string(log), m.name, x.began)...)
	}
	return nil
}

// sessionsIn finds what a daemon's log says of its agent's sessions after the round began.
func sessionsIn(log, node string, began time.Time) []report.Session {
	var all []report.Session
	for line := range strings.Lines(log) {
		for _, what := range []string{"session opened", "no session with a manager"} {
			stamp, rest, ok := strings.Cut(strings.TrimPrefix(line, "time="), " ")
			if !ok || !strings.Contains(rest, `msg="`+what+`"`) {
				continue
			}
			at, err := time.Parse(time.RFC3339Nano, stamp)
			if err == nil && !at.Before(began) {
				all = append(all, report.Session{At: report.Since(began, at), Node: node, What: what})
			}
		}
	}
	return all
}
