package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// systemd is the service manager that started the daemon, if one did and wants to know.
type systemd struct {
	conn net.Conn
	// every is how often it wants a sign of life; 0 means never.
	every time.Duration
}

// newSystemd reads what systemd said in the environment; it is nil without it. The
// processes that the daemon starts must not hear of it.
func newSystemd() (*systemd, error) {
	socket, watchdog, pid := os.Getenv("NOTIFY_SOCKET"), os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID")
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
		os.Unsetenv(name)
	}
	if socket == "" {
		return nil, nil
	}
	if socket[0] == '@' {
		socket = "\x00" + socket[1:]
	}
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		return nil, fmt.Errorf("tell systemd: %w", err)
	}
	s := &systemd{conn: conn}
	if usec, err := strconv.ParseInt(watchdog, 10, 64); err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		s.every = time.Duration(usec) * time.Microsecond / 3
	}
	return s, nil
}

// statusEvery is how often the status is looked at: often enough for who looks at it after a
// start or a join.
const statusEvery = 2 * time.Second

// serve says that the daemon is ready when ready is closed, how it is, and that it lives, until
// ctx ends, and then that it stops. A look that hangs, since the daemon is of no use any more,
// means that systemd hears nothing, and starts it anew.
func (s *systemd) serve(ctx context.Context, ready <-chan struct{}, look func() string) {
	if s == nil {
		return
	}
	defer s.conn.Close()
	defer s.send("STOPPING=1\nSTATUS=stopping")
	select {
	case <-ready:
		s.send("READY=1")
	case <-ctx.Done():
		return
	}
	every := statusEvery
	if s.every > 0 {
		every = min(every, s.every)
	}
	// A sign of life is due each so many looks; without a watchdog, never.
	due := int(s.every / every)
	tick := time.NewTicker(every)
	defer tick.Stop()
	said := ""
	for n := 0; ctx.Err() == nil; n++ {
		looked := make(chan string, 1)
		go func() { looked <- look() }()
		select {
		case text := <-looked:
			switch alive := due > 0 && n%due == 0; {
			case alive:
				s.send("STATUS=" + text + "\nWATCHDOG=1")
			case text != said:
				s.send("STATUS=" + text)
			}
			said = text
		case <-ctx.Done():
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// send is for what nobody can do anything about when it doesn't arrive.
func (s *systemd) send(text string) { _, _ = s.conn.Write([]byte(text)) }
