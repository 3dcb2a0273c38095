package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"
)

// Scale is one run of `lab scale`: what many agents and tasks cost, step by step.
type Scale struct {
	Machine, Latency string
	Began            time.Time
	Length           Ms
	Managers, Agents int
	Tasks, Services  int
	// Parallelism is how many tasks of a service an update replaces at a time.
	Parallelism int
	// Simulated says what wasn't real.
	Simulated []string
	// Processes are the managers, then those of the agents. Slices by process are in their order.
	Processes []ScaleProcess
	// Form is how the processes were before the first step.
	Form    ScaleState
	Steps   []ScaleStep
	Samples []ScaleSample
}

// ScaleProcess is one process of the cluster.
type ScaleProcess struct {
	Name    string
	Manager bool
}

// ScaleState is how the processes are at an instant, by process. Heap, Stack and Disk are of managers.
type ScaleState struct {
	// RSS is what is in memory, Heap what is alive of Go's heap, Stack what goroutines have; bytes.
	RSS, Heap, Stack []int64
	// Disk is how large the data directory is.
	Disk []int64
}

// ScaleStep is one step.
type ScaleStep struct {
	Name         string
	Began, Ended Ms
	// Of is how many agents or tasks the step was about.
	Of int
	// Failure is why it wasn't completed; "" when it was.
	Failure string
	// Leader is the process that led when it began.
	Leader string
	// CPU is the processor time that each process had, in seconds.
	CPU []float64
	// Written is what each wrote to the disk, Wire what agents' processes read from and wrote to their connections.
	Written, Wire []int64
	// State is how the processes were when it had ended.
	State ScaleState
	// Small is how long a small user's services took from the request to running, Failures those that never did.
	Small    []Ms
	Failures int
	// NextWrite is how long after the leader was killed the next write was accepted; nil when none was killed.
	NextWrite *Ms
	// Lists are questions that were asked when it had ended.
	Lists    []ScaleList
	Profiles []ScaleProfile
}

// ScaleList is a list that was asked for.
type ScaleList struct {
	What  string
	Count int
	Took  Ms
	Bytes int
}

// ScaleProfile is where a manager's processor time went.
type ScaleProfile struct {
	Process, File string
	// Top is what `go tool pprof -top` says; "" where there is no Go tool.
	Top string
}

// ScaleSample is how it was at an instant. CPU is in seconds since the run began.
type ScaleSample struct {
	At       Ms
	Sessions int
	Running  int
	CPU      []float64
	RSS      []int64
}

// ScaleRow is one number beside what the issue wants.
type ScaleRow struct {
	What, Measured, Must, Goal string
	// Verdict is "goal" or "yes" when the number is as good as that, "NO" when it isn't as good as it must be, "smaller"
	// when the run was too small to tell, "not run" without a number, and "" without a bound.
	Verdict string
}

// limit is what a number must be at most, and should be, and how large a run must be for it to count.
type limit struct {
	what       string
	must, goal float64
	show       func(float64) string
	agents     int
	tasks      int
}

func seconds(v float64) string   { return fmt.Sprintf("%.2f s", v) }
func coreShare(v float64) string { return fmt.Sprintf("%.1f %% of a core", v) }
func kilobytes(v float64) string { return fmt.Sprintf("%.0f kB", v/1000) }
func bytesOf(v float64) string   { return fmt.Sprintf("%.0f B", v) }
func micros(v float64) string    { return fmt.Sprintf("%.0f µs", v) }

func (s Scale) row(b limit, v float64, more string) ScaleRow {
	r := ScaleRow{What: b.what}
	if b.must > 0 {
		r.Must, r.Goal = b.show(b.must), b.show(b.goal)
	}
	switch {
	case math.IsNaN(v):
		r.Measured, r.Verdict = "-", "not run"
		return r
	case b.must == 0:
	case s.Agents < b.agents || s.Tasks < b.tasks:
		r.Verdict = "smaller"
	case v <= b.goal:
		r.Verdict = "goal"
	case v <= b.must:
		r.Verdict = "yes"
	default:
		r.Verdict = "NO"
	}
	if r.Measured = b.show(v); more != "" {
		r.Measured += " (" + more + ")"
	}
	return r
}

// step finds a step that was completed; nil if there is none.
func (s Scale) step(name string) *ScaleStep {
	for i := range s.Steps {
		if s.Steps[i].Name == name && s.Steps[i].Failure == "" {
			return &s.Steps[i]
		}
	}
	return nil
}

