package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"skep/cmd/lab/scenario"
)

// before is how long before a step a gap may begin and still be laid to it.
const before Ms = 1000

// opens are the verbs after which a node is away, closes those after which it is back.
var (
	opens = map[string]string{"kill": "killed", "stop": "stopped", "pause": "paused", "cut": "cut off", "fill": "disk full", "freeze": "disk hangs",
		"cut-power": "without power", "leave": "left", "restart-engine": "engine restarted", "move": "moved"}
	closes = []string{"start", "resume", "heal", "thaw"}
	slows  = map[string]string{"delay": "slow", "lose": "loses packets"}
)

// span is a time in which something was done to a node.
type span struct {
	from, to Ms
	what     string
	away     bool // and not only slow
}

// spans tells when each node was away or slow, by what the steps did.
func (r Round) spans() map[string][]span {
	all := map[string][]span{}
	end := func(name string, at Ms, slow bool) {
		for i, s := range all[name] {
			if s.away || slow {
				all[name][i].to = min(s.to, at)
			}
		}
	}
	for _, s := range r.Steps {
		for _, name := range s.Nodes {
			what, away := opens[s.Verb]
			if !away {
				what = slows[s.Verb]
			}
			switch {
			case slices.Contains(closes, s.Verb):
				end(name, s.Ended, true)
			case what != "":
				if away {
					end(name, s.Began, false)
				}
				to := Ms(math.Inf(1)) // until it is mended
				if s.Verb == "restart-engine" || s.Verb == "move" {
					to = s.Ended
				}
				all[name] = append(all[name], span{s.Began, to, what, away})
			}
		}
	}
	return all
}

// away tells whether the node was away at that instant.
func away(spans []span, at Ms) bool {
	return slices.ContainsFunc(spans, func(s span) bool { return s.away && s.from <= at && at < s.to })
}

// dark tells whether nothing could be asked of the node, which an end of its daemon alone
// doesn't do.
func dark(spans []span, at Ms) bool {
	return slices.ContainsFunc(spans, func(s span) bool {
		return (s.what == opens["cut-power"] || s.what == opens["cut"]) && s.from <= at && at < s.to
	})
}

// failures calls f for the requests that failed after a step and until the next, of clients who
// asked nodes that could be asked. A machine that has just got its power back may refuse.
func (r Round) failures(s Step, until Ms, f func(Request)) {
	spans := r.spans()
	for _, q := range r.Requests {
		if !q.Answered && q.Ended >= s.Began && q.Ended < until && !dark(spans[q.Through], q.Began) && !dark(spans[q.Through], q.Ended) && !(r.refused(q) && r.boots(q)) {
			f(q)
		}
	}
}

// refused tells whether a request failed because nobody listens where it was sent.
func (r Round) refused(q Request) bool {
	return !q.Answered && q.Why >= 0 && q.Why < len(r.Refusals) && strings.Contains(r.Refusals[q.Why], "connection refused")
}

// boots tells whether the machine that was asked had lost its power, and answered nobody since it got it back. Its daemon
// is what leads clients on: before that carries again nobody could but the machine's kernel, which refuses.
func (r Round) boots(q Request) (boots bool) {
	cut := false
	for _, s := range r.Steps {
		if s.Began > q.Ended || !slices.Contains(s.Nodes, q.Through) {
			continue
		}
		switch s.Verb {
		case "cut-power":
			cut, boots = true, false
		case "start":
			carries, yes := r.carries(q.Through, s.Began)
			boots, cut = cut && (!yes || carries > q.Ended), false
		}
	}
	return boots
}

// carries is when a node first answered a request that was sent after from.
func (r Round) carries(name string, from Ms) (first Ms, found bool) {
	for _, q := range r.Requests {
		if q.Answered && q.Through == name && q.Began >= from && (!found || q.Ended < first) {
			first, found = q.Ended, true
		}
	}
	return first, found
}

// hit are the nodes that a step took away. Slow ones are there: what they suffer counts.
func (s Step) hit() []string {
	if slows[s.Verb] != "" {
		return nil
	}
	return s.Nodes
}

// until is when the next step that does something begins, or the round ends.
func (r Round) until(step int) Ms {
	for _, s := range r.Steps[step+1:] {
		if s.Verb != "wait" {
			return s.Began
		}
	}
	return r.Length
}

// seen finds the first instant from the given one on at which a manager says it, of
// managers that weren't away when they were asked.
func (r Round) seen(from Ms, shows func(v View, at Ms) bool) (Ms, bool) {
	spans := r.spans()
	first, found := Ms(0), false
	for _, v := range r.Views {
		at := max(v.At, from)
		if v.Until >= from && (!found || at < first) && !away(spans[v.Through], at) && shows(v, at) {
			first, found = at, true
		}
	}
	return first, found
}

