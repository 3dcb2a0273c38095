package clustertest

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"gopkg.in/yaml.v3"

	"skep/cluster"
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
		for i, target := range panel.Targets {
			queries[fmt.Sprintf("panel %s, query %d", panel.Title, i+1)] = target.Expr
		}
	}
	if alerts != 16 || len(queries) < alerts+20 {
		t.Fatalf("%d alerts, and %d queries with those of the dashboard", alerts, len(queries))
	}
	return queries
}

var (
	metricName = regexp.MustCompile(`skep_[a-z_]+`)
	// selector is a metric with what its labels are to be, seriesLine a line of a scrape: its name and labels.
	selector   = regexp.MustCompile(`(skep_[a-z_]+)\{([^}]*)\}`)
	seriesLine = regexp.MustCompile(`^(skep_[a-z_]+)(?:\{(.*)\})? `)
	labelOf    = regexp.MustCompile(`([a-z_]+)(?:=~|=|!=|!~)"((?:[^"\\]|\\.)*)"`)
)

// sayings has the values of labels that were seen, by metric and label. A metric without labels has none.
type sayings map[string]map[string]map[string]bool

// see notes what the machines that run say.
func (s sayings) see(c *Cluster) {
	for _, m := range c.Alive() {
		for line := range strings.Lines(string(m.Get("/metrics"))) {
			found := seriesLine.FindStringSubmatch(line)
			if found == nil {
				continue
			}
			name := found[1]
			if s[name] == nil {
				s[name] = map[string]map[string]bool{}
			}
			for _, label := range labelOf.FindAllStringSubmatch(found[2], -1) {
				if s[name][label[1]] == nil {
					s[name][label[1]] = map[string]bool{}
				}
				s[name][label[1]][label[2]] = true
			}
		}
	}
}

// eventful is what three managers and a worker say of themselves while services run, fail, wait, are refused and updated,
// jobs are done and leaders come and go.
func eventful(t *testing.T, c *Cluster) sayings {
	said := sayings{}
	m := c.Manager()
	web := m.Create(Spec("web", "web:1", 3))
	behaves := func(name string, labels ...string) swarm.ServiceSpec {
		spec := Spec(name, "app:1", 1)
		spec.TaskTemplate.ContainerSpec.Labels = map[string]string{}
		for i := 0; i < len(labels); i += 2 {
			spec.TaskTemplate.ContainerSpec.Labels[cluster.LabelSimulate+labels[i]] = labels[i+1]
		}
		return spec
	}
	m.Create(behaves("fails", "run-for", "1s", "exit-code", "1"))
	m.Create(behaves("rejected", "reject-rate", "1"))
	fenced := Spec("fenced", "app:1", 1)
	fenced.Labels = map[string]string{cluster.LabelFence.Name: "true"}
	m.Create(fenced)
	job := behaves("job", "run-for", "1s")
	job.Mode, job.UpdateConfig, job.TaskTemplate.RestartPolicy = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{}}, nil, nil
	for _, m := range c.Alive() {
		if m != c.Leader() {
			m.Create(job) // It is passed on.
			break
		}
	}
	waits := Spec("waits", "app:1", 1)
	waits.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.labels.no == where"}}
	m.Create(waits)
	c.Runs(20*time.Second, web, "web:1", 3)
	time.Sleep(5 * time.Second)
	said.see(c)
	c.Leader().Crash()
	time.Sleep(5 * time.Second)
	c.Manager().Update(web, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "web:2" })
	time.Sleep(time.Second)
	said.see(c)
	c.Machines[3].Stop() // The worker's session ends at a manager that can still say so.
	time.Sleep(time.Second)
	said.see(c)
	return said
}

// The alerts and the dashboard ask for nothing that nodes don't have: a name that was changed would be an alert
// that never comes.
func TestMetrics_AreThoseOfAlertsAndDashboard(t *testing.T) {
	queries := shippedQueries(t)
	bubble(t, func(t *testing.T) {
		said := eventful(t, Start(t, 3, 1, Options{}))
		for what, query := range queries {
			for _, name := range metricName.FindAllString(query, -1) {
				if said[name] == nil {
					t.Errorf("%s asks for %s, which nodes don't have", what, name)
				}
			}
			for _, of := range selector.FindAllStringSubmatch(query, -1) {
				for _, label := range labelOf.FindAllStringSubmatch(of[2], -1) {
					if label[1] != "cluster" && said[of[1]][label[1]] == nil { // Of which cluster a node is, Prometheus is told.
						t.Errorf("%s asks for %s by the label %s, which it doesn't have", what, of[1], label[1])
					}
				}
			}
		}
	})
}

