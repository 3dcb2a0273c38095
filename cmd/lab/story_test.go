package main

import (
	"errors"
	"testing"
)

func mustParse(t *testing.T, text string, engine bool) []step {
	t.Helper()
	steps, err := parseStory(text, engine)
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

func TestParseStory_TheStoryItselfReads(t *testing.T) {
	for _, engine := range []bool{true, false} {
		for _, s := range mustParse(t, storyText, engine) {
			for _, line := range s.expected {
				if _, err := pattern(line); err != nil {
					t.Errorf("line %d: %v", s.line, err)
				}
			}
			if s.kind == '!' && acts[s.text] == nil {
				t.Errorf("line %d: nobody knows how to %q", s.line, s.text)
			}
		}
	}
}

func TestParseStory_LeavesOutWhatNeedsAnEngine(t *testing.T) {
	const text = "$ docker ps\nA\n[engine] B\n\n[engine] $ docker rm\n"
	with, without := mustParse(t, text, true), mustParse(t, text, false)
	if len(with) != 2 || len(with[0].expected) != 2 {
		t.Errorf("with an engine: %+v", with)
	}
	if len(without) != 1 || len(without[0].expected) != 1 {
		t.Errorf("without an engine: %+v", without)
	}
}

func TestStepCheck(t *testing.T) {
	const table = "ID       NAME\n<id>   web.1   Running <ago>\n"
	tests := []struct {
		name, expected, output string
		ok                     bool
	}{
		{"columns may be wider", table, "ID             NAME   \nabcdef123456   web.1     Running About a minute ago   \n", true},
		{"a missing column is noticed", table, "ID NAME\nabcdef123456   web.1   Running 2 seconds ago\n", false},
		{"a short ID is noticed", table, "ID   NAME\nabcdef12345   web.1   Running 2 seconds ago\n", false},
		{"another word is noticed", table, "ID   NAME\nabcdef123456   web.1   Pending 2 seconds ago\n", false},
		{"a missing line is noticed", table, "ID   NAME\n", false},
		{"a surplus line is noticed", table, "ID   NAME\nabcdef123456   web.1   Running 2 seconds ago\nx\n", false},
		{"nothing is expected", "", "", true},
		{"regular expressions are only text", "a.c (x)\n", "abc (x)\n", false},
		{"any order", "one\ntwo\n" + anyOrder + "\n", "two\none\ntwo\n", true},
		{"any order, one never came", "one\ntwo\n" + anyOrder + "\n", "two\ntwo\n", false},
		{"any order, a stranger", "one\n" + anyOrder + "\n", "one\nthree\n", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := step{text: "x", expected: lines(test.expected)}
			err := s.check(test.output)
			if (err == nil) != test.ok {
				t.Errorf("check: %v", err)
			}
			if err != nil && !errors.Is(err, errMismatch) {
				t.Errorf("check: %v isn't a mismatch", err)
			}
		})
	}
}
