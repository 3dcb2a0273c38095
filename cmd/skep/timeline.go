package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/docker/client"
	"github.com/spf13/cobra"

	"skep/cluster"
	"skep/cluster/timeline"
)

const (
	// followEvery is how often the managers are asked by --follow, and followBack how much of the time before
	// is asked for again: what a manager told too late, or whose clock is off, isn't missed.
	followEvery = time.Second
	followBack  = 15 * time.Second
	// followKept is how much is kept to tell what belongs together.
	followKept = time.Hour
	// settled is how long nothing may be added to a sentence until it is told.
	settled = time.Second
)

func newClusterTimelineCommand(dockerCLI command.Cli) *cobra.Command {
	var since, file string
	var follow, asJSON bool
	cmd := &cobra.Command{
		Use:   "timeline [OPTIONS]",
		Short: "Tell what the managers did: elections and votes, hand-overs, lost contact, nodes' states",
		Long: `Tell what the managers did: elections and votes, hand-overs, lost contact, nodes' states.

Each manager keeps what it did lately in memory; the one that is asked puts together what all tell,
whether there is a leader or not. Times are by its clock.`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file != "" && (follow || asJSON) {
				return errors.New("--svg draws what was until now: leave --follow and --json out")
			}
			ctx, c, out := cmd.Context(), dockerCLI.Client(), dockerCLI.Out()
			t, err := fetchTimeline(ctx, c, since)
			if err != nil {
				return err
			}
			switch {
			case follow:
				return followTimeline(ctx, out, dockerCLI.Err(), t, asJSON, func(since time.Time) (timeline.Timeline, error) {
					return fetchTimeline(ctx, c, since.Format(time.RFC3339Nano))
				})
			case file != "":
				return writePicture(out, file, timeline.Page(t))
			case asJSON:
				return printRecords(out, t, t.Records)
			}
			return tellTimeline(out, t)
		},
	}
	cmd.Flags().StringVar(&since, "since", "10m", `Begin then: a time ("2026-11-30T12:00:00") or for how long back ("1h")`)
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "Go on with what happens")
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print the records, one in a line")
	cmd.Flags().StringVar(&file, "svg", "", `Draw it into a file; "-" prints the drawing`)
	return cmd
}

func fetchTimeline(ctx context.Context, c client.APIClient, since string) (t timeline.Timeline, err error) {
	err = ask(ctx, c, http.MethodGet, "timeline?"+url.Values{"since": {since}}.Encode(), nil, &t)
	return t, err
}

func writePicture(out io.Writer, file, picture string) error {
	if file == "-" {
		_, err := io.WriteString(out, picture)
		return err
	}
	if err := os.WriteFile(file, []byte(picture), 0o644); err != nil {
		return fmt.Errorf("write the drawing: %w", err)
	}
	return nil
}

// tellTimeline tells a timeline in sentences, and what is missing in it.
func tellTimeline(out io.Writer, t timeline.Timeline) error {
	var text strings.Builder
	day := ""
	for _, s := range timeline.Story(t) {
		if this := s.From.Local().Format(time.DateOnly); this != day {
			day = this
			fmt.Fprintln(&text, day)
		}
		fmt.Fprintln(&text, sentence(s, 0, t.Name))
	}
	if text.Len() == 0 {
		fmt.Fprintf(&text, "Nothing happened since %s.\n", t.Since.Local().Format(time.DateTime))
	}
	fmt.Fprintln(&text)
	for _, line := range remarks(t) {
		fmt.Fprintln(&text, line)
	}
	_, err := io.WriteString(out, text.String())
	return err
}

// sentence is a line, without the first steps. One that isn't over says so.
func sentence(s timeline.Sentence, told int, name func(string) string) string {
	more := ""
	if told > 0 {
		more = "… "
	}
	at := s.From
	if told > 0 {
		at = s.Steps[told].At
	}
	line := clockOf(at) + "  " + more + s.WordsFrom(told, name)
	if s.Open && s.About == timeline.AboutElection {
		line += " → …"
	}
	return line
}

func clockOf(at time.Time) string { return at.Local().Format("15:04:05.000") }

