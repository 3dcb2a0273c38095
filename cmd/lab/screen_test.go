package main

import (
	"os/exec"
	"testing"
)

func TestScreen_ShowsWhatATerminalShowsInTheEnd(t *testing.T) {
	for name, test := range map[string]struct{ written, shown string }{
		"plain lines":         {"a\r\nb\r\n", "a\nb\n"},
		"a line written over": {"starting\rrunning", "running" + "g\n"},
		"a line erased first": {"starting\r\x1b[2Krunning\r\n", "running\n"},
		"the line above":      {"0 of 1\r\n1/1: starting\r\n\x1b[2A\x1b[2K\r1 of 1\x1b[1B\r\x1b[2K1/1: running\x1b[1B\r", "1 of 1\n1/1: running\n"},
		"colours":             {"\x1b[31mred\x1b[0m\r\n", "red\n"},
		"erase to the end":    {"abc\rx\x1b[K\r\n", "x\n"},
		"more than ASCII":     {"bienenkörbe\r\n", "bienenkörbe\n"},
	} {
		t.Run(name, func(t *testing.T) {
			var s screen
			// One byte at a time: sequences come in pieces.
			for i := range len(test.written) {
				_, _ = s.Write([]byte{test.written[i]})
			}
			if s.String() != test.shown {
				t.Errorf("the screen shows %q, want %q", s.String(), test.shown)
			}
		})
	}
}

func TestOnTerminal_TheCommandSeesATerminal(t *testing.T) {
	shown, err := onTerminal(exec.Command("sh", "-c", "test -t 1 && echo yes"))
	if err != nil || shown != "yes\n" {
		t.Errorf("shown %q, %v", shown, err)
	}
	if _, err := onTerminal(exec.Command("sh", "-c", "exit 3")); err == nil {
		t.Error("a failure went unnoticed")
	}
}
