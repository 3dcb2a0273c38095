package dispatch

import (
	"cmp"
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"skep/cluster"
)

// logStream is the bounded buffer between a session's reader and whoever reads a log.
type logStream struct {
	id uint64
	// window is how many bytes the agent may send before they are taken; 0 is no bound.
	window int
	// ready receives when there is something to take, room when something was taken.
	ready, room chan struct{}

	mu    sync.Mutex // guards the fields below
	lines []cluster.LogLine
	size  int
	// end is why nothing more comes; io.EOF when the log is complete.
	end error
	// done is set when the agent said that it was the last chunk.
	done bool
}

// put adds a chunk. It waits a moment for room, and reports whether there was any.
func (l *logStream) put(ctx context.Context, chunk cluster.LogChunk) bool {
	size := sizeOf(chunk.Lines)
	limit := time.NewTimer(logPatience)
	defer limit.Stop()
	for !l.fits(size) {
		select {
		case <-l.room:
		case <-limit.C:
			return false
		case <-ctx.Done():
			return true // The session's end ends the stream.
		}
	}
	l.mu.Lock()
	l.lines = append(l.lines, chunk.Lines...)
	l.size += size
	l.done = chunk.Done
	l.mu.Unlock()
	if chunk.Done {
		end := io.EOF
		if chunk.Err != "" {
			end = errors.New(chunk.Err)
		}
		l.finish(end)
	}
	cluster.Notify(l.ready)
	return true
}

func sizeOf(lines []cluster.LogLine) int {
	size := 0
	for i := range lines {
		size += lines[i].Size()
	}
	return size
}

// limit is how many bytes may wait.
func (l *logStream) limit() int { return cmp.Or(l.window, logBuffer) }

// fits tells whether a chunk may be added: always to a stream that has ended, which drops
// it, and to an empty buffer if there is no window, which an agent keeps to.
func (l *logStream) fits(size int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.size+size <= l.limit() || l.size == 0 && l.window == 0 || l.end != nil
}

// take gives all lines that wait; end is why no more will come, nil as long as they may.
func (l *logStream) take() (lines []cluster.LogLine, end error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines, l.lines, l.size = l.lines, nil, 0
	cluster.Notify(l.room)
	return lines, l.end
}

func (l *logStream) finish(end error) {
	l.mu.Lock()
	if l.end == nil {
		l.end = end
	}
	l.mu.Unlock()
	cluster.Notify(l.ready)
}

func (l *logStream) answered() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.done
}