// took is how many seconds a step took.
func (t *ScaleStep) took() float64 { return float64(t.Ended-t.Began) / 1000 }

// of sums what is of managers, or of agents.
func of[T int64 | float64](s Scale, manager bool, by []T) (sum T) {
	for i, v := range by {
		if i < len(s.Processes) && s.Processes[i].Manager == manager {
			sum += v
		}
	}
	return sum
}

// Percentile is the smallest value that at least that share of all aren't above; NaN of none.
func Percentile(values []Ms, share float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return float64(sorted[min(len(sorted)-1, max(0, int(math.Ceil(share*float64(len(sorted))))-1))])
}

// ScaleRows are the numbers of a run.
func ScaleRows(s Scale) (rows []ScaleRow) {
	nan := math.NaN()
	add := func(b limit, v float64, more string) { rows = append(rows, s.row(b, v, more)) }
	timed := func(name string, b limit, more string) {
		if t := s.step(name); t != nil {
			add(b, t.took(), fmt.Sprintf("%d %s", t.Of, more))
		} else {
			add(b, nan, "")
		}
	}
	timed("join", limit{what: "10,000 agents join", must: 90, goal: 45, show: seconds, agents: 10_000}, "agents")
	if t := s.step("idle"); t != nil {
		add(limit{what: "idle, 10,000 agents, no tasks: all managers", must: 15, goal: 5, show: coreShare, agents: 10_000}, 100*of(s, true, t.CPU)/t.took(), fmt.Sprintf("%d agents", s.Agents))
		add(limit{what: "idle, 10,000 agents, no tasks: all agents", must: 60, goal: 20, show: coreShare, agents: 10_000}, 100*of(s, false, t.CPU)/t.took(), "")
	}
	if t := s.step("idle with tasks"); t != nil {
		add(limit{what: "idle with all tasks: all managers", show: coreShare}, 100*of(s, true, t.CPU)/t.took(), "")
		add(limit{what: "idle with all tasks: all agents", show: coreShare}, 100*of(s, false, t.CPU)/t.took(), "")
	}
	memory, live := nan, ""
	if t := s.step("join"); t != nil && s.Agents > 0 {
		memory = float64(of(s, true, t.State.RSS)-of(s, true, s.Form.RSS)) / float64(s.Agents)
		live = fmt.Sprintf("resident, of all managers; alive in heap and stacks %s", kilobytes(float64(of(s, true, t.State.Heap)+of(s, true, t.State.Stack)-of(s, true, s.Form.Heap)-of(s, true, s.Form.Stack))/float64(s.Agents)))
	}
	add(limit{what: "memory per agent on its manager", must: 60_000, goal: 30_000, show: kilobytes}, memory, live)
	timed("create", limit{what: "1,000,000 tasks to running", must: 150, goal: 60, show: seconds, agents: 10_000, tasks: 1_000_000}, "tasks")
	heap := nan
	if join, create := s.step("join"), s.step("create"); join != nil && create != nil && create.Of > 0 {
		for i, p := range s.Processes {
			if p.Manager && i < len(create.State.Heap) && i < len(join.State.Heap) {
				if per := float64(create.State.Heap[i]-join.State.Heap[i]) / float64(create.Of); math.IsNaN(heap) || per > heap {
					heap = per
				}
			}
		}
	}
	add(limit{what: "heap per running task on a manager", must: 400, goal: 300, show: bytesOf}, heap, "the most of any manager, after a collection")
	small, worst := nan, ""
	for _, t := range s.Steps {
		if p := Percentile(t.Small, 0.99); len(t.Small) > 0 && (math.IsNaN(small) || p > small) {
			small, worst = p, fmt.Sprintf("in %s, %d services, p50 %s", t.Name, len(t.Small), seconds(Percentile(t.Small, 0.5)/1000))
		}
	}
	add(limit{what: "a small service create → running meanwhile, p99", must: 1, goal: 0.3, show: seconds}, small/1000, worst)
	gap, where := nan, ""
	for _, t := range s.Steps {
		if t.NextWrite != nil && (math.IsNaN(gap) || float64(*t.NextWrite) > gap) {
			gap, where = float64(*t.NextWrite), "the worst, in "+t.Name
		}
	}
	add(limit{what: "leader killed in the middle: next accepted write", must: 0.5, goal: 0.1, show: seconds}, gap/1000, where)
	timed("kill", limit{what: "500 agents killed at once: their tasks elsewhere", must: 10, goal: 5, show: seconds, agents: 10_000}, "agents")
	update, rest := nan, ""
	if t := s.step("update"); t != nil && t.Of > 0 {
		update, rest = 1e6*of(s, true, t.CPU)/float64(t.Of), fmt.Sprintf("%d tasks in %s, parallelism %d", t.Of, seconds(t.took()), s.Parallelism)
	}
	add(limit{what: "rolling update: managers' processor time per task", must: 150, goal: 75, show: micros, tasks: 10_000}, update, rest)
	timed("drain", limit{what: "a tenth of the nodes drained", show: seconds}, "agents")
	timed("zero", limit{what: "all scaled to zero", show: seconds}, "tasks")
	for _, l := range s.lists() {
		b := limit{what: l.What, show: seconds}
		switch {
		case l.What == "GET /tasks" && l.Count >= 20_000 && l.Count < 25_000:
			b.must, b.goal = 0.5, 0.2
		case l.What == "GET /services?status=true" && l.Count >= 2000 && l.Count < 2500:
			b.must, b.goal = 0.2, 0.1
		}
		add(b, float64(l.Took)/1000, fmt.Sprintf("%d of them, %.1f MB", l.Count, float64(l.Bytes)/1e6))
	}
	return rows
}

