package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types"
	"github.com/docker/docker/api/types/events"

	"skep/cluster"
	"skep/store"
)

// What clients that read slowly, or not at all, can do to the manager that they ask, and what they can't.

// crowded is a bench with one service of so many running tasks.
func crowded(t testing.TB, tasks int) *bench {
	b := newBench(t)
	id := b.create(spec("web"))
	const each = 2000
	for from := 0; from < tasks; from += each {
		b.update(func(tx *store.Tx) error {
			for i := from; i < min(tasks, from+each); i++ {
				task := &cluster.Task{
					ID: taskID(i), ServiceID: id, Revision: tx.Service(id).Revision, Slot: uint32(i + 1), NodeID: nodeID(1 + i%3), Desired: cluster.StateRunning,
					Status: cluster.TaskStatus{State: cluster.StateRunning, Since: cluster.At(tx.Now()), Message: "started", ContainerID: fmt.Sprintf("%064d", i), PID: 7},
				}
				if err := tx.Put(task); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return b
}

// heapNow is how much memory is in use.
func heapNow() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// TestAttack_ManySlowLists: what many clients ask for and don't read isn't in memory.
func TestAttack_ManySlowLists(t *testing.T) {
	b := crowded(t, 2*largeList)
	b.server.listWait = 100 * time.Millisecond
	path, _ := listen(t, b.handler, ReadHeaderTimeout, MaxConnections)
	before := heapNow()
	var clients []net.Conn
	for range 25 {
		conn := dial(t, path)
		fmt.Fprintf(conn, "GET /tasks HTTP/1.1\r\nHost: a\r\n\r\n")
		clients = append(clients, conn)
	}
	begun, refused := 0, 0
	for _, conn := range clients {
		switch line, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); {
		case strings.Contains(line, "200 OK"):
			begun++
		case strings.Contains(line, "503"):
			refused++
		default:
			t.Errorf("%q, %v", line, err)
		}
	}
	if begun != maxLargeLists || refused != 25-maxLargeLists {
		t.Errorf("%d lists are being read, %d were refused", begun, refused)
	}
	used := int64(heapNow()) - int64(before)
	t.Logf("25 clients that don't read %d tasks each take %d kB", 2*largeList, used>>10)
	if used > 5<<20 {
		t.Errorf("25 lists that aren't read take %d MB", used>>20)
	}
	// What is short is answered all the same.
	short := dial(t, path)
	fmt.Fprintf(short, "GET /nodes HTTP/1.1\r\nHost: a\r\n\r\n")
	if line, err := bufio.NewReader(short).ReadString('\n'); !strings.Contains(line, "200 OK") {
		t.Errorf("%q, %v", line, err)
	}
	for _, conn := range clients {
		conn.Close()
	}
	b.server.listWait = listWait
	b.do("GET", "/tasks", nil).want(t, 200, "]")
}

// held counts the requests that a handler is at.
type held struct {
	http.Handler
	now atomic.Int64
}

func (h *held) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.now.Add(1)
	defer h.now.Add(-1)
	h.Handler.ServeHTTP(w, r)
}

// endless is a log without end, of lines that are short or long.
func endless(ctx context.Context, _, _ string, _ cluster.LogOptions, emit func([]cluster.LogLine) error) error {
	for ctx.Err() == nil {
		if err := emit([]cluster.LogLine{{Data: []byte(strings.Repeat("x", 10_000))}}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// standing opens so many connections that ask for path and read nothing; a small receive buffer
// makes them stand still soon.
func standing(t testing.TB, socket, path string, many int) []net.Conn {
	var conns []net.Conn
	for range many {
		conn := dial(t, socket)
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", path)
		conns = append(conns, conn)
	}
	return conns
}

// TestAttack_ReadersThatStandStill: who takes nothing of an answer for a while is cut off, on each
// way on which much can be written, and the rest isn't taken for the whole.
func TestAttack_ReadersThatStandStill(t *testing.T) {
	p := newPair(t)
	p.other.server.Engine = ""
	engine := newBench(t, func(c *Config) { c.Engine = "unix://" + newEndlessEngine(t) })
	own := crowded(t, 2*largeList)
	own.addTask(3*largeList, own.inspect("web").ID, 1, 1)
	service := p.other.create(spec("web"))
	p.other.addTask(1, service, 1, 1)
	for _, b := range []*bench{own, p.other} {
		b.manager.set(func(m *fakeManager) { m.logs = endless })
	}
	for _, way := range []struct {
		name, path string
		bench      *bench
	}{
		{"a list", "/tasks", own},
		{"a log", "/tasks/" + taskID(3*largeList) + "/logs?stdout=1", own},
		{"a log that goes on", "/tasks/" + taskID(3*largeList) + "/logs?stdout=1&follow=1", own},
		{"a log by way of another manager", "/services/web/logs?stdout=1", p.here},
		{"what the engine writes", "/images/x/get", engine},
		{"events", "/events", own},
	} {
		t.Run(way.name, func(t *testing.T) {
			b := way.bench
			was := b.server.patience
			b.server.patience = patience{answer: 300 * time.Millisecond, stream: 300 * time.Millisecond}
			defer func() { b.server.patience = was }()
			handler := &held{Handler: b.handler}
			socket, _ := listen(t, handler, ReadHeaderTimeout, MaxConnections)
			conns := standing(t, socket, way.path, maxLargeLists)
			until(t, "the requests", func() bool { return handler.now.Load() == maxLargeLists })
			if way.name == "events" {
				ends := time.Now().Add(5 * time.Second)
				for i := 0; handler.now.Load() > 0 && time.Now().Before(ends); i++ {
					b.server.events.record(events.Message{Type: "node", Action: "update", Scope: "swarm", TimeNano: int64(i), Actor: events.Actor{ID: strings.Repeat("x", 1000)}})
					time.Sleep(10 * time.Microsecond)
				}
			}
			ends := time.Now().Add(10 * time.Second)
			for handler.now.Load() > 0 && time.Now().Before(ends) {
				time.Sleep(10 * time.Millisecond)
			}
			if now := handler.now.Load(); now > 0 {
				t.Fatalf("%d clients that read nothing are still waited for", now)
			}
			answer, err := http.ReadResponse(bufio.NewReader(conns[0]), nil)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, answer.Body); err == nil {
				t.Errorf("%d bytes, and all seems well", n)
			}
		})
	}
}

// newEndlessEngine is an engine that writes without end, and echoes what it is told.
func newEndlessEngine(t *testing.T) (path string) {
	path, _ = listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/version":
			writeJSON(w, 200, types.Version{APIVersion: "1.41", MinAPIVersion: "1.12"})
		case strings.HasSuffix(r.URL.Path, "/attach"):
			conn, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprintf(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
			conn.Write(make([]byte, 4<<20))
		default:
			for {
				if _, err := w.Write(make([]byte, 10_000)); err != nil {
					return
				}
			}
		}
	}), ReadHeaderTimeout, MaxConnections)
	return path
}

// TestPatience_IsForWhatIsWritten: a stream that has nothing to say, a reader who is slow, and a
// terminal that was stopped, go on for as long as they like.
func TestPatience_IsForWhatIsWritten(t *testing.T) {
	short := patience{answer: 1500 * time.Millisecond, stream: 1500 * time.Millisecond}
	b := crowded(t, 3000)
	b.server.patience = short
	socket, _ := listen(t, b.handler, ReadHeaderTimeout, MaxConnections)
	quiet := dial(t, socket)
	fmt.Fprintf(quiet, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
	said := bufio.NewReader(quiet)
	if line, err := said.ReadString('\n'); !strings.Contains(line, "200 OK") {
		t.Fatalf("%q, %v", line, err)
	}
	kept := dial(t, socket) // asks again later
	ping := func() {
		t.Helper()
		fmt.Fprintf(kept, "GET /_ping HTTP/1.1\r\nHost: a\r\n\r\n")
		answer, err := http.ReadResponse(bufio.NewReader(kept), nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, answer.Body)
	}
	ping()
	engine := newBench(t, func(c *Config) { c.Engine = "unix://" + newEndlessEngine(t) })
	engine.server.patience = short
	other, _ := listen(t, engine.handler, ReadHeaderTimeout, MaxConnections)
	terminal := dial(t, other)
	fmt.Fprintf(terminal, "POST /containers/x/attach HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n")

	slow := dial(t, socket)
	fmt.Fprintf(slow, "GET /tasks HTTP/1.1\r\nHost: a\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(slow), nil)
	if err != nil {
		t.Fatal(err)
	}
	began, total := time.Now(), int64(0)
	for err == nil {
		var n int64
		n, err = io.CopyN(io.Discard, answer.Body, 128<<10)
		total += n
		time.Sleep(200 * time.Millisecond)
	}
	if !errors.Is(err, io.EOF) || time.Since(began) < 2*short.answer {
		t.Errorf("a slow reader got %d bytes in %v: %v", total, time.Since(began), err)
	}

	ping()
	b.server.events.record(events.Message{Type: "node", Action: "update", Scope: "swarm", TimeNano: time.Now().UnixNano()})
	for {
		line, err := said.ReadString('\n')
		if err != nil {
			t.Fatalf("a stream that had nothing to say ended: %v", err)
		}
		if strings.Contains(line, `"update"`) {
			break
		}
	}
	in := bufio.NewReader(terminal)
	if answer, err := http.ReadResponse(in, nil); err != nil || answer.StatusCode != 101 {
		t.Fatalf("%+v, %v", answer, err)
	}
	if n, err := io.Copy(io.Discard, in); n != 4<<20 || err != nil {
		t.Errorf("a terminal that was stopped for %v got %d bytes: %v", time.Since(began), n, err)
	}
}

// TestAttack_ManyEventReaders: readers of events that stand still take little memory, and keep
// nobody else from them.
func TestAttack_ManyEventReaders(t *testing.T) {
	const readers = 500
	b := newBench(t)
	handler := &held{Handler: b.handler}
	socket, _ := listen(t, handler, ReadHeaderTimeout, MaxConnections)
	record := func(i int) {
		b.server.events.record(events.Message{Type: "node", Action: "update", Scope: "swarm", TimeNano: int64(time.Minute) + int64(i),
			Actor: events.Actor{ID: fmt.Sprint(i), Attributes: map[string]string{"name": "n"}}})
	}
	for i := range 2 * keptEvents {
		record(i)
	}
	before := heapNow()
	standing(t, socket, "/events?since=1", readers)
	until(t, "the requests", func() bool { return handler.now.Load() == readers })
	time.Sleep(100 * time.Millisecond)
	used := int64(heapNow()) - int64(before)
	t.Logf("%d readers of events that stand still take %d kB each", readers, used/readers>>10)
	if used > readers*100<<10 {
		t.Errorf("%d readers of events that stand still take %d MB", readers, used>>20)
	}
	good := dial(t, socket)
	fmt.Fprintf(good, "GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
	told := bufio.NewReader(good)
	if line, err := told.ReadString('\n'); !strings.Contains(line, "200 OK") {
		t.Fatalf("%q, %v", line, err)
	}
	go func() {
		for i := range 3 * behindEvents {
			record(i)
			time.Sleep(10 * time.Microsecond)
		}
	}()
	for count := 0; count < 3*behindEvents; {
		line, err := told.ReadString('\n')
		if err != nil {
			t.Fatalf("after %d events: %v", count, err)
		}
		if strings.Contains(line, `"update"`) {
			count++
		}
	}
	until(t, "those who stand still to be cut off", func() bool { return handler.now.Load() <= 1 })
}

// What lines wait for clients in this manager has a total: who would exceed it is refused, with
// the reason, and may come when others have gone. A log that is to be followed has a line about it.
func TestAttack_ManyReadersOfLogs(t *testing.T) {
	b := newBench(t)
	const tasks = 20 // Each of these readers has as much as any.
	id := b.create(spec("web"))
	for i := range tasks {
		b.addTask(i+1, id, uint32(i+1), 1+i%3)
	}
	b.manager.set(func(m *fakeManager) { m.logs = endless })
	socket, _ := listen(t, b.handler, ReadHeaderTimeout, MaxConnections)
	conns := standing(t, socket, "/services/web/logs?stdout=1", 30)
	begun, refused := 0, ""
	for _, conn := range conns {
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		switch {
		case err != nil:
			t.Error(err)
		case answer.StatusCode == http.StatusOK:
			begun++
		default:
			rest, _ := io.ReadAll(answer.Body)
			refused = answer.Status + string(rest)
		}
	}
	if begun != logBudget/logMemory {
		t.Errorf("%d of %d readers began; each may take %d MB", begun, len(conns), logMemory>>20)
	}
	if !strings.HasPrefix(refused, "503") || !strings.Contains(refused, "96 MB") || !strings.Contains(refused, "try again") {
		t.Errorf("refused with %q", refused)
	}
	for _, conn := range conns {
		conn.Close()
	}
	until(t, "the budget", func() bool { return b.server.logBytes.TryAcquire(logBudget) })

	// Of logs that go on, so many are read as fit.
	const fit = tasks / 2
	b.server.logBytes.Release(fit * leastWindow)
	b.manager.set(func(m *fakeManager) {
		m.logs = func(ctx context.Context, _, _ string, _ cluster.LogOptions, emit func([]cluster.LogLine) error) error {
			if err := emit([]cluster.LogLine{{Data: []byte("is followed\n")}}); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		}
	})
	conn := dial(t, socket)
	fmt.Fprintf(conn, "GET /services/web/logs?stdout=1&follow=1&tail=0 HTTP/1.1\r\nHost: a\r\n\r\n")
	conn.SetReadDeadline(time.Now().Add(time.Second))
	text, _ := io.ReadAll(conn)
	if follow, not := strings.Count(string(text), "is followed\n"), strings.Count(string(text), "try again"); follow != fit || not != tasks-fit {
		t.Errorf("%d logs are followed, of %d it is said that they aren't; there is room for %d of %d", follow, not, fit, tasks)
	}
}
