package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"

	"skep/cluster"
	"skep/store"
)

// whole is a list of tasks as one JSON value.
func whole(t testing.TB, view store.View) []byte {
	tasks := []swarm.Task{}
	for task := range view.Tasks() {
		tasks = append(tasks, renderTask(view, task))
	}
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(tasks); err != nil {
		t.Fatal(err)
	}
	return buffer.Bytes()
}

// TestList_IsOneValue: what is encoded in parts has the bytes of the whole.
func TestList_IsOneValue(t *testing.T) {
	for _, tasks := range []int{0, 1, 3, 1000} {
		b := crowded(t, tasks)
		if tasks == 3 {
			b.update(func(tx *store.Tx) error {
				next := *tx.Task(taskID(1))
				next.Status.Err, next.Status.Ports = "<&>\u2028", "80:8080/tcp"
				return tx.Put(&next)
			})
		}
		got := b.do("GET", "/tasks", nil).want(t, 200, "")
		if want := whole(t, b.view()); got.body != string(want) {
			t.Errorf("%d tasks: %.300s\nwant %.300s", tasks, got.body, want)
		}
		length := ""
		if len(got.body) < listPiece {
			length = fmt.Sprint(len(got.body))
		}
		if got.header.Get("Content-Length") != length || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%d tasks: %v", tasks, got.header)
		}
	}
	b := newBench(t)
	for _, path := range []string{"/services", "/secrets", "/configs", "/tasks"} {
		b.do("GET", path, nil).want(t, 200, "[]\n")
	}
}

// TestList_BreaksOffVisibly: what a list lacks can't be taken for the whole, here or by way of another manager.
func TestList_BreaksOffVisibly(t *testing.T) {
	p := newPair(t)
	fails := func(after int) handler {
		return func(context.Context, *request) (response, error) {
			return response{list: &listing{objects: func(yield func(any, error) bool) {
				for range after {
					if !yield(strings.Repeat("x", 1000), nil) {
						return
					}
				}
				yield(nil, errors.New("no more"))
			}}}, nil
		}
	}
	for _, b := range []*bench{p.other, p.here} {
		path, _ := listen(t, b.handler, ReadHeaderTimeout, MaxConnections)
		client := over(path)
		for _, after := range []int{1, 200} {
			for i := range p.other.server.routes {
				if r := &p.other.server.routes[i]; r.pattern == "/tasks" {
					r.handle = fails(after)
				}
			}
			answer, err := client.Get("http://skep/tasks")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(answer.Body)
			answer.Body.Close()
			switch {
			case after == 1 && (answer.StatusCode != 500 || err != nil || !strings.Contains(string(body), "no more")):
				t.Errorf("an error before the first part: %d, %.100q, %v", answer.StatusCode, body, err)
			case after == 200 && err == nil:
				t.Errorf("an error in the middle: %d, %d bytes, and all seems well", answer.StatusCode, len(body))
			}
		}
	}
}

// over is a client of a unix socket.
func over(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) },
		DisableKeepAlives: true,
	}}
}

// TestList_OfOthersIsBounded: large lists that another manager passes on wait for the leader's
// places, and their refusal comes through as it is.
func TestList_OfOthersIsBounded(t *testing.T) {
	p := newPair(t)
	service := p.other.create(spec("web"))
	p.other.update(func(tx *store.Tx) error {
		for i := range largeList {
			if err := tx.Put(&cluster.Task{ID: taskID(i), ServiceID: service, Slot: uint32(i + 1)}); err != nil {
				return err
			}
		}
		return nil
	})
	p.other.server.listWait = 10 * time.Millisecond
	for range maxLargeLists {
		p.other.server.lists <- struct{}{}
	}
	p.here.do("GET", "/tasks", nil).want(t, 503, "try again in a moment, or ask for fewer objects with filters")
	p.here.do("GET", `/tasks?filters={"node":["n1"]}`, nil).want(t, 200, "[]")
	<-p.other.server.lists
	p.here.do("GET", "/tasks", nil).want(t, 200, taskID(largeList-1))
	if len(p.other.server.lists) != maxLargeLists-1 {
		t.Error("the list keeps its place")
	}
}

// BenchmarkList is one list of 200,000 tasks over a socket, and the same encoded as a whole.
func BenchmarkList(b *testing.B) {
	bench := crowded(b, 200_000)
	path, _ := listen(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/whole" {
			_, _ = w.Write(whole(b, bench.view()))
			return
		}
		bench.handler.ServeHTTP(w, r)
	}), ReadHeaderTimeout, MaxConnections)
	for _, way := range []string{"tasks", "whole"} {
		b.Run(way, func(b *testing.B) {
			var before, after syscall.Rusage
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			for b.Loop() {
				answer, err := over(path).Get("http://skep/" + way)
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, answer.Body)
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(n)
			}
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			b.ReportMetric(float64(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano())/1e6/float64(b.N), "cpu-ms/op")
		})
	}
}
