package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// Verdict says whether a bound was kept, as the tables show it.
func (r Row) Verdict() string {
	switch {
	case r.Bound == "":
		return ""
	case r.Kept:
		return "yes"
	case len(r.Values) == 0:
		return "not run"
	}
	return "NO"
}

// Table prints what was measured in each run.
func Table(w io.Writer, runs []Run) {
	for _, run := range runs {
		fmt.Fprintf(w, "\n%s%s, %s, %d managers, %d workers, driver %s\n", subject(run), run.Scenario, rounds(run), run.Managers, run.Workers, run.Driver)
		t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
		fmt.Fprintln(t, "STEP\tWHAT\tMEDIAN\tWORST\tMUST\tKEPT")
		for _, r := range Rows(run) {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Step, r.What, r.Show(r.Median), r.worst(), r.Bound, r.Verdict())
		}
		t.Flush()
	}
	failures(w, runs)
}

// failures prints what was wrong in single rounds.
func failures(w io.Writer, runs []Run) {
	for _, run := range runs {
		say := func(r Round, format string, args ...any) {
			fmt.Fprintf(w, "%s%s, round %d: %s\n", subject(run), run.Scenario, r.Number, fmt.Sprintf(format, args...))
		}
		for _, r := range run.Rounds {
			if r.Failure != "" {
				say(r, "could not be completed: %s", r.Failure)
			}
			for _, state := range []string{"down", "disconnected"} {
				if names := r.called(state); len(names) > 0 {
					say(r, "called %s though there: %s", state, strings.Join(names, ", "))
				}
			}
			if len(r.Lost) > 0 {
				say(r, "LOST %d accepted writes, the first is %s", len(r.Lost), r.Lost[0])
			}
		}
	}
}

// worst is the worst value, and in how many rounds there was none.
func (r Row) worst() string {
	switch n := r.Missing(); {
	case n == 0 || n == len(r.Values):
		return r.Show(r.Worst)
	default:
		return fmt.Sprintf("never in %d", n)
	}
}

// Pair is one measure of two runs of the same scenario.
type Pair struct {
	Scenario, What, Step string
	// Ours and Theirs are the measures of the first run and of the second.
	Ours, Theirs Row
}

// Ratio is how many times longer the second took, in words; empty for what is counted.
func (p Pair) Ratio() string {
	if p.Ours.Counts || p.Ours.Median <= 0 || p.Theirs.Median < 0 {
		return ""
	}
	r := p.Theirs.Median / p.Ours.Median
	if r >= 10 {
		return fmt.Sprintf("%.0f ×", r)
	}
	return fmt.Sprintf("%.1f ×", r)
}

// Pairs sets the runs of the same scenario beside each other, for what both measured.
func Pairs(runs []Run) []Pair {
	var pairs []Pair
	for i, ours := range runs {
		for _, theirs := range runs[i+1:] {
			if ours.Scenario != theirs.Scenario {
				continue
			}
			their := Rows(theirs)
			for _, row := range Rows(ours) {
				j := slices.IndexFunc(their, func(r Row) bool { return r.Step == row.Step && r.What == row.What })
				if j >= 0 {
					pairs = append(pairs, Pair{ours.Scenario, row.What, row.Step, row, their[j]})
				}
			}
		}
	}
	return pairs
}

// Compare prints the pairs of the runs side by side.
func Compare(w io.Writer, runs []Run) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(t, "\nSCENARIO\tWHAT\t%s\tWORST\t%s\tWORST\tRATIO\n", runs[0].Subject, runs[len(runs)-1].Subject)
	for _, p := range Pairs(runs) {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", p.Scenario, p.What, p.Ours.Show(p.Ours.Median), p.Ours.worst(), p.Theirs.Show(p.Theirs.Median), p.Theirs.worst(), p.Ratio())
	}
	t.Flush()
	failures(w, runs)
}
