package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/pkg/stdcopy"

	"skep/cluster"
	"skep/store"
)

// frames splits a multiplexed stream.
func frames(t testing.TB, body string) (lines []string) {
	t.Helper()
	for data := []byte(body); len(data) > 0; {
		if len(data) < 8 {
			t.Fatalf("half a frame: %q", data)
		}
		size := int(binary.BigEndian.Uint32(data[4:]))
		lines = append(lines, fmt.Sprintf("%d %s", data[0], data[8:8+size]))
		data = data[8+size:]
	}
	return lines
}

// sayHello is a log of two lines.
func sayHello(_ context.Context, nodeID, taskID string, opts cluster.LogOptions, emit func([]cluster.LogLine) error) error {
	at := time.Date(2026, 1, 2, 3, 4, 5, 60, time.UTC)
	lines := []cluster.LogLine{
		{Time: cluster.At(at), Data: []byte("hello\n"), Attrs: map[string]string{"a b": "c,d", detailTask: "forged"}},
		{Time: cluster.At(at), Data: []byte("oops\n"), Stderr: true},
	}
	return emit(lines)
}

func TestLogs(t *testing.T) {
	b := newBench(t)
	id := b.create(spec("web"))
	b.addTask(1, id, 1, 2)
	b.manager.set(func(m *fakeManager) { m.logs = sayHello })
	key := "com.docker.swarm.node.id=" + nodeID(2) + ",com.docker.swarm.service.id=" + id + ",com.docker.swarm.task.id=" + taskID(1)
	for query, want := range map[string][]string{
		"stdout=1&stderr=1":       {"1 hello\n", "2 oops\n"},
		"stdout=1":                {"1 hello\n"},
		"stderr=True":             {"2 oops\n"},
		"stdout=1&timestamps=1":   {"1 2026-01-02T03:04:05.000000060Z hello\n"},
		"stderr=1&details=1":      {"2 " + key + " oops\n"},
		"stdout=1&details=1":      {"1 a+b=c%2Cd," + key + " hello\n"},
		"stdout=1&tail=all":       {"1 hello\n"},
		"stdout=1&since=10m":      {"1 hello\n"},
		"stdout=1&since=1.5":      {"1 hello\n"},
		"stdout=1&since=0&tail=5": {"1 hello\n"},
	} {
		for _, path := range []string{"/services/web/logs?", "/tasks/" + taskID(1) + "/logs?"} {
			got := b.do("GET", path+query, nil).want(t, 200, "")
			if lines := frames(t, got.body); !slices.Equal(lines, want) {
				t.Errorf("%s: %q, want %q", query, lines, want)
			}
			if got := got.header.Get("Content-Type"); got != "application/vnd.docker.multiplexed-stream" {
				t.Error(got)
			}
		}
	}
	if got := b.do("GET", "/v1.41/services/web/logs?stdout=1", nil).header.Get("Content-Type"); got != "application/vnd.docker.raw-stream" {
		t.Error(got)
	}
	for query, text := range map[string]string{
		"": "you must choose at least one stream", "stdout=0": "at least one stream", "stdout=1&tail=x": "tail value must be a positive integer",
		"stdout=1&tail=-1": "negative tail values not supported", "stdout=1&since=yesterday": "invalid since",
	} {
		b.do("GET", "/services/web/logs?"+query, nil).want(t, 400, text)
	}
	b.do("GET", "/services/none/logs?stdout=1", nil).want(t, 404, "service none not found")
	b.do("GET", "/tasks/none/logs?stdout=1", nil).want(t, 404, "task none not found")

	tty := b.create(spec("tty", func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.TTY = true }))
	b.addTask(2, tty, 1, 2)
	if got := b.do("GET", "/services/tty/logs?stdout=1", nil).want(t, 200, ""); got.body != "hello\n" {
		t.Errorf("terminal: %q", got.body)
	}
}

