package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestJournal_LinesHavePriorities(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(newJournal(&out, func(w io.Writer) slog.Handler {
		return slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug})
	})).With("node", "n1").WithGroup("g")
	log.Debug("one", "a", 1)
	log.Info("two\nlines")
	log.Warn("three")
	log.Error("four")
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 4 {
		t.Fatalf("%d lines, want 4:\n%s", len(lines), out.String())
	}
	for i, want := range []string{"<7>", "<6>", "<4>", "<3>"} {
		if !strings.HasPrefix(lines[i], want+"time=") || !strings.Contains(lines[i], "node=n1") {
			t.Errorf("line %d is %s, want %s at its beginning", i, lines[i], want)
		}
	}
}

func TestJournal_IsKnownByItsInode(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	stat := info.Sys().(*syscall.Stat_t)
	if !toJournal(file, fmt.Sprintf("%d:%d", stat.Dev, stat.Ino)) {
		t.Error("the journal isn't known")
	}
	for _, other := range []string{"", "1", fmt.Sprintf("%d:%d", stat.Dev, stat.Ino+1)} {
		if toJournal(file, other) {
			t.Errorf("the file is taken for the journal that is %q", other)
		}
	}
}

// serviceManager plays the service manager, which wants a sign of life within so many
// microseconds. Hear gives what it is told, or the error when it is told nothing in time.
func serviceManager(t *testing.T, watchdog string) (s *systemd, hear func(limit time.Duration) string) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", watchdog)
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	if s, err = newSystemd(); err != nil {
		t.Fatal(err)
	}
	return s, func(limit time.Duration) string {
		buf := make([]byte, 1024)
		_ = socket.SetReadDeadline(time.Now().Add(limit))
		n, _, err := socket.ReadFrom(buf)
		if err != nil {
			return err.Error()
		}
		return string(buf[:n])
	}
}

func TestSystemd_HearsOfTheDaemon(t *testing.T) {
	s, hear := serviceManager(t, "300000")
	if s.every != 100*time.Millisecond || os.Getenv("NOTIFY_SOCKET") != "" {
		t.Errorf("a sign of life every %v; $NOTIFY_SOCKET=%s", s.every, os.Getenv("NOTIFY_SOCKET"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, hang, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	looks := 0
	go func() {
		defer close(ended)
		s.serve(ctx, ready, func() string {
			if looks++; looks == 3 {
				<-hang
			}
			return "leader, term 7, 5 nodes"
		})
	}()
	if said := hear(50 * time.Millisecond); !strings.Contains(said, "timeout") {
		t.Errorf("before it is ready it said %q", said)
	}
	close(ready)
	for _, want := range []string{"READY=1", "STATUS=leader, term 7, 5 nodes\nWATCHDOG=1", "STATUS=leader, term 7, 5 nodes\nWATCHDOG=1"} {
		if said := hear(5 * time.Second); said != want {
			t.Errorf("it said %q, want %q", said, want)
		}
	}
	if said := hear(500 * time.Millisecond); !strings.Contains(said, "timeout") {
		t.Errorf("a daemon that hangs said %q", said)
	}
	close(hang)
	hear(5 * time.Second)
	cancel()
	<-ended
	for said := ""; said != "STOPPING=1\nSTATUS=stopping"; {
		if said = hear(5 * time.Second); strings.Contains(said, "timeout") {
			t.Fatal("it didn't say that it stops")
		}
	}
}

// TestSystemd_HearsOfAChangeSoon: whoever looks at the status after a start or a join reads
// what is, however seldom a sign of life is wanted.
func TestSystemd_HearsOfAChangeSoon(t *testing.T) {
	s, hear := serviceManager(t, "60000000")
	ready := make(chan struct{})
	close(ready)
	looks := 0
	go s.serve(t.Context(), ready, func() string {
		if looks++; looks == 1 {
			return "starting"
		}
		return "worker"
	})
	for _, want := range []string{"READY=1", "STATUS=starting\nWATCHDOG=1", "STATUS=worker"} {
		if said := hear(5 * time.Second); said != want {
			t.Fatalf("it said %q, want %q", said, want)
		}
	}
	// Nothing is news any more, and the next sign of life is far.
	if said := hear(3 * time.Second); !strings.Contains(said, "timeout") {
		t.Errorf("then it said %q", said)
	}
}

func TestSystemd_ThatIsNotThere(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	s, err := newSystemd()
	if s != nil || err != nil {
		t.Errorf("%v, %v", s, err)
	}
	s.serve(t.Context(), nil, nil)
}
