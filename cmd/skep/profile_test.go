package main

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The socket is its owner's alone, and gives one profile at a time.
func TestProfiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.sock")
	if err := serveProfiles(t.Context(), path, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v; want mode 600", info.Mode(), err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	for _, step := range []struct {
		method, path string
		code         int
		begins, has  string
	}{
		{http.MethodPost, "/cpu/stop", http.StatusConflict, "stop profile: none", ""},
		{http.MethodPost, "/cpu/start", http.StatusOK, "", ""},
		{http.MethodPost, "/cpu/start", http.StatusConflict, "start profile: one", ""},
		{http.MethodPost, "/cpu/stop", http.StatusOK, "\x1f\x8b", ""}, // gzip
		{http.MethodPost, "/cpu/stop", http.StatusConflict, "", ""},
		{http.MethodGet, "/cpu/start", http.StatusMethodNotAllowed, "", ""},
		{http.MethodGet, "/heap", http.StatusOK, "\x1f\x8b", ""},
		{http.MethodGet, "/memory", http.StatusOK, "heap profile", "# HeapAlloc ="},
	} {
		req, err := http.NewRequestWithContext(t.Context(), step.method, "http://daemon"+step.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != step.code || !strings.HasPrefix(string(body), step.begins) || !strings.Contains(string(body), step.has) {
			t.Errorf("%s %s: %d %.40q, %v; want %d %q %q", step.method, step.path, resp.StatusCode, body, err, step.code, step.begins, step.has)
		}
	}
}
