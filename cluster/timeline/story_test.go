package timeline

import (
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestStory_Scripts runs the scripts in testdata: records in, sentences out. `go test -rewrite` writes what came
// out into them: commit that only when it is understood.
//
//	story
//	320 n2 silent n1 took=300ms       320 ms after noon n2 heard nothing of n1 for 300 ms
//	321 n2 asked n3 word="misses it"
func TestStory_Scripts(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatal("no scripts", err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
				told := parse(t, d.Input)
				var out strings.Builder
				for _, s := range Story(told) {
					open := ""
					if s.Open {
						open = ", open"
					}
					fmt.Fprintf(&out, "%v %s of %s in term %d%s: %s\n", s.From.Sub(noon).Milliseconds(), s.About, s.Manager, s.Term, open, s.Words(told.Name))
				}
				return out.String()
			})
		})
	}
}

// parse reads the records of a script.
func parse(t *testing.T, text string) (told Timeline) {
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if line, _, _ = strings.Cut(line, "#"); strings.TrimSpace(line) == "" {
			continue
		}
		r := Record{Seq: uint64(i + 1)}
		var words []string
		quoted := false
		for _, word := range strings.FieldsFunc(line, func(c rune) bool {
			quoted = quoted != (c == '"')
			return (c == ' ' || c == '\t') && !quoted
		}) {
			words = append(words, strings.ReplaceAll(word, `"`, ""))
		}
		at, err := strconv.ParseFloat(words[0], 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		r.Time, r.Manager, r.Kind = ms(at), words[1], Kind(words[2])
		for _, word := range words[3:] {
			key, value, more := strings.Cut(word, "=")
			if !more {
				r.Node = word
				continue
			}
			switch key {
			case "term":
				r.Term, err = strconv.ParseUint(value, 10, 64)
			case "took":
				r.Took, err = time.ParseDuration(value)
			case "count":
				r.Count, err = strconv.Atoi(value)
			case "word":
				r.Word = value
			case "why":
				r.Why = value
			default:
				err = fmt.Errorf("no %s in a record", key)
			}
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
		}
		told.Records = append(told.Records, r)
		if !slices.ContainsFunc(told.Managers, func(l Lane) bool { return l.NodeID == r.Manager }) {
			told.Managers = append(told.Managers, Lane{NodeID: r.Manager})
		}
	}
	return told
}

// Whatever records there are, also the part of an election at the beginning or end of what is kept, a story is told,
// and the same one again.
func TestStory_OfAnyPart(t *testing.T) {
	whole := parse(t, `
		0 n1 started term=6
		10 n1 role word=candidate why=timeout
		11 n1 asks-vote n2 term=7
		12 n1 vote n2 term=7 word=granted
		13 n1 role word=leader term=7
		14 n1 ready term=7
		15 n1 writes term=7 count=1
		400 n2 silent n1 took=300ms
		401 n2 asked n3 word="no answer"
		402 n2 heard n1 took=302ms
		500 n1 lost n3 took=300ms
		500 n1 node n3 word=down
		600 n1 hand-over n2 term=7
		601 n1 role word=follower
		602 n1 follows n2 term=8
		603 n1 handed-over n2 term=7
		700 n1 found n3 took=500ms
		701 n1 node n3 word=ready`)
	for from := range whole.Records {
		for to := from; to <= len(whole.Records); to++ {
			part := whole
			part.Records = whole.Records[from:to]
			told := Story(part)
			if again := Story(part); !reflect.DeepEqual(told, again) {
				t.Fatalf("records %d to %d are told as %v and as %v", from, to, told, again)
			}
			for _, s := range told {
				if len(s.Steps) == 0 || s.Words(part.Name) == "" {
					t.Errorf("records %d to %d: a sentence without words: %+v", from, to, s)
				}
			}
		}
	}
}

func TestLasted(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-1: "0 ms", 300 * time.Microsecond: "0.3 ms", 2345 * time.Microsecond: "2.35 ms", 34400 * time.Microsecond: "34 ms",
		1234 * time.Millisecond: "1.23 s", 34 * time.Second: "34 s", 95500 * time.Millisecond: "1m36s",
	} {
		if got := Lasted(d); got != want {
			t.Errorf("%v is said %q, want %q", d, got, want)
		}
	}
}
