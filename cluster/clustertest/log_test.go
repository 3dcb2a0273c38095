package clustertest

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
)

// lines is a log that is kept: what operators see, and so nothing below info.
type lines struct {
	mu   *sync.Mutex
	all  *[]string
	with []slog.Attr
}

func newLines() *lines { return &lines{mu: new(sync.Mutex), all: new([]string)} }

func (l *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }
func (l *lines) WithGroup(string) slog.Handler                    { return l }
func (l *lines) WithAttrs(with []slog.Attr) slog.Handler {
	return &lines{mu: l.mu, all: l.all, with: append(append([]slog.Attr(nil), l.with...), with...)}
}

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	line := fmt.Sprintf("%s %s", r.Level, r.Message)
	add := func(a slog.Attr) bool {
		line += fmt.Sprintf(" %s=%v", a.Key, a.Value)
		return true
	}
	for _, a := range l.with {
		add(a)
	}
	r.Attrs(add)
	l.mu.Lock()
	defer l.mu.Unlock()
	*l.all = append(*l.all, line)
	return nil
}

// take gives the lines since the last time.
func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := *l.all
	*l.all = nil
	return taken
}

// phase is something that happens to a cluster, and what operators are to see of it.
type phase struct {
	what string
	do   func()
	// info, warn and err are how many lines of the level there are to be in all logs
	// together, and says what each of them says at least.
	info, warn, err int
	says            []string
}

