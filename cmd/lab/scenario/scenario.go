// Package scenario reads the scenario files of the lab: small YAML texts that say what
// cluster there is, which services it runs, what is done to it step by step, and what
// is measured. The page scenarios.md, which Page returns, describes the form.
//
// Everything here is pure: a text becomes a Scenario or an error that names the line
// and what would be allowed there, and a Target chooses its nodes from what the
// caller knows of the cluster. The lab acts, and the reports show.
package scenario

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"
)

// Scenario is an experiment on a cluster.
type Scenario struct {
	// Name is the file's name without .yaml; About says what is to be seen.
	Name, About string
	// Managers and Workers are how many nodes there are at the start.
	Managers, Workers int
	// Driver is "docker" or "simulate" when only one of them will do, else empty.
	Driver   string
	Load     Load
	Services []Service
	Steps    []Step
	// Text is the file as it was written.
	Text string
}

// Load is who writes and asks while the steps happen.
type Load struct {
	// Writers are clients, each with a connection of its own to one manager, in turn.
	Writers int
	// Pause is what each waits between two writes.
	Pause time.Duration
	// Requests go to a service's published port, on every node; Lookups are of its name, by
	// clients in one of its containers on every node.
	Requests, Lookups Asking
}

// Asking is clients that ask all the time. Half of those that send requests keep their connections.
type Asking struct {
	// Of is the service; empty for no clients.
	Of      string
	Clients int
	// Pause is what each waits between two questions.
	Pause time.Duration
}

// Service is something that the cluster runs before the first step.
type Service struct {
	Name     string
	Replicas int
	// On is "all", "workers" or "managers": the nodes that its tasks may be on.
	On string
	// Publish is the port, published on all nodes, by which its tasks answer; 0 for none.
	Publish int
	// Network is the overlay network that its tasks are on, which is made for it; empty for none.
	Network string
	// StartDelay is how long a simulated task takes to start.
	StartDelay time.Duration
	// Parallelism, Monitor and OnFailure ("pause", "continue", "rollback") say how it is updated.
	Parallelism int
	Monitor     time.Duration
	OnFailure   string
}

// Step is one thing that is done or waited for.
type Step struct {
	Line int
	// Verb is what is done; Text is how the file says it, for people.
	Verb, Text string
	// Target are the nodes of a verb that acts on nodes; As names them from then on.
	Target Target
	As     string
	// Service is the one of update, scale, rollback and some waits.
	Service string
	// Until is what a wait waits for (see Waits); "pause" waits for Pause.
	Until string
	Pause time.Duration
	// Limit is the most that a wait may take.
	Limit time.Duration
	// Times is how often nodes are restarted.
	Times int
	// Count and Kind are how many nodes of which role join, Count how many loops starve the
	// machine, and how many secrets are stored.
	Count int
	Kind  string
	// By and Jitter are the delay of a link, one way; Share is the part of its packets that is lost.
	By, Jitter time.Duration
	Share      float64
	// Within is the time in which nodes are started, each at a moment of its own.
	Within time.Duration
	// Ahead is how far a clock is set ahead of the right time; behind when it is negative.
	Ahead time.Duration
	// Only is "incoming" or "outgoing" when a link is cut one way.
	Only string
	// Image is "old", "new" or "missing".
	Image string
	// Measures are what is measured from this step on.
	Measures []Measure
}

// Faulty tells whether the step is a fault or mends one, and not a wait.
func (s Step) Faulty() bool { return s.Verb != "wait" }

// Needs is what a machine must have for a scenario.
type Needs struct {
	// Links is set when links are cut or delayed, Disks when a disk runs full or hangs,
	// Engine when an engine is restarted, Clocks when clocks are set, Hosts when nodes are
	// machines with an engine each, for their networks.
	Links, Disks, Engine, Clocks, Hosts bool
}

// Needs tells what the steps ask of the machine.
func (s Scenario) Needs() Needs {
	var n Needs
	for _, service := range s.Services {
		n.Hosts = n.Hosts || service.Publish != 0 || service.Network != ""
	}
	for _, step := range s.Steps {
		switch verbs[step.Verb].needs {
		case "links":
			n.Links = true
		case "disks":
			n.Disks = true
		case "engine":
			n.Engine = true
		case "clocks":
			n.Clocks = true
		case "hosts":
			n.Hosts = true
		}
	}
	return n
}

//go:embed scenarios/*.yaml
var files embed.FS

//go:embed scenarios.md
var page string

// Page is the description of scenario files.
func Page() string { return page }

// Names are the scenarios of the package, in the order of the alphabet.
func Names() []string {
	var names []string
	entries, err := fs.ReadDir(files, "scenarios")
	if err != nil {
		panic(err) // they are part of the binary
	}
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// Named returns one of the package's scenarios.
func Named(name string) (Scenario, error) {
	if !slices.Contains(Names(), name) {
		return Scenario{}, fmt.Errorf("find scenario %q: it is neither a file nor one of %s", name, strings.Join(Names(), ", "))
	}
	text, err := files.ReadFile(path.Join("scenarios", name+".yaml"))
	if err != nil {
		return Scenario{}, err
	}
	return Parse(name, string(text))
}
