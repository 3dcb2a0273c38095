package main

//lint:file-ignore SA1019 as in root.go.

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/templates"
	units "github.com/docker/go-units"
	"github.com/spf13/cobra"

	"skep/cluster"
)

const (
	// statsEvery is how often what tasks use is asked for; statsFirst is how long after the first
	// time, when a task is too young to have a look to compare with.
	statsEvery = 2 * time.Second
	statsFirst = 1100 * time.Millisecond
)

// statsRow is a line of the table: a task, a node, or all of them together. Its methods are what
// --format can show, by the names of docker stats.
type statsRow struct {
	// Task, Service and Node are names; of a node's row only Node is there, and Tasks counts.
	Task, Service, Node string
	Tasks               int
	// CPU is in percent of one CPU; CPUKnown tells whether there were two looks to compare.
	CPU                           float64
	CPUKnown                      bool
	Memory, MemoryLimit           uint64
	Received, Sent, Read, Written uint64
	Processes                     uint64
	// Err is why there is nothing; of a sum it counts what is missing.
	Err string `json:",omitempty"`

	nodeMemory uint64 // of its node; 0 when that isn't known
}

// Name is the task's, or else the node's.
func (r statsRow) Name() string { return cmp.Or(r.Task, r.Node) }

// CPUPerc is as docker shows it.
func (r statsRow) CPUPerc() string {
	if !r.CPUKnown {
		return "-"
	}
	return fmt.Sprintf("%.2f%%", r.CPU)
}

// MemUsage is memory and its limit.
func (r statsRow) MemUsage() string {
	return units.BytesSize(float64(r.Memory)) + " / " + units.BytesSize(float64(r.MemoryLimit))
}

// MemPerc is how much of its limit that is.
func (r statsRow) MemPerc() string {
	if r.MemoryLimit == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f%%", 100*float64(r.Memory)/float64(r.MemoryLimit))
}

// NetIO is what was received and sent.
func (r statsRow) NetIO() string { return bytesPair(r.Received, r.Sent) }

// BlockIO is what was read and written.
func (r statsRow) BlockIO() string { return bytesPair(r.Read, r.Written) }

// PIDs is how many processes there are.
func (r statsRow) PIDs() uint64 { return r.Processes }

func bytesPair(a, b uint64) string {
	return units.HumanSizeWithPrecision(float64(a), 3) + " / " + units.HumanSizeWithPrecision(float64(b), 3)
}

// add adds a row to a sum.
func (r *statsRow) add(other statsRow) {
	r.Tasks += max(other.Tasks, 1)
	r.CPU, r.CPUKnown = r.CPU+other.CPU, r.CPUKnown || other.CPUKnown
	r.Memory, r.MemoryLimit = r.Memory+other.Memory, r.MemoryLimit+other.MemoryLimit
	r.Received, r.Sent = r.Received+other.Received, r.Sent+other.Sent
	r.Read, r.Written = r.Read+other.Read, r.Written+other.Written
	r.Processes += other.Processes
	if other.Err != "" {
		r.Err = "not all tasks could be asked"
	}
}

// rowOf makes a row of what a task uses; before is the last look that the command had of it.
func rowOf(of cluster.TaskUsage, before cluster.Usage) statsRow {
	r := statsRow{Task: of.Name, Service: of.Service, Node: cmp.Or(of.Hostname, of.NodeID), Tasks: 1, Err: of.Err, nodeMemory: of.NodeMemory}
	if len(of.Usage) == 0 {
		r.Err = cmp.Or(r.Err, "unknown")
		return r
	}
	now := of.Usage[len(of.Usage)-1]
	if before.At.IsZero() && len(of.Usage) > 1 {
		before = of.Usage[len(of.Usage)-2]
	}
	if span := now.At.Sub(before.At); !before.At.IsZero() && span > 0 {
		r.CPU, r.CPUKnown = max(100*float64(now.CPU-before.CPU)/float64(span), 0), true
	}
	r.Memory, r.MemoryLimit, r.Processes = now.Memory, now.MemoryLimit, now.Processes
	r.Received, r.Sent, r.Read, r.Written = now.Received, now.Sent, now.Read, now.Written
	return r
}

