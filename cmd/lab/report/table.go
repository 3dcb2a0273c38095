package report

import (
	"fmt"
	"io"
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
	}
	return "NO"
}

// Table prints what was measured in each run.
func Table(w io.Writer, runs []Run) {
	for _, run := range runs {
		fmt.Fprintf(w, "\n%s, %d rounds, %d managers, %d workers, driver %s\n", run.Scenario, len(run.Rounds), run.Managers, run.Workers, run.Driver)
		t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
		fmt.Fprintln(t, "STEP\tWHAT\tMEDIAN\tWORST\tMUST\tKEPT")
		for _, r := range Rows(run) {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Step, r.What, r.Show(r.Median), r.worst(), r.Bound, r.Verdict())
		}
		t.Flush()
		for _, r := range run.Rounds {
			if r.Failure != "" {
				fmt.Fprintf(w, "round %d could not be completed: %s\n", r.Number, r.Failure)
			}
			for _, state := range []string{"down", "disconnected"} {
				if names := r.called(state); len(names) > 0 {
					fmt.Fprintf(w, "round %d: called %s though there: %s\n", r.Number, state, strings.Join(names, ", "))
				}
			}
			if len(r.Lost) > 0 {
				fmt.Fprintf(w, "round %d: LOST %d accepted writes, the first is %s\n", r.Number, len(r.Lost), r.Lost[0])
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

// Compare prints runs of the same scenario on several subjects side by side.
func Compare(w io.Writer, scenarios [][]Run) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprint(t, "SCENARIO\tWHAT")
	for _, run := range scenarios[0] {
		fmt.Fprintf(t, "\t%s MEDIAN\tWORST", run.Subject)
	}
	fmt.Fprintln(t, "\tRATIO")
	for _, runs := range scenarios {
		for i, row := range Rows(runs[0]) {
			fmt.Fprintf(t, "%s\t%s", runs[0].Scenario, row.What)
			var medians []float64
			for _, run := range runs {
				rows := Rows(run)
				if i >= len(rows) || rows[i].What != row.What {
					fmt.Fprint(t, "\tnot measured\t")
					continue
				}
				medians = append(medians, rows[i].Median)
				fmt.Fprintf(t, "\t%s\t%s", rows[i].Show(rows[i].Median), rows[i].worst())
			}
			fmt.Fprintln(t, "\t"+ratio(row, medians))
		}
	}
	t.Flush()
}

// ratio is how many times longer the second took.
func ratio(row Row, medians []float64) string {
	if row.Counts || len(medians) < 2 || medians[0] <= 0 || medians[1] < 0 {
		return ""
	}
	return fmt.Sprintf("%.1f ×", medians[1]/medians[0])
}
