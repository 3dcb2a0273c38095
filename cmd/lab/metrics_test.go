package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/swarm"
)

// TestMetrics_OfAProcess is a daemon with a port for metrics that names no services: its socket has them, and what raft and
// gossip measure of themselves, which they do for the whole process.
func TestMetrics_OfAProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	block, err := freeBlock(1)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.%d.1", block)
	port := net.JoinHostPort(addr, "9177")
	l := lab{bin: binaries(t)}
	n := newNode("n1", addr, t.TempDir(), filepath.Join(l.bin, "skep"), "--driver", "simulate", "--engine", "unix:///nowhere", "--metrics-addr", port, "--metrics-detail", "node")
	if err := n.start(ctx); err != nil {
		t.Fatal(err)
	}
	defer n.kill()
	if err := form(ctx, []peer{{n.name, n.addr, n.api}}, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := n.api.ServiceCreate(ctx, benchSpec("web", 1), swarm.ServiceCreateOptions{}); err != nil {
		t.Fatal(err)
	}
	scrape := func(client *http.Client, url string) string {
		t.Helper()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v", url, answer.Status, err)
		}
		return string(text)
	}
	own := ""
	if err := until(ctx, 20*time.Second, "the service to be told of", func(context.Context) error {
		if own = scrape(n.api.HTTPClient(), "http://skep/metrics"); !strings.Contains(own, `skep_service_tasks_running{service="web"} 1`) {
			return errors.New("it isn't")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`skep_raft_rpc_seconds_count{rpc="append"} `, `skep_raft_rpc_seconds_count{rpc="heartbeat"} `, `skep_raft_rpc_seconds_count{rpc="snapshot"} `, `skep_raft_rpc_seconds_count{rpc="vote"} `,
		`skep_raft_snapshot_seconds_count{op="take"} `, `skep_raft_snapshot_seconds_count{op="persist"} `, `skep_raft_snapshot_seconds_count{op="restore"} `,
		`skep_gossip_probe_seconds_count `, `skep_gossip_news_total{kind="alive"} `, "skep_raft_is_leader 1", "go_goroutines ", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(own, "\n"+line) {
			t.Errorf("its socket doesn't say %s", line)
		}
	}
	if other := scrape(http.DefaultClient, "http://"+port+"/metrics"); strings.Contains(other, "service=") || !strings.Contains(other, "\nskep_raft_is_leader 1\n") || !strings.Contains(other, "skep_node_state{") {
		t.Errorf("its port says:\n%s", other)
	}
}