// byNode adds rows up. Tasks of a node that have no limit may each take all of its memory, but not together.
func byNode(rows []statsRow) []statsRow {
	sums := map[string]*statsRow{}
	for _, r := range rows {
		if sums[r.Node] == nil {
			sums[r.Node] = &statsRow{Node: r.Node}
		}
		sum := sums[r.Node]
		sum.add(r)
		if r.nodeMemory > 0 {
			sum.MemoryLimit = min(sum.MemoryLimit, r.nodeMemory)
		}
	}
	var nodes []statsRow
	for _, node := range slices.Sorted(maps.Keys(sums)) {
		nodes = append(nodes, *sums[node])
	}
	return nodes
}

// stats is one run of a stats command.
type stats struct {
	cli  command.Cli
	what string // service or node
	ref  string
	// rows makes the rows of those of tasks.
	rows                  func([]statsRow) []statsRow
	once, asJSON, history bool
	format                *template.Template
	// before is the last look at each task.
	before map[string]cluster.Usage
}

func newServiceStatsCommand(dockerCLI command.Cli) *cobra.Command {
	return newStatsCommand(dockerCLI, "service", "Show what the tasks of a service use, or of all", func(rows []statsRow) []statsRow { return rows })
}

func newNodeStatsCommand(dockerCLI command.Cli) *cobra.Command {
	return newStatsCommand(dockerCLI, "node", "Show what the tasks on a node use together, or on each", byNode)
}

func newStatsCommand(dockerCLI command.Cli, what, short string, rows func([]statsRow) []statsRow) *cobra.Command {
	s := stats{cli: dockerCLI, what: what, rows: rows, before: map[string]cluster.Usage{}}
	var format string
	cmd := &cobra.Command{
		Use:   "stats [OPTIONS] [" + strings.ToUpper(what) + "]",
		Short: short,
		Long: short + `: CPU, memory, what they received and sent,
read and wrote, and their processes, with the sum of all.

Each node is asked for what it sees now, as often as this shows it. Nodes keep what they
saw every 15 seconds for a quarter of an hour, in memory: --json --history shows that, task
by task.`,
		Args: cli.RequiresMaxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				s.ref = args[0]
			}
			switch {
			case s.history && !s.asJSON:
				return errors.New("--history is for --json: give both, or neither")
			case s.history && s.ref == "":
				return errors.New("--history is of one " + what + ": name it")
			case format != "" && s.asJSON:
				return errors.New("give --format or --json, not both")
			}
			if format != "" {
				var err error
				if s.format, err = templates.Parse(format + "\n"); err != nil {
					return fmt.Errorf("read --format: %w", err)
				}
			}
			return s.show(cmd.Context())
		},
	}
	cmd.Flags().BoolVar(&s.once, "no-stream", false, "Show it once")
	cmd.Flags().BoolVar(&s.asJSON, "json", false, "Print JSON, an object for each time")
	cmd.Flags().BoolVar(&s.history, "history", false, "With --json: print what was seen in the last quarter of an hour, and end")
	cmd.Flags().StringVar(&format, "format", "", "Print each row by a Go template, with .Name .Task .Service .Node .Tasks .CPUPerc .MemUsage .MemPerc .NetIO .BlockIO .PIDs .Err")
	return cmd
}

