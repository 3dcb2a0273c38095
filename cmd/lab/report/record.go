// Package report turns what the lab recorded of its rounds into numbers and pages:
// measures, the table for the terminal, results.json and report.html.
//
// Everything here is a pure function of a Run, so a report can be made again from
// results.json, and what a measure means can be tested without a cluster. All
// instants are milliseconds since their round began.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"skep/cluster/timeline"
	"skep/cmd/lab/scenario"
)

// Ms is an instant of a round, or a length, in milliseconds.
type Ms float64

// MarshalJSON writes tenths: finer than anything here is measured.
func (m Ms) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, math.Round(float64(m)*10)/10, 'f', -1, 64), nil
}

// Since is the instant now of a round that began at start.
func Since(start, now time.Time) Ms { return Ms(now.Sub(start)) / Ms(time.Millisecond) }

// Run is a scenario that was run, all its rounds.
type Run struct {
	// Subject is what the experiment was made on: "skep", or what it is compared with.
	Subject string
	// Scenario is its name, About what is to be seen, Text the file.
	Scenario, About, Text string
	Driver, Latency       string
	// Isolated tells whether each node had a network namespace of its own.
	Isolated          bool
	Managers, Workers int
	// Machine says what it ran on, in words.
	Machine string
	Began   time.Time
	Rounds  []Round
}

// Round is one time through the steps, on a cluster of its own.
type Round struct {
	Number int
	Nodes  []Node
	Steps  []Step
	Writes []Write
	// Requests are those of the services' users, and their look-ups of names.
	Requests []Request `json:",omitempty"`
	// Refusals are the reasons that writes and requests failed for, by their number in Why.
	Refusals []string
	Views    []View
	Sessions []Session
	// Timeline is what the managers told of themselves when the round was over, from Began on, which is the instant 0; nil when
	// nobody told. They have the lab's clock, but where a scenario gives them another.
	Timeline *timeline.Timeline `json:",omitempty"`
	Began    time.Time          `json:",omitzero"`
	// Lost are writes that were accepted and aren't there at the end.
	Lost []string
	// ContainerStart is what the engine alone took to start containers; 0 for simulated ones.
	ContainerStart Ms
	Length         Ms
	// Failure is why the round couldn't be completed; empty when it was.
	Failure string
}

// Node is a node of a round. Role is "manager" or "worker", Joined when it was there.
type Node struct {
	Name, Role string
	Joined     Ms
}

// Step is a step of the scenario as it was done.
type Step struct {
	Line       int
	Verb, Text string
	// Nodes are those that the step acted on; Service is the service it is about.
	Nodes   []string
	Service string
	// Began is just before it, Ended when it had taken effect.
	Began, Ended Ms
	Measures     []scenario.Measure
	// Agents say with which manager each node's agent spoke when the step began.
	Agents map[string]string
}

// Write is one attempt of a client to change the cluster.
type Write struct {
	Writer int
	// Through is the manager that the client spoke to.
	Through      string
	Began, Ended Ms
	Accepted     bool
	// Why is the reason of a failure in Round.Refusals.
	Why int
}

// MarshalJSON keeps the thousands of writes short: writer, manager, began, ended, and -1
// when it was accepted, else why not.
func (w Write) MarshalJSON() ([]byte, error) {
	why := w.Why
	if w.Accepted {
		why = -1
	}
	return json.Marshal([]any{w.Writer, w.Through, w.Began, w.Ended, why})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (w *Write) UnmarshalJSON(data []byte) error {
	parts := []any{&w.Writer, &w.Through, &w.Began, &w.Ended, &w.Why}
	if err := json.Unmarshal(data, &parts); err != nil {
		return fmt.Errorf("read a write: %w", err)
	}
	if w.Accepted = w.Why < 0; w.Accepted {
		w.Why = 0
	}
	return nil
}

// Request is one attempt of a client of a service to be answered.
type Request struct {
	// What it asked for: "requests" or "look-ups"; Through is the node that it asked, or that it
	// was on.
	What, Through string
	Client        int
	Began, Ended  Ms
	Answered      bool
	// Why is the reason of a failure in Round.Refusals.
	Why int
}

// MarshalJSON keeps requests short, as Write's does.
func (q Request) MarshalJSON() ([]byte, error) {
	why := q.Why
	if q.Answered {
		why = -1
	}
	return json.Marshal([]any{q.What, q.Through, q.Client, q.Began, q.Ended, why})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (q *Request) UnmarshalJSON(data []byte) error {
	parts := []any{&q.What, &q.Through, &q.Client, &q.Began, &q.Ended, &q.Why}
	if err := json.Unmarshal(data, &parts); err != nil {
		return fmt.Errorf("read a request: %w", err)
	}
	if q.Answered = q.Why < 0; q.Answered {
		q.Why = 0
	}
	return nil
}

// View is what a manager said of the cluster when it was asked. One that says the same
// as the manager's last isn't kept: that one's Until moves.
type View struct {
	At, Until Ms
	Through   string
	Leader    string
	// Nodes has the state of each node: "ready", "down", …
	Nodes map[string]string
	// Voting are the managers that have a vote and answer the leader.
	Voting map[string]bool `json:",omitempty"`
	// Wanted and Running are tasks by service, the latter by node too.
	Wanted  map[string]int
	Running map[string]map[string]int
	// Updates has the state of the last update of each service.
	Updates map[string]string `json:",omitempty"`
}

// Session is a line in a node's log that says that its agent lost or opened a session.
type Session struct {
	At         Ms
	Node, What string
}

// results is the form of results.json.
type results struct {
	Runs []Run
	Rows [][]Row
}

// WriteJSON writes the runs and what was measured in them.
func WriteJSON(w io.Writer, runs []Run) error {
	all := results{Runs: runs}
	for _, run := range runs {
		all.Rows = append(all.Rows, Rows(run))
	}
	return json.NewEncoder(w).Encode(all)
}

// ReadJSON reads what WriteJSON wrote. What was measured is measured anew.
func ReadJSON(r io.Reader) ([]Run, error) {
	var all results
	if err := json.NewDecoder(r).Decode(&all); err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	return all.Runs, nil
}
