package report

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

func TestPercentile(t *testing.T) {
	values := []Ms{5, 1, 3, 2, 4}
	for share, want := range map[float64]float64{0: 1, 0.2: 1, 0.5: 3, 0.81: 5, 0.99: 5, 1: 5} {
		if got := Percentile(values, share); got != want {
			t.Errorf("%v: %v, want %v", share, got, want)
		}
	}
	if !math.IsNaN(Percentile(nil, 0.5)) {
		t.Error("there is a percentile of nothing")
	}
}

// A number counts only for what it is about: a run that is large enough, and a step that was completed.
func TestScaleRows(t *testing.T) {
	next := Ms(300)
	s := Scale{
		Managers: 1, Agents: 10_000, Tasks: 1000, Processes: []ScaleProcess{{"m1", true}, {"agents-1", false}},
		Form: ScaleState{RSS: []int64{100e6, 5e6}, Heap: []int64{10e6}, Stack: []int64{1e6}},
		Steps: []ScaleStep{
			{Name: "join", Began: 0, Ended: 40_000, Of: 10_000, CPU: []float64{10, 10}, State: ScaleState{RSS: []int64{700e6, 1e9}, Heap: []int64{210e6}, Stack: []int64{101e6}}},
			{Name: "idle", Began: 40_000, Ended: 50_000, CPU: []float64{2, 1}, State: ScaleState{}},
			{Name: "create", Began: 50_000, Ended: 60_000, Of: 1000, Small: []Ms{100, 200, 2000}, State: ScaleState{Heap: []int64{210e6 + 350_000}}},
			{Name: "leader", Began: 60_000, Ended: 61_000, Of: 1000, NextWrite: &next},
			{Name: "kill", Began: 61_000, Ended: 62_000, Of: 500, Failure: "time is up"},
		},
	}
	rows := map[string]ScaleRow{}
	for _, r := range ScaleRows(s) {
		rows[r.What] = r
	}
	for what, want := range map[string][2]string{
		"10,000 agents join":                                {"40.00 s (10000 agents)", "goal"},
		"idle, 10,000 agents, no tasks: all managers":       {"20.0 % of a core (10000 agents)", "NO"},
		"idle, 10,000 agents, no tasks: all agents":         {"10.0 % of a core", "goal"},
		"memory per agent on its manager":                   {"60 kB (resident, of all managers; alive in heap and stacks 30 kB)", "yes"},
		"1,000,000 tasks to running":                        {"10.00 s (1000 tasks)", "smaller"},
		"heap per running task on a manager":                {"350 B (the most of any manager, after a collection)", "yes"},
		"a small service create → running meanwhile, p99":   {"2.00 s (in create, 3 services, p50 0.20 s)", "NO"},
		"leader killed in the middle: next accepted write":  {"0.30 s (the worst, in leader)", "yes"},
		"500 agents killed at once: their tasks elsewhere":  {"-", "not run"},
		"rolling update: managers' processor time per task": {"-", "not run"},
	} {
		if r := rows[what]; r.Measured != want[0] || r.Verdict != want[1] {
			t.Errorf("%s: %q %q; want %q %q", what, r.Measured, r.Verdict, want[0], want[1])
		}
	}
	var table, page bytes.Buffer
	ScaleTable(&table, s)
	if !strings.Contains(table.String(), "kill was not completed: time is up") {
		t.Errorf("the table doesn't say what failed:\n%s", &table)
	}
	if err := WriteScalePage(&page, s); err != nil || !strings.Contains(page.String(), "time is up") {
		t.Errorf("the page: %v", err)
	}
	var file bytes.Buffer
	if err := WriteScaleJSON(&file, s); err != nil {
		t.Fatal(err)
	}
	if back, err := ReadScaleJSON(&file); err != nil || len(back.Steps) != 5 || *back.Steps[3].NextWrite != next {
		t.Errorf("%+v, %v", back, err)
	}
}
