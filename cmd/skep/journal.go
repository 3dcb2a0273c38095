package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"syscall"
)

// toJournal tells whether file is systemd's journal, which said so in named: its device and
// inode, as $JOURNAL_STREAM has them. A file that the output was redirected to isn't.
func toJournal(file *os.File, named string) bool {
	info, err := file.Stat()
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && named == fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)
}

// journal writes lines that begin with their priority, as the journal reads it: without one
// all are alike, and `journalctl -p warning` shows none.
type journal struct {
	inner slog.Handler
	lines *lines
}

// lines is where the inner handler writes; one record at a time.
type lines struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
	out io.Writer
}

// newJournal writes to out what the handler that inner makes would write to its writer.
func newJournal(out io.Writer, inner func(io.Writer) slog.Handler) slog.Handler {
	l := &lines{out: out}
	return journal{inner(&l.buf), l}
}

// Enabled is as in slog.Handler.
func (j journal) Enabled(ctx context.Context, level slog.Level) bool {
	return j.inner.Enabled(ctx, level)
}

// WithAttrs is as in slog.Handler.
func (j journal) WithAttrs(attrs []slog.Attr) slog.Handler {
	return journal{j.inner.WithAttrs(attrs), j.lines}
}

// WithGroup is as in slog.Handler.
func (j journal) WithGroup(name string) slog.Handler {
	return journal{j.inner.WithGroup(name), j.lines}
}

// Handle writes one line.
func (j journal) Handle(ctx context.Context, r slog.Record) error {
	j.lines.mu.Lock()
	defer j.lines.mu.Unlock()
	j.lines.buf.Reset()
	fmt.Fprintf(&j.lines.buf, "<%d>", priority(r.Level))
	if err := j.inner.Handle(ctx, r); err != nil {
		return err
	}
	_, err := j.lines.out.Write(j.lines.buf.Bytes())
	return err
}

// priority is syslog's number for a level.
func priority(level slog.Level) int {
	switch {
	case level >= slog.LevelError:
		return 3
	case level >= slog.LevelWarn:
		return 4
	case level >= slog.LevelInfo:
		return 6
	}
	return 7
}
