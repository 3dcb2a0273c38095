package main

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/creack/pty"
)

// screenSize is wide enough for docker's progress bars and for tables without wrapping.
var screenSize = pty.Winsize{Rows: 50, Cols: 200}

// onTerminal runs a command whose standard output is a terminal, as a user's is, and
// returns what the terminal shows in the end. Standard error stays the caller's.
func onTerminal(cmd *exec.Cmd) (string, error) {
	terminal, tty, err := pty.Open()
	if err != nil {
		return "", fmt.Errorf("open a terminal: %w", err)
	}
	defer terminal.Close()
	defer tty.Close()
	if err := pty.Setsize(terminal, &screenSize); err != nil {
		return "", fmt.Errorf("set the terminal's size: %w", err)
	}
	cmd.Stdout = tty
	if err := cmd.Start(); err != nil {
		return "", err
	}
	// Once no process holds the other end, reading fails with EIO: that is the end.
	tty.Close()
	var s screen
	_, err = io.Copy(&s, terminal)
	if errors.Is(err, syscall.EIO) {
		err = nil
	}
	return s.String(), errors.Join(cmd.Wait(), err)
}

// screen is as much of a terminal as docker's progress display needs: lines, carriage
// return, cursor up and down, and erasing a line.
type screen struct {
	rows     [][]byte
	row, col int
	pending  []byte // an escape sequence whose end is to come
}

// escape matches a control sequence that is complete.
var escape = regexp.MustCompile(`^\x1b\[([0-9;?]*)([A-Za-z])`)

// Write shows what a process prints.
func (s *screen) Write(p []byte) (int, error) {
	text := string(s.pending) + string(p)
	s.pending = nil
	for i := 0; i < len(text); {
		if text[i] == '\x1b' {
			m := escape.FindStringSubmatch(text[i:])
			if m == nil && len(text)-i < 16 {
				s.pending = []byte(text[i:])
				break
			}
			if m != nil {
				s.control(m[1], m[2])
				i += len(m[0])
				continue
			}
		}
		// Bytes suffice: what is wider than one is only copied through.
		s.put(text[i])
		i++
	}
	return len(p), nil
}

// put shows one byte at the cursor.
func (s *screen) put(c byte) {
	switch c {
	case '\n':
		s.row++
	case '\r':
		s.col = 0
	default:
		s.line()
		for len(s.rows[s.row]) <= s.col {
			s.rows[s.row] = append(s.rows[s.row], ' ')
		}
		s.rows[s.row][s.col] = c
		s.col++
	}
}

// line makes sure that the cursor's line is there.
func (s *screen) line() {
	for len(s.rows) <= s.row {
		s.rows = append(s.rows, nil)
	}
}

// control obeys one control sequence; colours and the like change no text.
func (s *screen) control(argument, command string) {
	n, err := strconv.Atoi(argument)
	if err != nil || n == 0 {
		n = 1
	}
	switch command {
	case "A":
		s.row = max(0, s.row-n)
	case "B":
		s.row += n
	case "K":
		s.line()
		if argument == "2" {
			s.rows[s.row] = nil
		} else {
			s.rows[s.row] = s.rows[s.row][:min(s.col, len(s.rows[s.row]))]
		}
	}
}

// String is what is to be seen, without padding at the right.
func (s *screen) String() string {
	var b strings.Builder
	for _, row := range s.rows {
		b.WriteString(strings.TrimRight(string(row), " ") + "\n")
	}
	return b.String()
}