// show asks and prints, again and again.
func (s *stats) show(ctx context.Context) error {
	for first := true; ; first = false {
		usage, err := s.ask(ctx)
		if err != nil {
			return err
		}
		if s.history {
			return printJSON(s.cli.Out(), usage)
		}
		rows, young := s.rowsOf(usage)
		wait := statsEvery
		if first && young { // A moment later there is something to compare with.
			wait = statsFirst
		}
		if wait == statsEvery || s.redraws() { // Who reads them one after the other has whole ones only.
			if err := s.print(rows); err != nil || s.once {
				return err
			}
		}
		if !cluster.Sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

// redraws tells whether each table takes the place of the one before.
func (s *stats) redraws() bool {
	return s.cli.Out().IsTerminal() && !s.once && !s.asJSON && s.format == nil
}

func (s *stats) ask(ctx context.Context) ([]cluster.TaskUsage, error) {
	query := url.Values{}
	if s.ref != "" {
		query.Set(s.what, s.ref)
	}
	if s.history {
		query.Set("history", "1")
	}
	var usage []cluster.TaskUsage
	err := ask(ctx, s.cli.Client(), http.MethodGet, strings.TrimPrefix(cluster.UsagePath, "/skep/v1/")+"?"+query.Encode(), nil, &usage)
	return usage, err
}

// rowsOf makes rows of tasks, and remembers their looks. Young tells whether there is a task of which this
// is the first look.
func (s *stats) rowsOf(usage []cluster.TaskUsage) (rows []statsRow, young bool) {
	last := make(map[string]cluster.Usage, len(usage))
	for _, of := range usage {
		row := rowOf(of, s.before[of.TaskID])
		rows, young = append(rows, row), young || !row.CPUKnown && row.Err == ""
		if n := len(of.Usage); n > 0 {
			last[of.TaskID] = of.Usage[n-1]
		}
	}
	s.before = last
	return rows, young
}

func (s *stats) print(tasks []statsRow) error {
	total := statsRow{}
	for _, row := range byNode(tasks) {
		total.add(row)
	}
	rows := s.rows(tasks)
	out := s.cli.Out()
	switch {
	case s.asJSON:
		return printJSON(out, struct {
			Rows  []statsRow
			Total statsRow
		}{rows, total})
	case s.format != nil:
		for _, row := range rows {
			if err := s.format.Execute(out, row); err != nil {
				return err
			}
		}
		return nil
	}
	total.Task, total.Node = "TOTAL", fmt.Sprintf("%d tasks", total.Tasks)
	if !s.redraws() {
		return s.table(out, rows, total)
	}
	var text bytes.Buffer
	if err := s.table(&text, rows, total); err != nil {
		return err
	}
	high, wide := out.GetTtySize()
	_, err := io.WriteString(out, clearScreen+fitScreen(text.String(), int(high), int(wide)))
	return err
}

// fitScreen cuts a table to what a terminal shows: a line that goes on in the next one, or a head that is scrolled
// away, says nothing. The last line, which is the sum, stays. Zero is no bound.
func fitScreen(text string, high, wide int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if n := len(lines); high > 3 && n >= high {
		hidden := n - (high - 2)
		lines = append(lines[:high-3:high-3], fmt.Sprintf("… %d more", hidden), lines[n-1])
	}
	for i, line := range lines {
		line = strings.TrimRight(line, " ")
		if letters := []rune(line); wide > 1 && len(letters) > wide {
			line = string(letters[:wide-1]) + "…"
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n") + "\n"
}

func (s *stats) table(out io.Writer, rows []statsRow, total statsRow) error {
	t := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	figures := "CPU %\tMEM USAGE / LIMIT\tMEM %\tNET I/O\tBLOCK I/O\tPIDS"
	line := func(begin string, r statsRow) {
		if r.Err != "" && r.Memory == 0 {
			fmt.Fprintf(t, "%s\t-\t-\t-\t-\t-\t-\t%s\n", begin, r.Err)
			return
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", begin, r.CPUPerc(), r.MemUsage(), r.MemPerc(), r.NetIO(), r.BlockIO(), r.Processes, r.Err)
	}
	if s.what == "node" {
		fmt.Fprintln(t, "NODE\tTASKS\t"+figures+"\t")
		for _, r := range rows {
			line(fmt.Sprintf("%s\t%d", r.Node, r.Tasks), r)
		}
		line(fmt.Sprintf("TOTAL\t%d", total.Tasks), total)
	} else {
		fmt.Fprintln(t, "TASK\tNODE\t"+figures+"\t")
		for _, r := range rows {
			line(r.Task+"\t"+r.Node, r)
		}
		line(total.Task+"\t"+total.Node, total)
	}
	return t.Flush()
}
