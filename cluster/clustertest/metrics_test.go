package clustertest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"gopkg.in/yaml.v3"
)

// scrape has the series of a machine, without histograms' buckets.
func (m *Machine) scrape() map[string]float64 {
	series := map[string]float64{}
	for line := range strings.Lines(string(m.Get("/metrics"))) {
		at := strings.LastIndexByte(line, ' ')
		if value, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64); err == nil && !strings.Contains(line, "_bucket{") {
			series[line[:at]] = value
		}
	}
	return series
}

// sum adds up what the machines that run say.
func (c *Cluster) sum(name string) (sum float64) {
	for _, m := range c.Alive() {
		sum += m.scrape()[name]
	}
	return sum
}

// Managers count elections by why there was one, and one of them says that it leads two seconds after
// the leader is lost at the latest.
func TestMetrics_Elections(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 0, Options{})
		won := func(cause string) string {
			return fmt.Sprintf(`skep_raft_elections_total{cause="%s",result="won"}`, cause)
		}
		lost := c.Leader()
		lost.Stop()
		time.Sleep(2 * time.Second)
		if leaders, n := c.sum("skep_raft_is_leader"), c.sum(won("handover")); leaders != 1 || n != 1 {
			t.Errorf("after a hand-over %v lead, and %v elections were won by it; want 1 and 1", leaders, n)
		}
		lost.Restart()
		c.settled(20 * time.Second)
		before := map[*Machine]float64{}
		for _, m := range c.Alive() {
			before[m] = m.scrape()["skep_raft_leader_changes_total"]
		}
		lost = c.Leader()
		lost.Crash()
		time.Sleep(2 * time.Second)
		if leaders, n := c.sum("skep_raft_is_leader"), c.sum(won("silence"))+c.sum(won("connection")); leaders != 1 || n != 1 {
			t.Errorf("after a crash %v lead, and %v elections were won for it; want 1 and 1", leaders, n)
		}
		for _, m := range c.Alive() {
			series := m.scrape()
			if changes := series["skep_raft_leader_changes_total"] - before[m]; changes != 1 {
				t.Errorf("%s saw %v changes of the leader, want 1", m.Name, changes)
			}
			if series["skep_raft_leaderless_seconds_count"] == 0 {
				t.Errorf("%s never was without a leader", m.Name)
			}
		}
	})
}

// Each node tells how its agent is, and until when its certificates last; a manager which agents it has.
func TestMetrics_OfNodes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		c := Start(t, 1, 1, Options{})
		manager, worker := c.Machines[0], c.Machines[1]
		id := manager.Create(Spec("web", "web:1", 4))
		c.Runs(20*time.Second, id, "web:1", 4)
		series := worker.scrape()
		for name, want := range map[string]float64{
			"skep_agent_session": 1, `skep_agent_tasks{state="running"}`: 2, `skep_agent_tasks{state="failed"}`: 0, "skep_engine_up": 1,
			`skep_engine_call_seconds_count{call="create"}`: 2, `skep_gossip_members{state="alive"}`: 2, "skep_manager_locked": 0,
		} {
			if got, there := series[name]; got != want || !there {
				t.Errorf("of the worker, %s is %v (%v), want %v", name, got, there, want)
			}
		}
		if left := series[`skep_certificate_expiry_timestamp_seconds{kind="node"}`] - float64(time.Now().Unix()); left < 80*24*3600 || left > 91*24*3600 {
			t.Errorf("the certificate ends after %v s, want 90 days", left)
		}
		if series[`skep_certificate_expiry_timestamp_seconds{kind="root"}`] <= series[`skep_certificate_expiry_timestamp_seconds{kind="node"}`] || series["skep_data_disk_free_bytes"] == 0 {
			t.Errorf("%v", series)
		}
		if _, there := series["skep_dispatch_sessions"]; there {
			t.Error("a worker has sessions of agents")
		}
		if series = manager.scrape(); series["skep_dispatch_sessions"] != 2 || series["skep_dispatch_assign_seconds_count"] == 0 {
			t.Errorf("the manager has sessions of %v agents, want 2; what changed was sent %v times", series["skep_dispatch_sessions"], series["skep_dispatch_assign_seconds_count"])
		}
		if series[`skep_store_bytes{what="log"}`] == 0 {
			t.Error("the manager's log has no bytes")
		}
		worker.Stop()
		time.Sleep(time.Second)
		if series = manager.scrape(); series["skep_dispatch_sessions"] != 1 || series[`skep_dispatch_session_ends_total{cause="left"}`] != 1 {
			t.Errorf("after a worker has stopped, the manager has %v sessions, and %v agents left", series["skep_dispatch_sessions"], series[`skep_dispatch_session_ends_total{cause="left"}`])
		}
		c.Same()
	})
}

