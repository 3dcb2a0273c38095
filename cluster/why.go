package cluster

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Why says how far a service is from what it should be, and what is in the way, as `skep
// service why` shows it.
type Why struct {
	Service, ID, Mode string
	Running, Desired  int
	// Completed is how many tasks of a job are done.
	Completed int `json:",omitempty"`
	// Waiting are the tasks that should run and don't yet, by reason, the most first.
	Waiting []Reason
	// Failures are the tasks that failed, of those that are kept, by message and node, the last first.
	Failures []Failure
	// Rollout is the last update; nil for none.
	Rollout *RolloutState `json:",omitempty"`
	// Job is how a scheduled job stands; nil for other services.
	Job *JobState `json:",omitempty"`
	// ImageWatch is how looking after the image goes; nil for services of which nobody asked for that.
	ImageWatch *ImageWatchState `json:",omitempty"`
	// Fenced tells whether the service is.
	Fenced bool
	// Nodes is how many there are, and Unavailable how many of them take no new tasks: they are
	// down, paused or drained.
	Nodes, Unavailable int
	// Constraints are the service's, and its platforms, with how many nodes each excludes.
	Constraints []Exclusion
	// Excluded is how many nodes all of them together exclude.
	Excluded int
}

// Reason is why some tasks wait.
type Reason struct {
	Tasks int
	Text  string
}

// Failure is what some tasks failed of on a node.
type Failure struct {
	Tasks      int
	Node, Text string
	Last       time.Time
}

// RolloutState is how far an update is.
type RolloutState struct {
	State, Message string
	Revision       uint64
	StartedAt      time.Time
	// Done are the slots that have their new task, of Total.
	Done, Total int
}

// Exclusion is how many nodes don't meet a constraint.
type Exclusion struct {
	Constraint string
	Nodes      int
}

// String is the whole in words.
func (w Why) String() string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format, args...) }
	say("Service %s (%s): %d of %s", w.Service, w.Mode, w.Running, numbered(w.Desired, "task"))
	if w.Desired == 1 {
		say(" runs")
	} else {
		say(" run")
	}
	if w.Completed > 0 {
		say(", %d completed", w.Completed)
	}
	say(".\n")
	if len(w.Waiting) > 0 {
		say("\nWaiting:\n")
		for _, r := range w.Waiting {
			say("  %s: %s\n", numbered(r.Tasks, "task"), r.Text)
		}
	}
	if len(w.Failures) > 0 {
		say("\nFailed, of the tasks that are kept:\n")
		for _, f := range w.Failures {
			say("  %s on %s, the last at %s: %s\n", numbered(f.Tasks, "task"), f.Node, f.Last.UTC().Format(time.RFC3339), f.Text)
		}
		for _, image := range missingImages(w.Failures) {
			say("  Nodes neither have image %s nor got it: `skep image push %s` brings it to all machines without a registry.\n", image, image)
		}
	}
	if r := w.Rollout; r != nil {
		say("\nLast update: %s, to revision %d, begun at %s", r.State, r.Revision, r.StartedAt.UTC().Format(time.RFC3339))
		if r.Total > 0 {
			say(", %d of %s done", r.Done, numbered(r.Total, "slot"))
		}
		say(": %s\n", r.Message)
	}
	if j := w.Job; j != nil {
		say("\nSchedule: %s", j.Schedule)
		if j.Zone != "" {
			say(", in %s", j.Zone)
		}
		switch {
		case j.Paused:
			say("; it is paused: `skep job resume %s` goes on", w.Service)
		case !j.Next.IsZero():
			say("; it runs next at %s", j.Next.Format(time.RFC3339))
		}
		if j.Outcome != "" {
			say("; the last run, begun at %s: %s", j.Began.Format(time.RFC3339), j.Outcome)
		}
		say(".\n")
	}
	if w.ImageWatch != nil {
		say("\n%s\n", w.ImageWatch)
	}
	if w.Fenced {
		say("\nFenced: its tasks run only while their node has a lease from the leader, and a lost node's tasks are\nreplaced when they must have stopped.\n")
	}
	if len(w.Constraints) > 0 || w.Unavailable > 0 {
		say("\nOf %s:\n", numbered(w.Nodes, "node"))
		if w.Unavailable > 0 {
			say("  %d not available for new tasks\n", w.Unavailable)
		}
		for _, e := range w.Constraints {
			say("  %d excluded by %s\n", e.Nodes, e.Constraint)
		}
		if len(w.Constraints) > 1 {
			say("  %d excluded by these together\n", w.Excluded)
		}
	}
	if len(w.Waiting) == 0 && w.Running >= w.Desired && (w.Rollout == nil || !strings.HasSuffix(w.Rollout.State, "paused")) && (w.Job == nil || !w.Job.Paused) && (w.ImageWatch == nil || w.ImageWatch.Problem == "") {
		say("\nNothing is in its way.\n")
	}
	return b.String()
}

// missingImages are the images that nodes neither had nor got, by the words of their agents; without those
// named by digest, which only a registry has.
func missingImages(failures []Failure) (images []string) {
	for _, f := range failures {
		image, missing := strings.CutPrefix(f.Text, "No such image: ")
		image, _, _ = strings.Cut(image, " ")
		if missing && !strings.Contains(image, "@") && !slices.Contains(images, image) {
			images = append(images, image)
		}
	}
	return images
}

func numbered(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
