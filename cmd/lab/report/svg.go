package report

import (
	"fmt"
	"html"
	"html/template"
	"maps"
	"math"
	"slices"
	"strings"

	"skep/cluster/svg"
	"skep/cmd/lab/scenario"
)

// The timeline's measures, in its own units.
const (
	timeWidth = 1060.0
	gutter    = 92.0 // for names
	laneStep  = 26.0
	laneHigh  = 20.0
	barHigh   = 5.0
	writeHigh = 15.0
	top       = 22.0
)

// drawRound draws a round as it was seen from outside: a lane per node, a lane per client, and the steps across.
func drawRound(r Round) (template.HTML, []mark) {
	var s svg.Picture
	length := max(r.Length, 1)
	x := func(at Ms) float64 { return gutter + (timeWidth-gutter-8)*float64(min(max(at, 0), length)/length) }
	y := top
	spans := r.spans()
	most := mostTasks(r)
	for _, n := range r.Nodes {
		nodeLane(&s, r, n, spans, most, x, y)
		y += laneStep
	}
	y += 8
	writers := map[int]string{}
	for _, w := range r.Writes {
		writers[w.Writer] = w.Through
	}
	lane := func(name string, attempts []attempt) {
		s.Text("quietly end", gutter-10, y+writeHigh-4, name)
		s.Rect("lane", gutter, y, x(length)-gutter, writeHigh, "")
		attemptLane(&s, attempts, x, y)
		y += writeHigh + 5
	}
	for w := range len(writers) {
		var attempts []attempt
		for _, write := range r.Writes {
			if write.Writer == w {
				attempts = append(attempts, attempt{write.Ended, write.Accepted})
			}
		}
		lane("writes to "+writers[w], attempts)
	}
	asked := map[string][]attempt{}
	for _, q := range r.Requests {
		name := q.What + " " + q.Through
		asked[name] = append(asked[name], attempt{q.Ended, q.Answered})
	}
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		lane(name, asked[name])
	}
	axis(&s, length, x, top, y+2)
	marks := stepMarks(&s, r, x, y)
	return template.HTML(s.Done("time", timeWidth, y+22, fmt.Sprintf("timeline of round %d", r.Number))), marks
}

// mostTasks is the most that any node runs at any time; at least one.
func mostTasks(r Round) int {
	most := 1
	for _, v := range r.Views {
		for _, n := range r.Nodes {
			most = max(most, tasksOn(v, n.Name))
		}
	}
	return most
}

func tasksOn(v View, node string) int {
	n := 0
	for _, byNode := range v.Running {
		n += byNode[node]
	}
	return n
}

// stretch is a time in which something stayed the same.
type stretch struct {
	from, to Ms
	what     string
}

// stretches tells how what a view says goes on over time, in the views of managers that
// weren't away.
func stretches(r Round, spans map[string][]span, says func(View) string) []stretch {
	var all []stretch
	for _, v := range r.Views {
		if away(spans[v.Through], v.At) {
			continue
		}
		what := says(v)
		if len(all) > 0 {
			last := &all[len(all)-1]
			last.to = v.At
			if last.what == what {
				continue
			}
		}
		from := v.At
		if len(all) == 0 {
			from = 0 // the first look is the round's beginning
		}
		all = append(all, stretch{from, v.At, what})
	}
	if len(all) > 0 {
		all[len(all)-1].to = r.Length
	}
	return all
}

func nodeLane(s *svg.Picture, r Round, n Node, spans map[string][]span, most int, x func(Ms) float64, y float64) {
	s.Text("end", gutter-10, y+laneHigh-5, n.Name)
	end := x(r.Length)
	begin := x(n.Joined)
	s.Rect("lane", begin, y, end-begin, laneHigh, "")
	// Tasks, as steps above the bar of the state.
	room := laneHigh - barHigh
	var path strings.Builder
	for _, t := range stretches(r, spans, func(v View) string { return fmt.Sprint(tasksOn(v, n.Name)) }) {
		var count int
		_, _ = fmt.Sscan(t.what, &count)
		if count == 0 {
			continue
		}
		h := room * float64(count) / float64(most)
		fmt.Fprintf(&path, "M%.1f %.1fV%.1fH%.1fV%.1fZ", x(t.from), y+room, y+room-h, x(t.to), y+room)
	}
	if path.Len() > 0 {
		s.Add(`<path class="tasks" d="%s"/>`, path.String())
	}
	for _, t := range stretches(r, spans, func(v View) string {
		if v.Leader == n.Name {
			return "leader"
		}
		return v.Nodes[n.Name]
	}) {
		class := "other"
		switch t.what {
		case "":
			continue // not in the cluster
		case "leader", "ready", "down":
			class = t.what
		}
		s.Rect(class, x(t.from), y+room, max(0.5, x(t.to)-x(t.from)), barHigh, fmt.Sprintf("%s %s, %s to %s", n.Name, t.what, at(t.from), at(t.to)))
	}
	for _, p := range spans[n.Name] {
		class := "away"
		if !p.away {
			class = "slow"
		}
		width := x(p.to) - x(p.from)
		s.Rect(class, x(p.from), y, width, laneHigh, fmt.Sprintf("%s %s, %s to %s", n.Name, p.what, at(p.from), at(min(p.to, r.Length))))
		if width > 60 {
			s.Text("what", x(p.from)+6, y+laneHigh-8, p.what)
		}
	}
}

// attempt is a write or request: when it ended, and whether it came to something.
type attempt struct {
	ended Ms
	ok    bool
}