func TestLogOptions(t *testing.T) {
	b := newBench(t)
	id := b.create(spec("web"))
	b.addTask(1, id, 1, 2)
	var got cluster.LogOptions
	b.manager.set(func(m *fakeManager) {
		m.logs = func(_ context.Context, node, task string, opts cluster.LogOptions, _ func([]cluster.LogLine) error) error {
			if node != nodeID(2) || task != taskID(1) {
				t.Errorf("asked %s for %s", node, task)
			}
			got = opts
			return nil
		}
	})
	b.do("GET", "/services/web/logs?stderr=1&tail=7&since=100.000000005", nil).want(t, 200, "")
	if want := (cluster.LogOptions{Stderr: true, Tail: 7, Since: cluster.Time(100*time.Second) + 5, Window: mostWindow}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	b.do("GET", "/services/web/logs?stdout=1", nil).want(t, 200, "")
	if want := (cluster.LogOptions{Stdout: true, Tail: -1, Window: mostWindow}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// TestLogsOfMany: one task's failure, or its node's, is a line among the others.
func TestLogsOfMany(t *testing.T) {
	b := newBench(t)
	id := b.create(spec("web"))
	for i := 1; i <= 50; i++ {
		b.addTask(i, id, uint32(i), 1+i%2)
	}
	b.addTask(51, id, 51, 3) // on a node that is down
	b.addTask(52, id, 52, 9) // on a node that is gone
	b.addTask(53, id, 53, 1, func(task *cluster.Task) { task.Status = cluster.TaskStatus{State: cluster.StatePending} })
	b.update(func(tx *store.Tx) error {
		node := *tx.Node(nodeID(3))
		node.Status.State = cluster.NodeDown
		return tx.Put(&node)
	})
	b.manager.set(func(m *fakeManager) {
		m.logs = func(ctx context.Context, node, task string, opts cluster.LogOptions, emit func([]cluster.LogLine) error) error {
			if task == taskID(7) {
				return errors.New("the log is broken")
			}
			if task == taskID(8) {
				return errors.New("read log: Error response from daemon: No such container: c0ffee")
			}
			if task == taskID(53) {
				t.Error("asked for the log of a task that hasn't begun")
			}
			return sayHello(ctx, node, task, opts, emit)
		}
	})
	lines := frames(t, b.do("GET", "/services/web/logs?stdout=1&stderr=1&details=1", nil).want(t, 200, "").body)
	var hello int
	for _, line := range lines {
		if strings.HasSuffix(line, " hello\n") {
			hello++
		}
		if !strings.Contains(line, "com.docker.swarm.node.id=") {
			t.Errorf("a line without details: %q", line)
		}
	}
	all := strings.Join(lines, "")
	for _, want := range []string{
		taskID(7) + " on node " + nodeID(2) + " can't be read: the log is broken\n",
		taskID(51) + " on node " + nodeID(3) + " can't be read: its node is down\n",
		taskID(52) + " on node " + nodeID(9) + " can't be read: its node was removed\n",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q", want)
		}
	}
	if hello != 48 || len(lines) != 2*48+3 {
		t.Errorf("%d lines, %d greetings", len(lines), hello)
	}
}

// TestLogsOfSilentNode ends although a node never answers.
func TestLogsOfSilentNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		id := b.create(spec("web"))
		b.addTask(1, id, 1, 2)
		b.manager.set(func(m *fakeManager) {
			m.logs = func(ctx context.Context, node, task string, opts cluster.LogOptions, emit func([]cluster.LogLine) error) error {
				for range 5 { // slow, but not silent
					time.Sleep(logIdle / 2)
					if err := emit([]cluster.LogLine{{Time: 1, Data: []byte("slow\n")}}); err != nil {
						return err
					}
				}
				<-ctx.Done()
				return ctx.Err()
			}
		})
		lines := frames(t, b.do("GET", "/services/web/logs?stdout=1", nil).want(t, 200, "").body)
		if len(lines) != 6 || !strings.Contains(lines[5], "its node said nothing for 10s") {
			t.Errorf("%q", lines)
		}
	})
}

// TestFollow shows tasks that start later, and takes a broken log up where it
// ended.
func TestFollow(t *testing.T) {
	b := newBench(t)
	id := b.create(spec("web"))
	b.addTask(1, id, 1, 1)
	broken := make(chan cluster.LogOptions, 10)
	b.manager.set(func(m *fakeManager) {
		m.logs = func(ctx context.Context, node, task string, opts cluster.LogOptions, emit func([]cluster.LogLine) error) error {
			if !opts.Follow {
				if opts.Since != 0 || opts.Tail != 3 || task != taskID(1) {
					t.Errorf("history of task %s: %+v", task, opts)
				}
				return emit([]cluster.LogLine{{Time: 40, Data: []byte("history\n")}})
			}
			if task == taskID(1) {
				broken <- opts
				if opts.Since == 41 {
					if err := emit([]cluster.LogLine{{Time: 41, Data: []byte("before\n")}}); err != nil {
						return err
					}
					return errors.New("connection lost")
				}
			}
			if err := emit([]cluster.LogLine{{Time: 50, Data: []byte("task " + task[len(task)-1:] + "\n")}}); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		}
	})
	b.manager.set(func(m *fakeManager) { m.none = true }) // a manager can do it alone
	local := httptest.NewServer(b.handler)
	defer local.Close()
	response, err := http.Get(local.URL + "/services/web/logs?stdout=1&stderr=1&follow=1&tail=3")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	reader, writer := io.Pipe()
	go func() {
		_, err := stdcopy.StdCopy(writer, writer, response.Body)
		writer.CloseWithError(err)
	}()
	var seen strings.Builder
	expect := func(part string) {
		t.Helper()
		buffer := make([]byte, 4096)
		for !strings.Contains(seen.String(), part) {
			n, err := reader.Read(buffer)
			seen.Write(buffer[:n])
			if err != nil {
				t.Fatalf("%q: no %q: %v", seen.String(), part, err)
			}
		}
	}
	expect("history\n")
	expect("before\n")
	expect("can't be read: connection lost")
	expect("task 1\n")
	if first, second := <-broken, <-broken; first.Tail != -1 || second.Tail != -1 || second.Since != 42 {
		t.Errorf("asked with %+v, then with %+v", first, second)
	}
	b.addTask(2, id, 2, 2, func(task *cluster.Task) { task.Status = cluster.TaskStatus{State: cluster.StateAssigned} })
	b.addTask(2, id, 2, 2)
	expect("task 2\n")
	b.addTask(3, "another service", 1, 2)
	b.update(func(tx *store.Tx) error {
		tx.Delete(tx.Service(id))
		tx.Delete(tx.Task(taskID(1)))
		tx.Delete(tx.Task(taskID(2)))
		return nil
	})
	response.Body.Close()
	rest, _ := io.ReadAll(reader)
	if bytes.Contains(rest, []byte("task 3")) || strings.Contains(seen.String(), "task 3") {
		t.Error("another service's log")
	}
}
