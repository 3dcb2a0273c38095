package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cmd/lab/report"
	"skep/cmd/lab/scenario"
)

// short is a scenario that takes seconds and has most of what the others have.
const short = `
about: A short one, for the test.
workers: 2
load: {writers: 2, pause: 10ms}
services:
  - {name: web, replicas: 4, on: workers}
steps:
  - wait: 300ms
  - kill: leader
    as: old
    measure:
      next-write: worst 1s
      refused: shown
  - wait: writes
  - kill: worker
    as: lost
    measure:
      down: shown
      moved: shown
  - wait: down
    of: lost
  - wait: whole
  - start: [old, lost]
    measure:
      ready: shown
  - wait: ready
`

// A whole run on real processes, from the file to the page. As root its nodes are in
// namespaces, and the worker is cut off too.
func TestRun_AShortScenario(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	dir := t.TempDir()
	text := short
	if canIsolate() {
		text = strings.Replace(text, "kill: worker", "cut: worker", 1)
		text = strings.Replace(text, "- start: [old, lost]", "- heal: lost\n  - start: old", 1)
	} else {
		t.Log("NOTICE: no network namespaces here: not tested on cut links")
	}
	file := filepath.Join(dir, "short.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	o := runOptions{workers: -1, driver: "simulate", latency: "lan"}
	settings, err := o.settings(ctx, lab{bin: binaries(t), engine: "unix:///nowhere"}, []string{file})
	if err != nil {
		t.Fatal(err)
	}
	if settings[0].isolated != canIsolate() {
		t.Error("the nodes aren't isolated though they could be")
	}
	t.Setenv("TMPDIR", t.TempDir()) // what is made there is the lab's
	var out bytes.Buffer
	if err := runAll(ctx, settings, 1, dir, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	t.Log(out.String())
	results, err := os.Open(filepath.Join(dir, "results.json"))
	if err != nil {
		t.Fatal(err)
	}
	defer results.Close()
	runs, err := report.ReadJSON(results)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]report.Row{}
	for _, r := range report.Rows(runs[0]) {
		rows[r.What] = r
	}
	for _, what := range []string{"next accepted write", "marked down", "services whole again, less the containers' start", "all nodes ready"} {
		if r, ok := rows[what]; !ok || r.Missing() > 0 || r.Median <= 0 {
			t.Errorf("%s: %+v", what, r)
		}
	}
	if r := rows["accepted writes lost"]; r.Worst != 0 || !r.Kept {
		t.Errorf("%+v", r)
	}
	// Lost writes must be seen: one that was never there is one.
	if n := len(runs[0].Rounds[0].Writes); n < 20 {
		t.Errorf("only %d writes", n)
	}
	page, err := os.ReadFile(filepath.Join(dir, "report.html"))
	if err != nil || !bytes.Contains(page, []byte("kill leader (m1)")) {
		t.Errorf("%v: the page doesn't say what was done", err)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) > 0 {
		t.Errorf("%v: left behind: %v", err, left)
	}
	screenshot(t, filepath.Join(dir, "report.html"))
}

// screenshot looks at the page in a real browser, where there is one: it must be drawn,
// and differently on a dark screen.
func screenshot(t *testing.T, page string) {
	t.Helper()
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Log("NOTICE: there is no chromium: the page wasn't looked at")
		return
	}
	var pictures [2][]byte
	for i, scheme := range []string{"light", "dark"} {
		file := filepath.Join(t.TempDir(), scheme+".png")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		args := []string{"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--user-data-dir=" + t.TempDir(), "--window-size=1200,1400", "--screenshot=" + file}
		if scheme == "dark" {
			args = append(args, "--blink-settings=preferredColorScheme=0")
		}
		out, err := exec.CommandContext(ctx, browser, append(args, "file://"+page)...).CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("look at the page: %v\n%s", err, out)
		}
		if pictures[i], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
		if len(pictures[i]) < 20_000 {
			t.Errorf("%s: a picture of %d bytes shows nothing", scheme, len(pictures[i]))
		}
	}
	if bytes.Equal(pictures[0], pictures[1]) {
		t.Error("dark looks like light")
	}
}

