package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"

	"skep/cluster/svg"
	"skep/cluster/timeline"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is what page.html shows.
type page struct {
	Title, Subtitle string
	Several         bool
	// Pairs are set beside each other when a scenario was run on several subjects, Ours and Theirs.
	Pairs        []Pair
	Ours, Theirs string
	Sections     []section
	// Style and Hatch are those of all drawings of nodes over time.
	Style template.CSS
	Hatch template.HTML
}

// section is one run.
type section struct {
	ID, Name, Facts string
	Run             Run
	Rows            []Row
	// First is the first row with a bound, else the first; Kept of Bounded rows are within their bounds.
	First               *Row
	Kept, Bounded, Lost int
	Failures            []string
	Charts              []chart
	Rounds              []shownRound
}

type chart struct {
	Step, What string
	SVG        template.HTML
}

type shownRound struct {
	Number   int
	Says     string
	Open     bool
	SVG      template.HTML
	Steps    []mark
	Refusals []string
	Managers managers
}

// managers are what the managers told of a round: a picture and its sentences, and the elections and hand-overs from near.
type managers struct {
	SVG   template.HTML
	Story []mark
	Near  []near
}

type near struct {
	SVG  template.HTML
	Says string
}

// mark is a step as the timeline numbers it.
type mark struct {
	Number   int
	Text, At string
}

// ShowMedian is the median in the row's unit.
func (r Row) ShowMedian() string { return r.Show(r.Median) }

// ShowWorst is the worst value, or that there was none in some rounds.
func (r Row) ShowWorst() string { return r.worst() }

// WritePage writes the page, which needs nothing but itself.
func WritePage(w io.Writer, runs []Run) error {
	p := page{Several: len(runs) > 1, Title: "Failover, measured", Pairs: Pairs(runs), Style: svg.Style, Hatch: svg.Hatch}
	if len(p.Pairs) > 0 {
		p.Ours, p.Theirs = runs[0].Subject, runs[len(runs)-1].Subject
		p.Title = fmt.Sprintf("%s and %s, side by side", p.Ours, p.Theirs)
	}
	if len(runs) == 1 {
		p.Title = subject(runs[0]) + strings.ReplaceAll(runs[0].Scenario, "-", " ")
	}
	for i, run := range runs {
		if i == 0 {
			p.Subtitle = run.Machine + " · " + run.Began.UTC().Format("2 January 2006, 15:04 UTC")
		}
		p.Sections = append(p.Sections, newSection(i, run))
	}
	return pageTemplate.Execute(w, p)
}

func subject(run Run) string {
	if run.Subject == "" || run.Subject == "skep" {
		return ""
	}
	return run.Subject + ": "
}

func rounds(run Run) string {
	if len(run.Rounds) == 1 {
		return "1 round"
	}
	return fmt.Sprintf("%d rounds", len(run.Rounds))
}

func newSection(i int, run Run) section {
	s := section{ID: fmt.Sprintf("run-%d", i+1), Name: subject(run) + run.Scenario, Run: run, Rows: Rows(run)}
	where := "each node in a network namespace of its own"
	if !run.Isolated {
		where = "each node on a loopback address of its own"
	}
	s.Facts = fmt.Sprintf("%s · %d managers and %d workers, %s · driver %s", rounds(run), run.Managers, run.Workers, where, run.Driver)
	if run.Latency != "" {
		s.Facts += " · timing for " + run.Latency
	}
	s.Lost, _ = run.Lost()
	for j, row := range s.Rows {
		if row.Bound != "" {
			s.Bounded++
			if row.Kept {
				s.Kept++
			}
		}
		if s.First == nil && row.Step != wholeRound {
			s.First = &s.Rows[j]
		}
		if len(row.Values) > 1 && (slices.Max(row.Values) > 0 || row.Missing() > 0) {
			s.Charts = append(s.Charts, chart{row.Step, row.What, histogram(row)})
		}
	}
	for j, r := range run.Rounds {
		if r.Failure != "" {
			s.Failures = append(s.Failures, fmt.Sprintf("Round %d could not be completed: %s", r.Number, r.Failure))
		}
		s.Rounds = append(s.Rounds, newShownRound(run, j))
	}
	return s
}

func newShownRound(run Run, index int) shownRound {
	r := run.Rounds[index]
	picture, marks := drawRound(r)
	shown := shownRound{Number: r.Number, Open: index == 0, SVG: picture, Steps: marks, Managers: newManagers(r)}
	refused := map[int]int{}
	for _, w := range r.Writes {
		if !w.Accepted {
			refused[w.Why]++
		}
	}
	for _, q := range r.Requests {
		if !q.Answered {
			refused[q.Why]++
		}
	}
	shown.Says = run.Says(index)
	for why, reason := range r.Refusals {
		if n := refused[why]; n > 0 {
			shown.Refusals = append(shown.Refusals, fmt.Sprintf("%d × %s", n, reason))
		}
	}
	return shown
}

// newManagers draws what the managers told, as `skep cluster timeline` and the console do.
func newManagers(r Round) (shown managers) {
	t := r.Timeline
	if t == nil || len(t.Records) == 0 {
		return shown
	}
	// The drawing escapes all texts itself.
	from, to := r.Began, r.Began.Add(time.Duration(float64(r.Length)*float64(time.Millisecond)))
	story := timeline.Between(timeline.Story(*t), from, to)
	shown.SVG = template.HTML(timeline.SVGFrom(from, *t, from, to))
	for i, s := range story {
		shown.Story = append(shown.Story, mark{i + 1, s.Words(t.Name), at(Since(from, s.From))})
	}
	for _, n := range timeline.Near(story) {
		shown.Near = append(shown.Near, near{template.HTML(timeline.SVG(*t, n.From, n.To)), n.Words(t.Name)})
	}
	return shown
}

// Says is a round in a line: what was measured in it.
func (run Run) Says(index int) string {
	r := run.Rounds[index]
	accepted := 0
	for _, w := range r.Writes {
		if w.Accepted {
			accepted++
		}
	}
	says := []string{fmt.Sprintf("%d writes accepted", accepted)}
	if n := len(r.Requests); n > 0 {
		failed := 0
		for _, q := range r.Requests {
			if !q.Answered {
				failed++
			}
		}
		says = append(says, fmt.Sprintf("%d of %d requests failed", failed, n))
	}
	if r.Failure != "" {
		says = append(says, "could not be completed: "+r.Failure)
	}
	for _, row := range Rows(run) {
		// Rounds that weren't completed are in no row of a step.
		if row.Step != wholeRound && r.Failure == "" {
			if v := row.Values[completeBefore(run, index)]; v != 0 || !row.Counts {
				says = append(says, row.What+" "+row.Show(v))
			}
		}
	}
	if len(r.Lost) > 0 {
		says = append(says, fmt.Sprintf("%d LOST", len(r.Lost)))
	}
	return strings.Join(says, " · ")
}

// completeBefore is the place of a completed round among those that were.
func completeBefore(run Run, index int) int {
	n := 0
	for _, r := range run.Rounds[:index] {
		if r.Failure == "" {
			n++
		}
	}
	return n
}

// at shows an instant.
func at(m Ms) string {
	return (time.Duration(m) * time.Millisecond).Round(10 * time.Millisecond).String()
}