// names are all metrics, with their labels and, where they are always the same, the values of these. Who changes one breaks
// dashboards and alerts of others. Values that only come with an event aren't all there in a test; histograms have le, too.
const names = `
skep_build_info version goversion
skep_node_info node hostname role=manager,worker
skep_start_time_seconds

skep_raft_has_leader
skep_raft_is_leader
skep_raft_state state=candidate,follower,leader,shutdown
skep_raft_term
skep_raft_last_index
skep_raft_commit_index
skep_raft_applied_index
skep_raft_snapshot_index
skep_raft_last_contact_seconds
skep_raft_voters
skep_raft_voters_reachable
skep_raft_failure_tolerance
skep_raft_leader_changes_total
skep_raft_elections_total cause result
skep_raft_leaderless_seconds
skep_raft_commit_seconds
skep_raft_apply_seconds

skep_store_fsync_seconds
skep_store_objects kind=attachment,config,network,node,secret,service,task
skep_store_update_seconds result
skep_store_batch_size
skep_store_proposals_pending
skep_store_bytes what=log,snapshot
skep_store_subscribers_reset_total

skep_scheduler_plan_seconds
skep_scheduler_dirty
skep_scheduler_intents_total kind
skep_scheduler_dropped_total
skep_task_placement_seconds
skep_task_start_seconds

skep_service_info service stack mode=replicated,replicated-job
skep_service_tasks_desired service
skep_service_tasks_running service
skep_service_tasks service state=accepted,assigned,new,pending,preparing,ready,running,starting
skep_service_tasks_waiting service reason
skep_service_update_state service state
skep_service_update_progress_ratio service
skep_service_update_started_timestamp_seconds service
skep_task_ends_total service result
skep_job_last_success_timestamp_seconds service
skep_metrics_services_dropped

skep_nodes state=disconnected,down,ready,unknown
skep_node_state node hostname state
skep_node_resources node hostname resource=cpu,memory what=kept,reserved,total
skep_metrics_nodes_dropped
skep_gossip_members state=alive,left,suspect
skep_dispatch_sessions
skep_dispatch_session_ends_total cause
skep_dispatch_assign_seconds
skep_dispatch_reports_pending
skep_liveness_brake

skep_agent_session
skep_agent_tasks state=accepted,assigned,complete,failed,preparing,ready,rejected,running,shutdown,starting
skep_engine_up
skep_engine_call_seconds call
skep_engine_errors_total call
skep_fence_lease_remaining_seconds

skep_api_requests_total route method code_class
skep_api_request_seconds route
skep_api_forwarded_total result
skep_api_streams kind

skep_certificate_expiry_timestamp_seconds kind=node,root
skep_manager_locked
skep_backup_last_success_timestamp_seconds
skep_data_disk_free_bytes
`

// What raft and memberlist measure for a whole process isn't among them: see TestMetrics_OfAProcess in cmd/lab.
func TestMetrics_Names(t *testing.T) {
	bubble(t, func(t *testing.T) {
		said := eventful(t, Start(t, 3, 1, Options{}))
		listed := map[string]bool{}
		for line := range strings.Lines(names) {
			words := strings.Fields(line)
			if len(words) == 0 {
				continue
			}
			name := words[0]
			for _, shown := range []string{name, name + "_count", name + "_sum", name + "_bucket"} {
				listed[shown] = true
			}
			labels := said[name]
			if labels == nil {
				labels = said[name+"_count"]
			}
			if labels == nil {
				t.Errorf("nobody says %s", name)
				continue
			}
			if len(labels) != len(words)-1 {
				t.Errorf("%s has %d labels, want %d", name, len(labels), len(words)-1)
			}
			for _, word := range words[1:] {
				label, values, all := strings.Cut(word, "=")
				if got := strings.Join(slices.Sorted(maps.Keys(labels[label])), ","); labels[label] == nil || all && got != values {
					t.Errorf("%s has %q as %s, want %s", name, got, label, values)
				}
			}
		}
		for name := range said {
			if !listed[name] {
				t.Errorf("%s isn't listed", name)
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
