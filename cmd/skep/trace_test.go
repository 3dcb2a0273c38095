package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"skep/cluster/trace/tracetest"
)

// received is what a collector over HTTP was sent: protobuf has names as they are.
type received struct {
	mu   sync.Mutex
	data []byte
}

func (r *received) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil || request.URL.Path != "/v1/traces" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.data = append(r.data, body...)
}

func (r *received) has(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Contains(r.data, []byte(name))
}

// A daemon sends traces where OpenTelemetry's own variables say, by either protocol, and what it has when it is stopped.
func TestDaemon_Traces(t *testing.T) {
	over := new(received)
	web := httptest.NewServer(over)
	t.Cleanup(web.Close)
	rpc := tracetest.Start(t, false)
	for _, to := range []struct {
		name string
		env  []string
		has  func(string) bool
	}{
		{"grpc", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + rpc.URL, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, func(name string) bool {
			spans, _ := rpc.Spans()
			return len(spans[name]) > 0
		}},
		{"http", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + web.URL}, over.has},
	} {
		t.Run(to.name, func(t *testing.T) {
			listen := ownAddress(t)
			dir := t.TempDir()
			socket := filepath.Join(dir, "skep.sock")
			daemon := exec.Command(os.Args[0], "daemon", "--driver", "simulate", "--engine", "", "--data-dir", filepath.Join(dir, "data"), "--host", "unix://"+socket)
			daemon.Env = append(append(os.Environ(), asCommand+"=1", "OTEL_BSP_SCHEDULE_DELAY=100"), to.env...)
			daemon.Dir = dir
			var output bytes.Buffer
			daemon.Stdout, daemon.Stderr = &output, &output
			if err := daemon.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- daemon.Wait() }()
			t.Cleanup(func() { _ = daemon.Process.Kill() }) // unless it ended
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			}}}
			post := func(path string, body any) error {
				data, err := json.Marshal(body)
				if err != nil {
					return err
				}
				answer, err := client.Post("http://skep"+path, "application/json", bytes.NewReader(data))
				if err != nil {
					return err
				}
				defer answer.Body.Close()
				text, err := io.ReadAll(answer.Body)
				if err == nil && answer.StatusCode >= 300 {
					err = fmt.Errorf("%d %s", answer.StatusCode, text)
				}
				return err
			}
			until := func(what string, done func() error) {
				t.Helper()
				for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
					err := done()
					if err == nil {
						return
					}
					if time.Now().After(deadline) {
						t.Fatalf("%s: %v", what, err)
					}
				}
			}
			until("init", func() error {
				return post("/swarm/init", map[string]any{"ListenAddr": listen, "AdvertiseAddr": listen})
			})
			until("create", func() error {
				return post("/services/create", map[string]any{"Name": "web", "TaskTemplate": map[string]any{"ContainerSpec": map[string]any{"Image": "web:1"}}})
			})
			for _, name := range []string{"api POST /services/create", "store.update", "raft.commit", "fsm.apply", "scheduler.plan", "dispatch.send", "agent.task", "agent.prepare", "agent.start", "dispatch.report", "relay.leader"} {
				until(name, func() error {
					if !to.has(name) {
						return fmt.Errorf("no such span came")
					}
					return nil
				})
			}
			// What hasn't been sent yet is sent at the end.
			answer, err := client.Get("http://skep/swarm/unlockkey")
			if err != nil {
				t.Fatal(err)
			}
			answer.Body.Close()
			if err := daemon.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Errorf("it ended with %v", err)
			}
			if !to.has("api GET /swarm/unlockkey") {
				t.Error("the last span didn't come")
			}
			if text := output.String(); strings.Contains(text, "traces can't be sent") || !strings.Contains(text, "trace requests") {
				t.Errorf("it said:\n%s", text)
			}
		})
	}
}

// What can't be is refused before anything is touched.
func TestDaemon_RefusesTraces(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	got := skep(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL=http/json"}, "daemon", "--driver", "simulate", "--engine", "", "--data-dir", dir, "--host", "unix://"+dir+".sock")
	if _, err := os.Stat(dir); got.status == 0 || !strings.Contains(got.stderr, `OTEL_EXPORTER_OTLP_PROTOCOL is "http/json": use grpc, or http/protobuf`) || err == nil {
		t.Errorf("%d %s %v", got.status, got.stderr, err)
	}
}
