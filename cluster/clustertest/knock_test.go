package clustertest

import (
	"log/slog"
	"strings"
	"testing"
	"time"
)

// with are the lines that have the word.
func (l *logged) with(word string) (found []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, word) {
			found = append(found, line)
		}
	}
	return found
}

// TestControlPort_SaysWhoKnocksWithAnotherProtocol: a `docker swarm join` that Docker's own engine
// carried out is told "no application protocol", and only the manager can say what to do.
func TestControlPort_SaysWhoKnocksWithAnotherProtocol(t *testing.T) {
	bubble(t, func(t *testing.T) {
		log := &logged{}
		c := Start(t, 1, 0, Options{Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))})
		m := c.Machines[0]
		const said = "skep swarm join"
		for range 20 {
			if conn, err := dial(m, nil, "h2"); err == nil {
				conn.Close()
				t.Fatal("a client of another protocol got through the handshake")
			}
		}
		time.Sleep(time.Second)
		lines := log.with(said)
		if len(lines) != 1 || !strings.Contains(lines[0], "level=WARN") || !strings.Contains(lines[0], "addr=127.0.9.9") || !strings.Contains(lines[0], "h2") {
			t.Errorf("20 in a minute are logged as %q", lines)
		}
		time.Sleep(time.Minute)
		conn, err := machineNetwork{c.wire, "127.0.9.8"}.Dial(t.Context(), m.IP+":2377")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte("GET / HTTP/1.1\r\nHost: m\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		conn.Close()
		if lines = log.with(said); len(lines) != 2 || !strings.Contains(lines[1], "addr=127.0.9.8") || !strings.Contains(lines[1], `speaks="no TLS" unsaid=19`) {
			t.Errorf("one without TLS, after 19 that weren't logged, makes it %q", lines)
		}
	})
}