// whole tells whether every service runs what it should on nodes that are there.
func whole(v View, spans map[string][]span, at Ms) bool {
	for service, want := range v.Wanted {
		have := 0
		for name, n := range v.Running[service] {
			if !away(spans[name], at) {
				have += n
			}
		}
		if have < want {
			return false
		}
	}
	return true
}

// even tells whether the tasks of each service are spread evenly over the nodes that had
// any when the round began.
func (r Round) even(v View) bool {
	for service, began := range r.Views[0].Running {
		least, most := math.MaxInt, 0
		for name := range began {
			n := v.Running[service][name]
			least, most = min(least, n), max(most, n)
		}
		if most > least+1 && len(began) > 0 {
			return false
		}
	}
	return true
}

// Came tells whether what a wait waits for has come: the words of both are the same.
func (r Round) Came(step int, what string) bool {
	_, ok := r.measure(step, scenario.Measure{Name: what})
	return ok
}

// measure returns the value of one measure of a step, and false when what it waits for
// never came.
func (r Round) measure(step int, m scenario.Measure) (float64, bool) {
	s, until := r.Steps[step], r.until(step)
	length := func(at Ms, ok bool) (float64, bool) { return float64(at - s.Began), ok }
	switch m.Name {
	case "next-write":
		best, found := Ms(math.Inf(1)), false
		for _, w := range r.Writes {
			if w.Accepted && w.Began >= s.Ended && w.Ended < best {
				best, found = w.Ended, true
			}
		}
		return length(best, found)
	case "write-gap":
		return r.longestGap(s, until)
	case "calm-gap":
		return r.calmGap(s)
	case "down":
		return length(r.seen(s.Began, func(v View, _ Ms) bool {
			return len(s.Nodes) > 0 && !slices.ContainsFunc(s.Nodes, func(name string) bool { return v.Nodes[name] != "down" })
		}))
	case "whole", "moved":
		spans := r.spans()
		value, ok := length(r.seen(s.Began, func(v View, at Ms) bool { return whole(v, spans, at) }))
		if m.Name == "moved" {
			value = max(0, value-float64(r.ContainerStart))
		}
		return value, ok
	case "even":
		spans := r.spans()
		return length(r.seen(s.Began, func(v View, at Ms) bool { return whole(v, spans, at) && r.even(v) }))
	case "ready":
		spans := r.spans()
		return length(r.seen(s.Ended, func(v View, at Ms) bool {
			for _, n := range r.Nodes {
				if n.Joined <= at && !away(spans[n.Name], at) && v.Nodes[n.Name] != "ready" {
					return false
				}
			}
			return true
		}))
	case "voting":
		spans := r.spans()
		return length(r.seen(s.Ended, func(v View, at Ms) bool {
			for _, n := range r.Nodes {
				if n.Role == "manager" && n.Joined <= at && !away(spans[n.Name], at) && !v.Voting[n.Name] {
					return false
				}
			}
			return true
		}))
	case "update", "rollback":
		want := map[string]string{"update": "completed", "rollback": "rollback_completed"}[m.Name]
		return length(r.seen(s.Ended, func(v View, _ Ms) bool {
			if s.Service != "" {
				return v.Updates[s.Service] == want
			}
			for _, state := range v.Updates {
				return state == want
			}
			return false
		}))
	case "refused":
		n, spans := 0, r.spans()
		for _, w := range r.Writes {
			if !w.Accepted && w.Ended >= s.Began && w.Ended < until && !away(spans[w.Through], w.Ended) {
				n++
			}
		}
		return float64(n), true
	case "failed":
		n := 0
		r.failures(s, until, func(Request) { n++ })
		return float64(n), len(r.Requests) > 0
	case "carries":
		last := s.Began
		for _, name := range s.Nodes {
			first, found := r.carries(name, s.Began)
			if !found {
				return length(0, false)
			}
			last = max(last, first)
		}
		return length(last, len(s.Nodes) > 0)
	case "failing":
		last := s.Began
		r.failures(s, until, func(q Request) { last = max(last, q.Began) })
		return length(last, len(r.Requests) > 0)
	case "noticed":
		noticed := map[string]bool{}
		for _, change := range r.Sessions {
			manager := s.Agents[change.Node]
			if change.At >= s.Began && change.At < until && manager != "" &&
				!slices.Contains(s.hit(), change.Node) && !slices.Contains(s.hit(), manager) {
				noticed[change.Node] = true
			}
		}
		return float64(len(noticed)), true
	}
	return 0, false
}

// longestGap is the longest time between two accepted writes of one client around the
// step, of clients whose manager the step didn't act on.
func (r Round) longestGap(s Step, until Ms) (float64, bool) {
	last := map[int]Ms{}
	longest, found := Ms(0), false
	for _, w := range r.Writes {
		if slices.Contains(s.hit(), w.Through) || w.Ended < s.Began-before || w.Ended > until {
			continue
		}
		if _, known := last[w.Writer]; !known && w.Ended < s.Began {
			last[w.Writer] = w.Ended
		}
		if !w.Accepted {
			continue
		}
		if previous, ok := last[w.Writer]; ok && w.Ended >= s.Began {
			longest, found = max(longest, w.Ended-previous), true
		}
		last[w.Writer] = w.Ended
	}
	// A client that saw none at all until the end waited at least so long.
	for _, at := range last {
		if found && at < s.Began {
			longest = max(longest, until-at)
		}
	}
	return float64(longest), found
}