func TestVerify_AMissingWriteIsLost(t *testing.T) {
	// What verify does with the answers, without a cluster to lose them.
	x := &experiment{names: map[string]string{}, accepted: []string{"write-0-1", "write-0-2"}}
	x.missing(map[string]bool{"write-0-1": true})
	x.missing(map[string]bool{"write-0-1": true, "write-0-2": true})
	if !reflect.DeepEqual(x.round.Lost, []string{"write-0-2"}) {
		t.Errorf("lost %v", x.round.Lost)
	}
}

func TestSettings_Refuses(t *testing.T) {
	l := lab{engine: "unix:///nowhere"}
	for name, test := range map[string]struct {
		options runOptions
		names   []string
		want    string
	}{
		"an unknown scenario": {runOptions{latency: "lan", workers: -1}, []string{"earthquake"}, "neither a file nor one of"},
		"a missing file":      {runOptions{latency: "lan", workers: -1}, []string{"./x.yaml"}, "no such file"},
		"a driver":            {runOptions{latency: "lan", workers: -1, driver: "podman"}, []string{"leader-crash"}, "want docker or simulate"},
		"no engine":           {runOptions{latency: "lan", workers: -1, driver: "docker"}, []string{"leader-crash"}, "use -driver simulate"},
		"an engine's restart": {runOptions{latency: "lan", workers: -1, driver: "simulate"}, []string{"engine-restart"}, "for --driver docker only"},
		"a timing":            {runOptions{latency: "moon", workers: -1}, []string{"leader-crash"}, "want local, lan or wan"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := test.options.settings(t.Context(), l, test.names)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("have %v, want %s", err, test.want)
			}
		})
	}
	for name, needs := range map[string]string{"disk-full": "root", "leader-cut": "root"} {
		s, err := scenario.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := refuse(setting{scenario: s, driver: "simulate"}, false); err == nil || !strings.Contains(err.Error(), needs) {
			t.Errorf("%s without root: %v", name, err)
		}
		if err := refuse(setting{scenario: s, driver: "simulate", isolated: true}, true); err != nil && haveDisks() {
			t.Errorf("%s as root: %v", name, err)
		}
	}
}