// remarks say how it is now, and what is to be known of the answer.
func remarks(t timeline.Timeline) (lines []string) {
	leader := "Nobody leads now, as far as they tell."
	var missing []string
	for _, lane := range t.Managers {
		name := t.Name(lane.NodeID)
		switch {
		case lane.Missing != "":
			missing = append(missing, fmt.Sprintf("%s doesn't tell what it did: %s.", name, lane.Missing))
		case lane.Role == timeline.Leader:
			leader = fmt.Sprintf("%s leads in term %d.", name, lane.Term)
		}
		switch {
		case lane.Offset > 0:
			missing = append(missing, fmt.Sprintf("The clock of %s is %s ahead; its times are corrected.", name, timeline.Lasted(lane.Offset)))
		case lane.Offset < 0:
			missing = append(missing, fmt.Sprintf("The clock of %s is %s behind; its times are corrected.", name, timeline.Lasted(-lane.Offset)))
		}
	}
	return append([]string{leader}, missing...)
}

// jsonRecord is a record with names.
type jsonRecord struct {
	timeline.Record
	ManagerName string
	NodeName    string `json:",omitempty"`
}

func printRecords(out io.Writer, t timeline.Timeline, records []timeline.Record) error {
	enc := json.NewEncoder(out)
	for _, r := range records {
		named := jsonRecord{Record: r, ManagerName: t.Name(r.Manager)}
		if r.Node != "" {
			named.NodeName = t.Name(r.Node)
		}
		if err := enc.Encode(named); err != nil {
			return err
		}
	}
	return nil
}

// followTimeline tells what there is, and then what is new, until ctx ends. While no answer comes it asks on.
func followTimeline(ctx context.Context, out, complain io.Writer, t timeline.Timeline, asJSON bool, fetch func(since time.Time) (timeline.Timeline, error)) error {
	f := newFollower()
	said := ""
	for {
		lines, records := f.news(t)
		if asJSON {
			if err := printRecords(out, t, records); err != nil {
				return err
			}
		} else {
			for _, line := range lines {
				if _, err := fmt.Fprintln(out, line); err != nil {
					return err
				}
			}
		}
		for {
			if !cluster.Sleep(ctx, followEvery) {
				return nil
			}
			next, err := fetch(t.At.Add(-followBack))
			if err == nil {
				t, said = next, ""
				break
			}
			if ctx.Err() == nil && err.Error() != said {
				said = err.Error()
				fmt.Fprintln(complain, said)
			}
		}
	}
}

// follower knows what was told of a timeline that goes on.
type follower struct {
	// records are the last ones; printed tells of which it was told, and steps how many of each sentence's.
	records map[timeline.Mark]timeline.Record
	printed map[timeline.Mark]bool
	steps   map[timeline.Mark]int
	names   map[string]string
}

func newFollower() *follower {
	return &follower{records: map[timeline.Mark]timeline.Record{}, printed: map[timeline.Mark]bool{}, steps: map[timeline.Mark]int{}, names: map[string]string{}}
}

// news takes in an answer, and gives what is to be told: sentences to which nothing was added for a moment, and
// records that don't grow any more.
func (f *follower) news(t timeline.Timeline) (lines []string, records []timeline.Record) {
	maps.Copy(f.names, t.Names)
	for _, r := range t.Records {
		f.records[timeline.Mark{Manager: r.Manager, Seq: r.Seq}] = r
	}
	for mark, r := range f.records {
		if t.At.Sub(r.Time) > followKept {
			delete(f.records, mark)
			delete(f.printed, mark)
			delete(f.steps, mark)
		}
	}
	all := t
	all.Names, all.Records = f.names, slices.SortedFunc(maps.Values(f.records), timeline.Order)
	for _, r := range all.Records {
		mark := timeline.Mark{Manager: r.Manager, Seq: r.Seq}
		if !f.printed[mark] && (r.Kind != timeline.Writes || t.At.Sub(r.Time) > time.Second) {
			f.printed[mark] = true
			records = append(records, r)
		}
	}
	for _, s := range timeline.Story(all) {
		if told := f.steps[s.Of]; told < len(s.Steps) && t.At.Sub(s.To) >= settled {
			f.steps[s.Of] = len(s.Steps)
			lines = append(lines, sentence(s, told, all.Name))
		}
	}
	return lines, records
}