// calmGap is the longest time between two accepted writes of one client in the second
// before the step.
func (r Round) calmGap(s Step) (float64, bool) {
	last := map[int]Ms{}
	longest, found := Ms(0), false
	for _, w := range r.Writes {
		if !w.Accepted || w.Ended < s.Began-before || w.Ended > s.Began {
			continue
		}
		if previous, ok := last[w.Writer]; ok {
			longest, found = max(longest, w.Ended-previous), true
		}
		last[w.Writer] = w.Ended
	}
	return float64(longest), found
}

// called are the nodes that a manager called by that state though no step took them away.
func (r Round) called(state string) []string {
	spans := r.spans()
	hit := map[string]bool{}
	for _, s := range r.Steps {
		for _, name := range s.hit() {
			hit[name] = true
		}
	}
	var names []string
	for _, v := range r.Views {
		for name, is := range v.Nodes {
			if is == state && !hit[name] && !away(spans[v.Through], v.At) && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// Row is one measure over all rounds of a run.
type Row struct {
	// Step is the step it counts from, What what it counts.
	Step, What string
	// Values has one per round that tells something, in milliseconds or as numbers of things (Counts); a
	// round in which what is measured never came has -1.
	Values []float64
	Counts bool
	// Median and Worst are over the values that came; -1 when none did.
	Median, Worst float64
	// MedianBound and WorstBound are nil where nothing is bounded.
	MedianBound, WorstBound *float64
	// Bound is both in words; Kept is false when a value is beyond them, or never came.
	Bound string
	Kept  bool
}

// Missing is in how many rounds what is measured never came.
func (r Row) Missing() int {
	n := 0
	for _, v := range r.Values {
		if v < 0 {
			n++
		}
	}
	return n
}

// Show shows a value of the row.
func (r Row) Show(v float64) string {
	switch {
	case v < 0:
		return "never"
	case r.Counts:
		return fmt.Sprintf("%g", v)
	}
	return scenario.Millis(v)
}

// wholeRound stands where a row's step would.
const wholeRound = "the whole round"

// Rows are all measures of a run: those of its steps, and what holds in every scenario.
func Rows(run Run) []Row {
	var rows []Row
	zero := 0.0
	lost := Row{Step: wholeRound, What: "accepted writes lost", Counts: true, WorstBound: &zero, Bound: "none"}
	down := Row{Step: wholeRound, What: "nodes called down that were there", Counts: true, WorstBound: &zero, Bound: "none"}
	doubted := Row{Step: wholeRound, What: "nodes called disconnected that were there", Counts: true}
	var complete []Round
	for _, r := range run.Rounds {
		for row, count := range map[*Row]int{&lost: len(r.Lost), &down: len(r.called("down")), &doubted: len(r.called("disconnected"))} {
			// That nothing was seen in a round that ended early, or never ran, says nothing.
			if r.Failure == "" || count > 0 {
				row.Values = append(row.Values, float64(count))
			}
		}
		if r.Failure == "" {
			complete = append(complete, r)
		}
	}
	if len(complete) > 0 {
		for i, step := range complete[0].Steps {
			for _, m := range step.Measures {
				row := Row{Step: step.Text, What: m.Meaning().Does, Counts: m.Meaning().Counts, MedianBound: m.Median, WorstBound: m.Worst, Bound: m.Bound()}
				for _, r := range complete {
					v, ok := r.measure(i, m)
					if !ok {
						v = -1
					}
					row.Values = append(row.Values, v)
				}
				rows = append(rows, row)
			}
		}
	}
	rows = append(rows, lost, down, doubted)
	for i := range rows {
		rows[i].judge()
	}
	return rows
}

func (r *Row) judge() {
	came := slices.DeleteFunc(slices.Sorted(slices.Values(r.Values)), func(v float64) bool { return v < 0 })
	r.Median, r.Worst = -1, -1
	if len(came) > 0 {
		r.Median, r.Worst = came[len(came)/2], came[len(came)-1]
	}
	bounded := r.MedianBound != nil || r.WorstBound != nil
	r.Kept = len(came) > 0 && (!bounded || r.Missing() == 0) &&
		(r.MedianBound == nil || r.Median <= *r.MedianBound) && (r.WorstBound == nil || r.Worst <= *r.WorstBound)
}

// Lost is how many accepted writes were lost in all rounds, and Failed how many rounds
// couldn't be completed.
func (run Run) Lost() (lost, failed int) {
	for _, r := range run.Rounds {
		lost += len(r.Lost)
		if r.Failure != "" {
			failed++
		}
	}
	return lost, failed
}