func TestSetting_OnSwarm(t *testing.T) {
	s, err := scenario.Named("leader-crash")
	if err != nil {
		t.Fatal(err)
	}
	ours := setting{scenario: s}
	theirs := ours.onSwarm()
	if !theirs.swarm || ours.swarm {
		t.Error("what runs the nodes was mixed up")
	}
	for i, step := range theirs.scenario.Steps {
		if step.Limit < swarmPatience {
			t.Errorf("%s: only %v for Docker Swarm", step.Text, step.Limit)
		}
		for _, m := range step.Measures {
			if m.Bound() != "" || m.Name == "noticed" {
				t.Errorf("%s: %s %s is skep's alone", step.Text, m.Name, m.Bound())
			}
		}
		if len(step.Measures) > 0 && ours.scenario.Steps[i].Measures[0].Name == "next-write" && ours.scenario.Steps[i].Measures[0].Bound() == "" {
			t.Error("skep lost its bounds too")
		}
	}
	for name, ok := range map[string]bool{"leader-cut": true, "disk-full": false, "engine-restart": false, "hundred-days": false} {
		s, err := scenario.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := comparable(s); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParseMixed(t *testing.T) {
	fs := flag.NewFlagSet("x", flag.ContinueOnError)
	rounds := fs.Int("rounds", 1, "")
	rest, err := parseMixed(fs, []string{"a", "--rounds", "3", "b"})
	if err != nil || *rounds != 3 || !reflect.DeepEqual(rest, []string{"a", "b"}) {
		t.Errorf("%v %d %v", rest, *rounds, err)
	}
}

func TestJudge(t *testing.T) {
	for name, test := range map[string]struct {
		round report.Round
		ok    bool
	}{
		"all well":           {report.Round{}, true},
		"a lost write":       {report.Round{Lost: []string{"x"}}, false},
		"a round that broke": {report.Round{Failure: "x"}, false},
	} {
		if err := judge([]report.Run{{Rounds: []report.Round{test.round}}}); (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestViewOf(t *testing.T) {
	replicas := uint64(3)
	v := viewOf(
		[]swarm.Node{
			{ID: "1", Description: swarm.NodeDescription{Hostname: "m1"}, Status: swarm.NodeStatus{State: swarm.NodeStateReady}, ManagerStatus: &swarm.ManagerStatus{Leader: true, Reachability: swarm.ReachabilityReachable}},
			{ID: "2", Description: swarm.NodeDescription{Hostname: "w1"}, Status: swarm.NodeStatus{State: swarm.NodeStateDown}},
		},
		[]swarm.Service{{ID: "s", Spec: swarm.ServiceSpec{Annotations: swarm.Annotations{Name: "web"}, Mode: swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}}},
			UpdateStatus: &swarm.UpdateStatus{State: swarm.UpdateStateUpdating}}},
		[]swarm.Task{
			{ServiceID: "s", NodeID: "1", DesiredState: swarm.TaskStateRunning, Status: swarm.TaskStatus{State: swarm.TaskStateRunning}},
			{ServiceID: "s", NodeID: "1", DesiredState: swarm.TaskStateShutdown, Status: swarm.TaskStatus{State: swarm.TaskStateRunning}},
			{ServiceID: "s", NodeID: "1", DesiredState: swarm.TaskStateRunning, Status: swarm.TaskStatus{State: swarm.TaskStateStarting}},
			{ServiceID: "gone", NodeID: "1", DesiredState: swarm.TaskStateRunning, Status: swarm.TaskStatus{State: swarm.TaskStateRunning}},
		})
	want := report.View{Leader: "m1", Nodes: map[string]string{"m1": "ready", "w1": "down"}, Voting: map[string]bool{"m1": true}, Wanted: map[string]int{"web": 3},
		Running: map[string]map[string]int{"web": {"m1": 1}}, Updates: map[string]string{"web": "updating"}}
	if !reflect.DeepEqual(v, want) {
		t.Errorf("%+v\nwant %+v", v, want)
	}
}

func TestRecord_KeepsChangesOnly(t *testing.T) {
	x := &experiment{latest: map[string]int{}}
	for i, leader := range []string{"m1", "m1", "m2", "m2", "m1"} {
		x.record(report.View{At: report.Ms(i), Until: report.Ms(i), Through: "m3", Leader: leader})
	}
	var got []string
	for _, v := range x.round.Views {
		got = append(got, v.Leader)
	}
	if !reflect.DeepEqual(got, []string{"m1", "m2", "m1"}) || x.round.Views[0].Until != 1 || x.round.Views[1].Until != 3 {
		t.Errorf("%+v", x.round.Views)
	}
}

func TestSessionsIn(t *testing.T) {
	began := time.Date(2026, 11, 25, 18, 0, 0, 0, time.UTC)
	got := sessionsIn(`time=2026-11-25T17:59:59.000Z level=INFO msg="session opened" heartbeat=1s
time=2026-11-25T18:00:01.500Z level=WARN msg="no session with a manager" error="dial \"session opened\""
time=2026-11-25T18:00:02.000Z level=INFO msg="session opened" heartbeat=1s
a broken line
`, "w1", began)
	want := []report.Session{{At: 1500, Node: "w1", What: "no session with a manager"}, {At: 2000, Node: "w1", What: "session opened"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestHuddled(t *testing.T) {
	workers := []string{"w1", "w2"}
	for name, test := range map[string]struct {
		with map[string]string
		want bool
	}{
		"all with one manager":  {map[string]string{"m1": "m2", "w1": "m1", "w2": "m1"}, true},
		"with two":              {map[string]string{"m1": "m1", "w1": "m1", "w2": "m2"}, false},
		"one between managers":  {map[string]string{"w1": "m1"}, false},
		"Docker Swarm, unknown": {nil, false},
	} {
		if got := huddled(test.with, workers); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestReason(t *testing.T) {
	err := errors.New(`error during connect: Post "http://%2Ftmp%2Fx/v1.51/configs/create": dial unix /tmp/skep-lab-1/m1/skep.sock: config write-1-2 ` + strings.Repeat("é", 100))
	if got := reason(err, "write-1-2", "/tmp/skep-lab-1"); !strings.HasPrefix(got, "dial unix /m1/skep.sock: config … é") || len(got) > 150 {
		t.Errorf("%q", got)
	}
}

func TestTasksBefore(t *testing.T) {
	running := func(n int) map[string]map[string]int {
		return map[string]map[string]int{"web": {"w1": n}, "db": {"w1": 1, "w2": 5}}
	}
	views := []report.View{{At: 1, Running: running(1)}, {At: 5, Running: running(2)}, {At: 11, Running: running(9)}}
	if n := tasksBefore(views, report.Step{Began: 10, Nodes: []string{"w1"}}); n != 3 {
		t.Errorf("%d tasks", n)
	}
}