// shipped is where the rules and the dashboard for Prometheus and Grafana are.
const shipped = "../../cmd/skep/prometheus"

// shippedQueries are all that the alerts and the dashboard ask Prometheus, by what they are called.
func shippedQueries(t *testing.T) map[string]string {
	queries := map[string]string{}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	var dashboard struct {
		Templating struct {
			List []struct{ Name, Query string }
		}
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	read := func(name string, decode func([]byte, any) error, into any) {
		text, err := os.ReadFile(filepath.Join(shipped, name))
		if err == nil {
			err = decode(text, into)
		}
		if err != nil {
			t.Fatalf("read %s: %v", name, err)
		}
	}
	read("skep.rules.yml", yaml.Unmarshal, &rules)
	read("dashboard.json", json.Unmarshal, &dashboard)
	alerts := 0
	for _, group := range rules.Groups {
		for _, rule := range group.Rules {
			queries["alert "+rule.Alert] = rule.Expr
			alerts++
		}
	}
	for _, v := range dashboard.Templating.List {
		queries["variable "+v.Name] = v.Query
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries["panel "+panel.Title] = target.Expr
		}
	}
	if alerts != 16 || len(queries) < alerts+20 {
		t.Fatalf("%d alerts, and %d queries with those of the dashboard", alerts, len(queries))
	}
	return queries
}

var metricName = regexp.MustCompile(`skep_[a-z_]+`)

// The alerts and the dashboard ask for nothing that nodes don't have: a name that was changed would be an alert
// that never comes.
func TestMetrics_AreThoseOfAlertsAndDashboard(t *testing.T) {
	queries := shippedQueries(t)
	bubble(t, func(t *testing.T) {
		c := Start(t, 3, 1, Options{})
		m := c.Manager()
		web := m.Create(Spec("web", "web:1", 3))
		fails := Spec("fails", "app:1", 1)
		fails.TaskTemplate.ContainerSpec.Labels = map[string]string{"skep.simulate.run-for": "1s", "skep.simulate.exit-code": "1"}
		m.Create(fails)
		waits := Spec("waits", "app:1", 1)
		waits.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.labels.no == where"}}
		m.Create(waits)
		rejected := Spec("rejected", "app:1", 1)
		rejected.TaskTemplate.ContainerSpec.Labels = map[string]string{"skep.simulate.reject-rate": "1"}
		m.Create(rejected)
		c.Runs(20*time.Second, web, "web:1", 3)
		time.Sleep(5 * time.Second)
		there := map[string]bool{}
		see := func() {
			for _, m := range c.Alive() {
				for line := range strings.Lines(string(m.Get("/metrics"))) {
					there[metricName.FindString(line)] = !strings.HasPrefix(line, "#") || there[metricName.FindString(line)]
				}
			}
		}
		see()
		c.Leader().Crash()
		time.Sleep(5 * time.Second)
		m = c.Manager()
		m.Update(web, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "web:2" })
		time.Sleep(time.Second)
		see()
		for what, query := range queries {
			for _, name := range metricName.FindAllString(query, -1) {
				if !there[name] {
					t.Errorf("%s asks for %s, which nodes don't have", what, name)
				}
			}
		}
	})
}

// Prometheus understands all of it, where its promtool is installed, and the alerts come when they should.
func TestMetrics_Promtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("there is no promtool")
	}
	var wrapped strings.Builder
	wrapped.WriteString("groups:\n- name: dashboard\n  rules:\n")
	n := 0
	for what, query := range shippedQueries(t) {
		if strings.HasPrefix(what, "panel ") {
			fmt.Fprintf(&wrapped, "  - {record: r%d, expr: %q}\n", n, query)
			n++
		}
	}
	panels := filepath.Join(t.TempDir(), "panels.yml")
	if err := os.WriteFile(panels, []byte(wrapped.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"check", "rules", filepath.Join(shipped, "skep.rules.yml"), panels},
		{"test", "rules", filepath.Join(shipped, "skep.rules.test.yml")},
	} {
		if out, err := exec.Command(promtool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