// TestLog_LinesByLevel reads what all machines of a cluster log: one line for each thing
// that matters, at a level that means what it says, and nothing else.
func TestLog_LinesByLevel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := newLines()
		c := Start(t, 3, 2, Options{Log: slog.New(log)})
		time.Sleep(time.Minute)
		log.take()
		last, leader := c.Machines[4], c.Leader()
		var id string
		for _, phase := range []phase{
			{what: "a service is made", do: func() {
				id = c.Machines[1].Create(Spec("web", "app:1", 6))
				c.Runs(10*time.Second, id, "app:1", 6)
			}, info: 1, says: []string{`INFO service created`, `name=web`, `image=app:1 replicas=6 by=a user on n2`}},
			{what: "a service is updated", do: func() {
				c.Machines[1].Update(id, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "app:2" })
				c.Runs(time.Minute, id, "app:2", 6)
			}, info: 2, says: []string{`service updated`, `image=app:2 was=app:1 by=a user on n2`, `service update completed`}},
			{what: "it is updated, and pauses as somebody wanted", do: func() {
				c.Machines[1].Update(id, func(s *swarm.ServiceSpec) {
					s.TaskTemplate.ContainerSpec.Image, s.Labels = "app:3", map[string]string{cluster.LabelPauseAfter.Name: "1"}
				})
				c.Eventually(time.Minute, "the update pauses", func() error {
					if status := c.Machines[0].Service(id).UpdateStatus; status == nil || status.State != swarm.UpdateStatePaused {
						return fmt.Errorf("it is %+v", status)
					}
					return nil
				})
				c.Machines[0].Do(http.MethodPost, "/skep/v1/services/"+id+"/resume", nil, nil)
				c.Runs(time.Minute, id, "app:3", 6)
			}, info: 3, says: []string{`service updated`, `INFO service update paused`, `service update completed`}},
			{what: "it is scaled", do: func() {
				c.Machines[0].Update(id, func(s *swarm.ServiceSpec) { *s.Mode.Replicated.Replicas = 4 })
			}, info: 1, says: []string{`service scaled`, `replicas=4 before=6 by=a user on n1`}},
			{what: "it is updated to an image that isn't there", do: func() {
				c.Machines[0].Update(id, func(s *swarm.ServiceSpec) {
					s.TaskTemplate.ContainerSpec.Image = "app:missing"
					s.TaskTemplate.ContainerSpec.Labels = map[string]string{cluster.LabelSimulate + "reject-rate": "1"}
				})
			}, info: 1, warn: 2, says: []string{`service updated`, `WARN task rejected`, `name=web.`, `cause=No such image: app:missing`, `WARN service update paused`}},
			{what: "and goes back", do: func() {
				c.Machines[0].Do(http.MethodPost, fmt.Sprintf("/services/%s/update?version=%d&rollback=previous", id, c.Machines[0].Service(id).Version.Index), c.Machines[0].Service(id).Spec, nil)
			}, info: 3, says: []string{`service goes back to an earlier spec`, `service rollback completed`, `service is well again`}},
			{what: "a worker is stopped in order, and started again", do: func() {
				last.Stop()
				time.Sleep(5 * time.Second)
				last.Restart()
			}, info: 2, says: []string{`node is unknown`, `name=n5`, `stopped in order`, `node is ready`}},
			{what: "a worker is killed", do: last.Crash, warn: 1, says: []string{`WARN node is down`, `name=n5`, `reason=`}},
			{what: "and started", do: last.Restart, info: 1, says: []string{`node is ready`, `name=n5`}},
			{what: "an engine is lost", do: func() { last.Driver.SetAway(true) }, warn: 3,
				says: []string{`WARN the engine doesn't answer host=n5`, `WARN node is of no use at the moment`, `WARN node is down`}},
			{what: "and is back", do: func() { last.Driver.SetAway(false) }, info: 2, says: []string{`the engine answers again host=n5`, `node is ready`}},
			{what: "an engine is restarted", do: func() {
				last.Driver.SetAway(true)
				time.Sleep(time.Second)
				last.Driver.SetAway(false)
			}},
			{what: "the leader is stopped in order", do: leader.Stop, info: 4, warn: 1,
				says: []string{`lead the cluster`, `another manager leads`, `name=n`, `node is unknown`, `WARN node is down`}},
			{what: "and started", do: leader.Restart, info: 2, says: []string{"another manager leads host=" + leader.Name + " name=n", `node is ready`}},
			{what: "a node is drained", do: func() {
				var n swarm.Node
				c.Machines[1].Do(http.MethodGet, "/nodes/n5", nil, &n)
				n.Spec.Availability = swarm.NodeAvailabilityDrain
				c.Machines[1].Do(http.MethodPost, fmt.Sprintf("/nodes/%s/update?version=%d", n.ID, n.Version.Index), n.Spec, nil)
			}, info: 1, says: []string{`node has another availability`, `name=n5`, `availability=drain by=a user on n2`}},
			{what: "the service is removed", do: func() { c.Machines[1].Do(http.MethodDelete, "/services/web", nil, nil) },
				info: 1, says: []string{`service removed`, `name=web`, `by=a user on n2`}},
		} {
			phase.do()
			time.Sleep(90 * time.Second)
			// Whose session was with whom is chance; that one is lost and another opened is no
			// more than info in any case.
			said := slices.DeleteFunc(log.take(), func(line string) bool {
				return strings.HasPrefix(line, "INFO session opened") || strings.HasPrefix(line, "INFO no session with a manager")
			})
			all := strings.Join(said, "\n")
			count := func(level string) int {
				n := 0
				for _, line := range said {
					if strings.HasPrefix(line, level+" ") {
						n++
					}
				}
				return n
			}
			if info, warn, err := count("INFO"), count("WARN"), count("ERROR"); info != phase.info || warn != phase.warn || err != phase.err {
				t.Errorf("%s: %d lines of info, %d of warn, %d of error; want %d, %d, %d:\n%s", phase.what, info, warn, err, phase.info, phase.warn, phase.err, all)
			}
			for _, text := range phase.says {
				if !strings.Contains(all, text) {
					t.Errorf("%s: no %q in:\n%s", phase.what, text, all)
				}
			}
		}
	})
}

// TestLog_AStartTellsNoHistory switches all machines off and on: the manager that leads then
// reads its log from the last snapshot on, and what is in there isn't news.
func TestLog_AStartTellsNoHistory(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := newLines()
		c := Start(t, 3, 1, Options{Log: slog.New(log)})
		c.Machines[0].Create(Spec("gone", "app:1", 1))
		c.Machines[0].Do(http.MethodDelete, "/services/gone", nil, nil)
		c.Machines[3].Crash()
		time.Sleep(10 * time.Second)
		c.Machines[3].Restart()
		time.Sleep(10 * time.Second)
		for _, m := range c.Machines {
			m.Crash()
		}
		time.Sleep(time.Minute)
		log.take()
		for _, m := range c.Machines {
			m.Restart()
		}
		time.Sleep(time.Minute)
		c.Machines[0].Create(Spec("new", "app:1", 1))
		time.Sleep(time.Second)
		all := strings.Join(log.take(), "\n")
		for text, want := range map[string]bool{"name=new": true, "name=gone": false, "node joined": false, "node is down": false} {
			if strings.Contains(all, text) != want {
				t.Errorf("%q is told: %v, in\n%s", text, !want, all)
			}
		}
	})
}