// attemptLane draws attempts: those that came to something as runs above, failed ones below.
func attemptLane(s *svg.Picture, attempts []attempt, x func(Ms) float64, y float64) {
	const joined = 2.5 // those nearer than that are drawn as one run
	draw := func(accepted bool, class string, y, h float64) {
		var path strings.Builder
		from, to := math.Inf(-1), math.Inf(-1)
		flush := func() {
			if !math.IsInf(from, 0) {
				fmt.Fprintf(&path, "M%.1f %.1fH%.1fV%.1fH%.1fZ", from, y, to+0.8, y+h, from)
			}
		}
		for _, a := range attempts {
			if a.ok != accepted {
				continue
			}
			if at := x(a.ended); at-to > joined {
				flush()
				from, to = at, at
			} else {
				to = at
			}
		}
		flush()
		if path.Len() > 0 {
			s.Add(`<path class="%s" d="%s"/>`, class, path.String())
		}
	}
	draw(true, "write", y+1, writeHigh-6)
	draw(false, "refused", y+writeHigh-5, 4)
}

// axis draws the seconds.
func axis(s *svg.Picture, length Ms, x func(Ms) float64, from, to float64) {
	step := svg.Nice(float64(length)/1000/9) * 1000
	for t := 0.0; t <= float64(length); t += step {
		s.Line("axis", x(Ms(t)), from, x(Ms(t)), to, "")
		s.Text("quietly mid", x(Ms(t)), to+15, fmt.Sprintf("%g s", t/1000))
	}
}

// stepMarks draws a numbered line for each step that does something.
func stepMarks(s *svg.Picture, r Round, x func(Ms) float64, bottom float64) []mark {
	var marks []mark
	last := math.Inf(-1)
	for _, step := range r.Steps {
		if step.Verb == "wait" {
			continue
		}
		text := step.Text
		if nodes := strings.Join(step.Nodes, ", "); nodes != "" && len(step.Nodes) <= 4 {
			text += " (" + nodes + ")"
		}
		marks = append(marks, mark{len(marks) + 1, text, at(step.Began)})
		place := x(step.Began)
		s.Line("mark", place, 16, place, bottom, "")
		badge := max(place, last+18)
		last = badge
		s.Add(`<circle class="badge" cx="%.1f" cy="9" r="8"><title>%s</title></circle>`, badge, html.EscapeString(text))
		s.Text("badgetext", badge, 12.7, fmt.Sprint(len(marks)))
	}
	return marks
}

// histogram shows the values of a row as stacked dots, with median and bounds.
func histogram(r Row) template.HTML {
	const width, left, right, base = 320.0, 16.0, 34.0, 84.0
	var s svg.Picture
	most := slices.Max(r.Values)
	for _, bound := range []*float64{r.MedianBound, r.WorstBound} {
		if bound != nil {
			most = max(most, *bound)
		}
	}
	step := svg.Nice(most / 4)
	if r.Counts {
		step = max(1, step)
	}
	most = max(step, math.Ceil(most*1.02/step)*step)
	x := func(v float64) float64 { return left + (width-left-right)*v/most }
	for v := 0.0; v <= most+step/2; v += step {
		s.Line("axis", x(v), 14, x(v), base, "")
		s.Text("quietly mid", x(v), base+15, shortly(r, v))
	}
	s.Line("axis", left, base, width-right, base, "")
	// The words stand on either side, so that they never meet.
	if v := r.MedianBound; v != nil {
		s.Line("bound", x(*v), 4, x(*v), base, "")
		s.Text("quietly end", x(*v)-3, 11, "median")
	}
	if v := r.WorstBound; v != nil {
		s.Line("bound", x(*v), 4, x(*v), base, "")
		s.Text("quietly", x(*v)+3, 11, "worst")
	}
	// Dots in columns; when they don't fit, they overlap.
	const radius = 4.0
	columns := map[int]int{}
	tallest := 0
	column := func(v float64) int { return int(math.Round((x(v) - left) / (2 * radius))) }
	for _, v := range r.Values {
		if v >= 0 {
			columns[column(v)]++
			tallest = max(tallest, columns[column(v)])
		}
	}
	rise := min(2*radius, (base-24)/float64(max(tallest, 1)))
	clear(columns)
	never := 0
	for i, v := range r.Values {
		if v < 0 {
			s.Add(`<circle class="never" cx="%.1f" cy="%.1f" r="3.2"><title>round %d: never</title></circle>`, width-8, base-radius-float64(never)*2*radius, i+1)
			never++
			continue
		}
		c := column(v)
		class := "dot"
		if v == r.Worst {
			class = "dot worst"
		}
		s.Add(`<circle class="%s" cx="%.1f" cy="%.1f" r="%.1f"><title>round %d: %s</title></circle>`, class,
			left+float64(c)*2*radius, base-radius-float64(columns[c])*rise, radius-0.6, i+1, html.EscapeString(r.Show(v)))
		columns[c]++
	}
	if r.Median >= 0 {
		s.Line("median", x(r.Median), base, x(r.Median), base+5, "")
		s.Text("quietly", left, base+30, fmt.Sprintf("median %s · worst %s", r.Show(r.Median), r.worst()))
	}
	return template.HTML(s.Done("", width, base+36, r.What))
}

// shortly shows a value on an axis.
func shortly(r Row, v float64) string {
	if r.Counts {
		return fmt.Sprintf("%g", v)
	}
	if v >= 1000 {
		return fmt.Sprintf("%g s", math.Round(v/10)/100)
	}
	return scenario.Millis(v)
}
