package main

import (
	_ "embed"
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// storyText is the project's acceptance transcript. The demo plays it for the eye and
// the end-to-end test holds every line of it; both run the same steps.
//
//go:embed story.txt
var storyText string

// step is one thing that happens in a story. Its text forms, one per line:
//
//	# Heading
//	> A sentence for the reader.
//	$ a shell command, run once
//	~ a shell command, repeated until it shows what is expected
//	! something only the lab can do, see acts
//
// What follows a command up to an empty line is its expected output, without the empty
// lines in it. A line begins with [engine] when it is so only where a Docker Engine runs real containers.
type step struct {
	kind     byte // '#', '>', '$', '~' or '!'
	text     string
	expected []string
	line     int // in the file, for messages
}

const (
	engineMark = "[engine] "
	// anyOrder as the last expected line lets the others come in any order and number.
	anyOrder = "(in any order and number)"
)

// parseStory reads a story; without an engine it leaves out what needs one.
func parseStory(text string, engine bool) ([]step, error) {
	var steps []step
	var command *step // that expected lines belong to
	for i, line := range strings.Split(text, "\n") {
		if rest, ok := strings.CutPrefix(line, engineMark); ok {
			if !engine {
				continue
			}
			line = rest
		}
		kind, rest, ok := strings.Cut(line, " ")
		switch {
		case line == "":
			command = nil
		case ok && len(kind) == 1 && strings.Contains("#>$~!", kind):
			steps = append(steps, step{kind: kind[0], text: rest, line: i + 1})
			command = nil
			if kind == "$" || kind == "~" {
				command = &steps[len(steps)-1]
			}
		case command == nil:
			return nil, fmt.Errorf("story line %d: expected output without a command: %q", i+1, line)
		default:
			command.expected = append(command.expected, line)
		}
	}
	return steps, nil
}

// placeholders stand for what varies from run to run.
var placeholders = strings.NewReplacer(
	`<id>`, `[0-9a-z]{12}`,
	`<ID>`, `[0-9a-z]{25}`,
	`<hex>`, `[0-9a-f]{12}`,
	`<node>`, `n[1-9]`,
	`<manager>`, `(?:Leader|Reachable)`,
	`<ago>`, `(?:[Ll]ess than a second|About a minute|\d+ (?:seconds?|minutes?)) ago`,
	`<for>`, `(?:Less than a second|About a minute|\d+ (?:seconds?|minutes?))`,
	`<clock>`, `\d\d:\d\d\.\d\d`,
	`<any>`, `.*?`,
	// While rolling back, older versions of docker's command draw the bar backwards.
	`<bar>`, `\[=*> *\]`,
	// Docker's command says which service converged since version 26.
	`<converged>`, `Service (?:\S+ )?converged`,
)

// columns is what separates the columns of docker's tables.
var columns = regexp.MustCompile(` {2,}`)

// pattern turns an expected line into a regular expression. How wide a column is
// depends on what stands in it, so two spaces or more are as good as any.
func pattern(line string) (*regexp.Regexp, error) {
	quoted := strings.NewReplacer(`\<`, `<`, `\>`, `>`).Replace(regexp.QuoteMeta(line))
	return regexp.Compile("^" + columns.ReplaceAllString(placeholders.Replace(quoted), " {2,}") + "$")
}

// check compares what a command printed with what the story expects.
func (s step) check(output string) error {
	got := lines(output)
	want := s.expected
	free := len(want) > 0 && want[len(want)-1] == anyOrder
	if free {
		want = want[:len(want)-1]
	}
	patterns := make([]*regexp.Regexp, len(want))
	for i, line := range want {
		var err error
		if patterns[i], err = pattern(line); err != nil {
			return fmt.Errorf("story line %d: %w", s.line, err)
		}
	}
	if free {
		return s.checkFree(patterns, got)
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			return s.mismatch(output, "line %d is missing: %q", i+1, want[i])
		case i >= len(want):
			return s.mismatch(output, "line %d is too much: %q", i+1, got[i])
		case !patterns[i].MatchString(got[i]):
			return s.mismatch(output, "line %d is\n  %q, expected\n  %q", i+1, got[i], want[i])
		}
	}
	return nil
}

// checkFree wants each line to match some pattern, and each pattern some line.
func (s step) checkFree(patterns []*regexp.Regexp, got []string) error {
	met := make([]bool, len(patterns))
next:
	for _, line := range got {
		for i, p := range patterns {
			if p.MatchString(line) {
				met[i] = true
				continue next
			}
		}
		return s.mismatch(strings.Join(got, "\n"), "line %q is none of the expected", line)
	}
	for i := range met {
		if !met[i] {
			return s.mismatch(strings.Join(got, "\n"), "no line is like %q", s.expected[i])
		}
	}
	return nil
}

// errMismatch marks output that isn't what the story expects.
var errMismatch = errors.New("not as the story says")

func (s step) mismatch(output, format string, args ...any) error {
	return fmt.Errorf("%w (line %d): $ %s\n%s\n--- printed:\n%s", errMismatch, s.line, s.text, fmt.Sprintf(format, args...), output)
}

// lines splits output into its lines, without empty ones and without the padding that
// docker puts behind the last column.
func lines(output string) []string {
	var all []string
	for _, line := range strings.Split(output, "\n") {
		if line = strings.TrimRight(line, " "); line != "" {
			all = append(all, line)
		}
	}
	return all
}