func (s Scale) lists() (all []ScaleList) {
	for _, t := range s.Steps {
		all = append(all, t.Lists...)
	}
	return all
}

// ScaleTable prints the numbers of a run, then what each step cost.
func ScaleTable(w io.Writer, s Scale) {
	fmt.Fprintf(w, "\n%d managers, %d agents in %d processes, %d tasks of %d services, latency %s\n%s\n", s.Managers, s.Agents, len(s.Processes)-s.Managers, s.Tasks, s.Services, s.Latency, s.Machine)
	for _, what := range s.Simulated {
		fmt.Fprintf(w, "simulated: %s\n", what)
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "\nWHAT\tMEASURED\tMUST\tGOAL\tKEPT")
	for _, r := range ScaleRows(s) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", r.What, r.Measured, r.Must, r.Goal, r.Verdict)
	}
	t.Flush()
	t = tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "\nSTEP\tTOOK\tMANAGERS' CPU\tAGENTS' CPU\tMANAGERS RESIDENT\tHEAP\tTO DISK\tWIRE\tSMALL p50\tp99\tNEXT WRITE")
	for i := range s.Steps {
		for _, cell := range s.stepCells(&s.Steps[i]) {
			fmt.Fprintf(t, "%s\t", cell)
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	for _, step := range s.Steps {
		if step.Failure != "" {
			fmt.Fprintf(w, "%s was not completed: %s\n", step.Name, step.Failure)
		}
		if step.Failures > 0 {
			fmt.Fprintf(w, "%s: %d services of the small user didn't run in time\n", step.Name, step.Failures)
		}
	}
}

// stepCells are a step's numbers in words.
func (s Scale) stepCells(t *ScaleStep) []string {
	mega := func(v int64) string { return fmt.Sprintf("%.1f MB", float64(v)/1e6) }
	share := func(manager bool) string {
		used := of(s, manager, t.CPU)
		return fmt.Sprintf("%.2f s (%.0f %%)", used, 100*used/max(t.took(), 0.001))
	}
	small := func(p float64) string {
		if v := Percentile(t.Small, p); !math.IsNaN(v) {
			return seconds(v / 1000)
		}
		return "-"
	}
	next := "-"
	if t.NextWrite != nil {
		next = seconds(float64(*t.NextWrite) / 1000)
	}
	return []string{t.Name, seconds(t.took()), share(true), share(false), mega(of(s, true, t.State.RSS)), mega(of(s, true, t.State.Heap)),
		mega(of(s, true, t.Written)), mega(of(s, false, t.Wire)), small(0.5), small(0.99), next}
}

// WriteScaleJSON writes all that was recorded, and the rows.
func WriteScaleJSON(w io.Writer, s Scale) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(struct {
		Scale
		Rows []ScaleRow
	}{s, ScaleRows(s)})
}

// ReadScaleJSON reads what WriteScaleJSON wrote.
func ReadScaleJSON(r io.Reader) (s Scale, err error) {
	return s, json.NewDecoder(r).Decode(&s)
}
